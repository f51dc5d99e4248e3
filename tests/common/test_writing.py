import os
import re
import stat
from pathlib import Path

import pytest

from ean_core.common.errors import CannotWriteError
from ean_core.common.writing import (
    LinkError,
    NotRegularError,
    file_lock,
    open_in_place,
    open_new,
    refuse_link,
    remove_leftovers,
    remove_link,
    replacing,
    temporary,
)

NAMES = ["a.csv", "a", ".hidden", "a b.tar.gz", "é\n.csv", "x" * 255, "𝟙" * 63 + ".p"]


@pytest.fixture
def victim(tmp_path):
    """A file outside the folder that is written to, and a link to it inside."""
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("mine")
    folder.mkdir()
    (folder / "a.txt").symlink_to(victim)
    return victim


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [False, True])
def test_a_file_is_written_beside_its_target_and_renamed(tmp_path, name, suffix):
    path = tmp_path / "new/folder" / name
    with replacing(path, suffix=suffix) as partial:
        assert partial.parent == path.parent
        assert re.fullmatch(r"\..+\.[0-9a-f]{8}\.part", partial.name.removesuffix(path.suffix), re.DOTALL)
        assert partial.suffix == (path.suffix or ".part" if suffix else ".part")
        assert partial.read_bytes() == b""
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert left(path.parent) == [name]


def test_two_writers_have_different_temporary_files(tmp_path, monkeypatch):
    drawn = iter(["00000000", "00000000", "00000001"])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(drawn))
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        assert [path.name for path in (one, other)] == [".a.00000000.part", ".a.00000001.part"]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_a_file_has_the_permissions_of_any_new_one(tmp_path, mask):
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "a") as partial:
            partial.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_a_link_is_replaced(victim, tmp_path):
    path = tmp_path / "folder/a.txt"
    with replacing(path) as partial:
        partial.write_text("new")
    assert victim.read_text() == "mine"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_a_link_under_the_temporary_name_is_not_written_to(victim, tmp_path, monkeypatch):
    drawn = iter(["00000000", "00000001"])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(drawn))
    for target in (victim, tmp_path / "absent"):
        link = tmp_path / "folder/.b.00000000.part"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with replacing(tmp_path / "folder/b") as partial:
            partial.write_text("new")
        drawn = iter(["00000000", "00000001"])
    assert victim.read_text() == "mine"
    assert not (tmp_path / "absent").exists()


def test_a_folder_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    with replacing(tmp_path / "runs/a") as partial:
        partial.write_text("new")
    assert (tmp_path / "disk/a").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")

    def fail():
        with replacing(path) as partial:
            partial.write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert left(tmp_path) == ["a"]


def test_errors_name_the_target(tmp_path):
    def full():
        with replacing(tmp_path / "a"):
            raise OSError(28, "No space left on device")

    with pytest.raises(CannotWriteError, match=re.escape(f"{tmp_path}/a cannot be written: the disk is full; ")):
        full()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named_with_the_target(tmp_path):
    tmp_path.chmod(0o500)
    text = re.escape(f"{tmp_path}/a cannot be written: permission denied")
    with pytest.raises(CannotWriteError, match=text), temporary(tmp_path / "a"):
        pass
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("renamed", [True, False])
def test_a_temporary_file_that_is_not_renamed_is_removed(tmp_path, renamed):
    with temporary(tmp_path / "a") as partial:
        if renamed:
            partial.replace(tmp_path / "a")
    assert left(tmp_path) == (["a"] if renamed else [])


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_new_file_under_its_name_does_not_go_where_a_link_points(victim, tmp_path, link):
    path = tmp_path / "folder/a.txt"
    path.unlink()
    link(path, victim)
    with open_new(path, encoding="utf-8") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "new"
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("mode", ["a", "w", "a+b", "ab", "wb"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_file_that_is_continued_may_not_be_a_link(victim, tmp_path, mode, exists):
    path = tmp_path / "folder/a.txt"
    if not exists:
        victim.unlink()
    with pytest.raises(LinkError, match=re.escape(f"{path} is a link, and what it points to would be changed; remove")):
        open_in_place(path, mode)
    assert victim.exists() == exists
    path.unlink()
    for _ in range(2):
        with open_in_place(path, mode) as file:
            file.write(b"new" if "b" in mode else "new")
    assert path.read_bytes() == (b"new" if "w" in mode else b"newnew")


@pytest.mark.parametrize("mode", ["a", "r+b", "wb"])
def test_a_fifo_is_not_continued_and_blocks_nobody(tmp_path, mode):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotRegularError, match="fifo is not a regular file; remove it"):
        open_in_place(tmp_path / "fifo", mode)


def test_a_lock_may_not_be_a_link(victim, tmp_path):
    with pytest.raises(LinkError, match=r"a\.txt is a link"):
        file_lock(tmp_path / "folder/a.txt")
    with file_lock(tmp_path / "folder/b", timeout=0):
        pass
    assert victim.read_text() == "mine"


def test_links_are_refused_or_removed_where_a_library_writes(victim, tmp_path):
    path = tmp_path / "folder/a.txt"
    with pytest.raises(LinkError):
        refuse_link(path)
    remove_link(path)
    assert not path.is_symlink()
    path.touch()
    refuse_link(path)
    remove_link(path)
    remove_link(tmp_path / "absent")
    assert path.is_file()


def test_a_folder_with_the_name_of_a_leftover_is_kept(tmp_path):
    (tmp_path / ".a.01234567.part").mkdir()
    (tmp_path / ".b.01234567.part").symlink_to(".a.01234567.part")
    remove_leftovers(tmp_path, "*")
    assert [path.name for path in tmp_path.iterdir()] == [".a.01234567.part"]


def test_only_temporary_files_are_removed_as_leftovers(tmp_path):
    gone = [".a.pth.01234567.part", "deep/.b.h5.89abcdef.part", ".c.mp4.01234567.part.mp4"]
    kept = ["a.pth", "a.pth.part", ".a.pth.part", ".a.0123456.part", ".a.pth.01234567.part.d.e", "deep/.b.h5"]
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, ".*.h5.*")
    assert len(list(tmp_path.rglob(".*.part*"))) == 6
    remove_leftovers(tmp_path, "**/*")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        kept
    )
