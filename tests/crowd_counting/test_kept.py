import io
import os

import pytest

from tasks.crowd_counting import kept
from tasks.crowd_counting.kept import FILE_COST, KeptFiles, open_regular

#: Room for four small files.
ROOM = 4 * FILE_COST + 1000


@pytest.fixture
def files(tmp_path):
    return KeptFiles(tmp_path / "files", ROOM)


def test_only_the_exact_path_is_readable_and_only_to_its_visitor(files):
    path = files.add("a", "10.0.0.1", "b.png", b"image")
    assert path.read_bytes() == b"image"
    assert path.name == "b.png"
    assert files.readable(str(path), "a")
    others = [
        f"{path.parent}/./b.png",
        f"{path.parent}/c.png",
        f"{path.parent}",
        path,
        None,
        f"{path}\0",
        3,
        [str(path)],
    ]
    assert [one for one in others if files.readable(one, "a")] == []
    assert not files.readable(str(path), "b")
    assert not files.readable(str(path), "")


def test_a_shared_file_is_readable_to_all_and_never_removed(files):
    path = files.folder / "example.png"
    path.write_bytes(b"image")
    files.share(path)
    for _ in range(9):
        files.add("a", "10.0.0.1", "b.png", b"image")
    assert files.readable(str(path), "b")
    assert path.is_file()


def test_who_has_most_makes_room_for_others(files):
    first = files.add("a", "10.0.0.1", "a.png", b"a")
    greedy = [files.add("b", "10.0.0.2", "b.png", b"b") for _ in range(8)]
    assert first.is_file()
    assert [path.is_file() for path in greedy] == [False] * 5 + [True] * 3
    assert len(list(files.folder.iterdir())) == 4


def test_an_upload_counts_while_it_is_received_and_is_stopped_if_it_makes_room(files):
    stopped = []
    slow = files.begin("a", "10.0.0.1", lambda: stopped.append("slow"))
    files.grow(slow, 2 * FILE_COST)
    assert not files.readable(str(slow.path), "a")
    for _ in range(2):
        files.add("b", "10.0.0.2", "b.png", b"b")
    assert stopped == ["slow"]
    with pytest.raises(FileNotFoundError):
        files.finish(slow, "a.png", io.BytesIO(b"image"))
    assert not slow.folder.exists()


def test_old_files_are_removed(files, monkeypatch):
    path = files.add("a", "10.0.0.1", "a.png", b"a")
    files.expire()
    assert path.is_file()
    monkeypatch.setattr(kept, "KEPT_S", -1)
    files.expire()
    assert not path.exists()
    assert not files.readable(str(path), "a")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/notes.png", "notes.png"),
        ("C:\\images\\notes.png", "notes.png"),
        ("notes <b>\n.png", "notes b.png"),
        ("", "image"),
        ("..", "image"),
        (".", "image"),
        ("\0", "image"),
        ("人" * 300 + ".jpeg", "人" * 50 + ".jpeg"),
    ],
)
def test_names_are_those_of_files_in_their_folder(files, name, expected):
    path = files.add("a", "10.0.0.1", name, b"a")
    assert path.name == expected
    assert path.parent.parent == files.folder


def test_only_a_regular_file_is_opened(tmp_path):
    path = tmp_path / "folder" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"image")
    with open_regular(path) as file:
        assert file.read() == b"image"
        assert file.name == str(path)
    link, folder, fifo = tmp_path / "folder" / "link.png", tmp_path / "link", tmp_path / "fifo.png"
    link.symlink_to(path)
    folder.symlink_to(path.parent)
    os.mkfifo(fifo)
    for one in (link, folder / "a.png", fifo, path.parent, tmp_path / "missing.png", "/dev/zero", ""):
        with pytest.raises(FileNotFoundError):
            open_regular(one)
