import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ean_core.common.text import from_csv_cell
from ean_core.inference import engine
from ean_core.weights.files import save_weights
from tasks.cli import main
from tasks.crowd_counting import predict
from tasks.crowd_counting import video as frames_of
from tasks.crowd_counting.counter import Counter, Prediction
from tasks.crowd_counting.drawing import draw_crowd
from tasks.crowd_counting.familiar import LEAST_IMAGES, Pooled, errors_of, statistics_of
from tasks.crowd_counting.overlay import Heat, people
from tasks.crowd_counting.predict import COLUMNS, DECIMALS, Predictor, Smoothed
from tasks.crowd_counting.region import Region
from tasks.showing import NARROWEST
from tasks.sources import find_sources
from tasks.trained import load_network

from .conftest import SETTINGS


def run(capsys, *words):
    """Exit status and what was printed, of ``ean crowd predict`` in this process."""
    with pytest.raises(SystemExit) as ended:
        main(["crowd", "predict", *map(str, words)])
    return ended.value.code, *(re.sub(r"\x1b\[[\d;]*m", "", text) for text in capsys.readouterr())


def start(*words, **options):
    """``ean crowd predict`` as a process of its own."""
    command = [sys.executable, "-m", "tasks.cli", "crowd", "predict", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes, **options)


def crowd(people=5, size=(48, 64), seed=0):
    return draw_crowd(people, size, seed)[0]


def write_crowd(path, people=5, size=(48, 64), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    crowd(people, size, seed).save(path, **options)
    return path


def write_video(path, frames=6, fps=4.0, size=(48, 64), codec="MJPG"):
    """A crowd that grows, again and again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size[::-1])
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.asarray(crowd(3 * (number % 7), size))[:, :, ::-1])
    writer.release()
    return path


def read_video(path):
    """The frames, RGB, and how many of them a second has."""
    capture = cv2.VideoCapture(str(path))
    assert capture.isOpened(), path
    frames = []
    while (read := capture.read())[0]:
        frames.append(np.ascontiguousarray(read[1][:, :, ::-1]))
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return frames, fps


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def counted(out):
    """Read both count files, which must agree."""
    lines, content = table(out / "counts.csv"), json.loads((out / "counts.json").read_text())
    assert len(lines) == len(content["results"])
    for line, result in zip(lines, content["results"], strict=True):
        for key, text in line.items():
            value = result[key]
            decimals = key in ("count", "strangeness")
            assert text == ("" if value is None else f"{value:.3f}" if decimals else str(value))
        assert result["people"] == (None if result["count"] is None else round(result["count"]))
    return {result["file"]: result for result in content["results"]}


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def interrupts():
    """Press Ctrl-C in this process, which handles it as in a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press():
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the handler runs between two steps of the main thread
            pass

    yield press
    signal.signal(signal.SIGINT, before)


def test_rounded_numbers_are_columns_of_the_table():
    assert DECIMALS.keys() <= set(COLUMNS)


# ---------------------------------------------------------------- pictures


@pytest.fixture
def pictures(tmp_path):
    """A folder with all kinds of things in it."""
    root = tmp_path / "pictures"
    write_crowd(root / "a.jpg", 3)
    write_crowd(root / "a.png", 6, (60, 90))
    write_crowd(root / "B.TIF", 9, (31, 33))
    write_crowd(root / "deep/er/a.jpg", 4, seed=1)
    crowd().convert("L").save(root / "deep/grey, \"or\" not é.png")  # fmt: skip
    (root / "broken.jpg").write_bytes((root / "a.jpg").read_bytes()[:400])
    (root / "deep/text.png").write_text("no picture")
    (root / "notes.txt").write_text("no picture, and not called one")
    (root / "folder.jpg").mkdir()
    return root


def test_a_folder_is_counted_whole_and_what_is_broken_is_named_and_skipped(
    capsys, pictures, tmp_path, counter, counter_file
):
    code, out, err = run(capsys, pictures, "--model", counter_file, "--out", tmp_path / "out")
    assert code == 1
    *_, heading, first, second = err.splitlines()
    assert heading == "not counted: 2"
    assert first.startswith(f"  {pictures / 'broken.jpg'}: cannot be read as an image: ")
    assert second.startswith(f"  {pictures / 'deep/text.png'}: cannot be read as an image: ")
    assert "the error of this counter is unknown" in out
    found = counted(tmp_path / "out")
    good = ["B.TIF", "a.jpg", "a.png", "deep/er/a.jpg", 'deep/grey, "or" not é.png']
    bad = ["broken.jpg", "deep/text.png"]
    assert list(found) == [str(pictures / name) for name in sorted(good + bad, key=lambda name: Path(name).parts)]
    for name in good:
        result, (count, density) = found[str(pictures / name)], counter(pictures / name)
        assert result["count"] == count
        assert (result["height"], result["width"]) == density.shape
        assert (result["frames"], result["problem"], result["peak"]) == (1, "", None)
        assert result["overlay"] == f"{name}.overlay.jpg"
        with Image.open(tmp_path / "out" / result["overlay"]) as overlay:
            assert overlay.width == NARROWEST
        assert f"{pictures / name}: about {people(count)}\n" in out
    for name in bad:
        result = found[str(pictures / name)]
        assert (result["count"], result["width"], result["frames"], result["overlay"]) == (None, None, 0, "")
        assert result["problem"].startswith("cannot be read as an image: ")
        assert f"{pictures / name}: cannot be read as an image: " in err
    assert err.count("; skipped") == 2
    assert f"5 of 7 counted by {counter_file.name}" in out
    assert files(tmp_path / "out") == sorted(["counts.csv", "counts.json", *(f"{name}.overlay.jpg" for name in good)])
    content = json.loads((tmp_path / "out/counts.json").read_text())
    assert (content["model"], content["name"], content["stride"]) == (str(counter_file), counter_file.name, 8)


def test_a_second_run_does_not_count_overlays_of_the_first(capsys, pictures, counter_file):
    words = (pictures, "--model", counter_file, "--out")
    listed = [source for _, source, _ in find_sources([str(pictures)])]
    for out in (pictures / "counted", pictures / "counted", pictures / "elsewhere", pictures):
        assert run(capsys, *words, out)[0] == 1  # two of them are broken
        assert list(counted(out)) == listed
    assert [source for _, source, _ in find_sources([str(pictures)])] == listed


def test_the_output_folder_may_be_around_the_pictures(capsys, pictures, counter_file, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    run(capsys, "pictures", "--model", counter_file, "--out", ".")
    assert len(counted(Path())) == 7
    assert Path("a.jpg.overlay.jpg").is_file()


def test_sources_of_the_same_name_do_not_overwrite_each_other(capsys, tmp_path, counter_file):
    one = write_crowd(tmp_path / "one/a.jpg", 2, (40, 40))
    two = write_crowd(tmp_path / "two/A.JPG", 20, (80, 40), format="JPEG")
    three = write_crowd(tmp_path / "three/a.jpg", 9, (60, 40))
    out = tmp_path / "out"
    assert run(capsys, one.parent, two.parent, three, "--model", counter_file, "--out", out)[0] == 0
    found = counted(out)
    overlays = {path: found[str(path)]["overlay"] for path in (one, two, three)}
    assert len({name.casefold() for name in overlays.values()}) == 3  # as some file systems compare them
    for path, name in overlays.items():
        with Image.open(path) as picture, Image.open(out / name) as overlay:
            assert overlay.height - 56 == picture.height * NARROWEST // picture.width


def test_pictures_are_named_one_by_one_too_and_what_is_missing_is_said(capsys, tmp_path, counter_file):
    good = write_crowd(tmp_path / "a.picture", format="PNG")  # kinds are told by contents
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    gone = tmp_path / "gone.jpg"
    out = tmp_path / "out"
    code, _, err = run(capsys, gone, text, good, "--model", counter_file, "--out", out)
    assert code == 1
    found = counted(out)
    assert [result["count"] is None for result in found.values()] == [True, True, False]
    assert f"{gone}: there is no such file or folder; skipped\n" in err
    assert f"{text}: cannot be read as an image: " in err


@pytest.mark.skipif(os.name == "nt", reason="Windows refuses such names")
def test_names_act_neither_on_the_terminal_nor_in_a_spreadsheet(capfd, tmp_path, counter_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [
        "=cmd|' ?C calc'!A0.png",
        "+1+1.png",
        "-1.png",
        "@a.png",
        "\t=1.png",
        "a;=1.png",
        "a\x1b[2J\r\n\u202eb.png",
    ]
    for name in names:
        write_crowd(tmp_path / name)
    (tmp_path / "broken\x1b[2J.png").write_bytes(b"x")
    words = ["--model", str(counter_file), "--no-overlay", "--out", "out"]
    with pytest.raises(SystemExit):
        main(["crowd", "predict", *words, "--", *names, "broken\x1b[2J.png"])
    output = "".join(capfd.readouterr())
    assert "a\\x1b[2J\\r\\n\\u202eb.png: " in output
    assert "broken\\x1b[2J.png: " in output
    assert not set(output) & set("\x1b\r\u202e")
    cells = [line["file"] for line in table(tmp_path / "out" / "counts.csv")]
    assert [from_csv_cell(cell) for cell in cells] == [*names, "broken\x1b[2J.png"]
    assert not any(re.search(r"(^|[;\t\r\n])[=+\-@\t]", cell) for cell in cells)


def test_where_nothing_could_be_counted_the_status_is_1(capsys, tmp_path, counter_file):
    out, text = tmp_path / "out", tmp_path / "notes.txt"
    text.write_text("no picture")
    code, printed, _ = run(capsys, text, "--model", counter_file, "--out", out)
    assert code == 1
    assert "0 of 1 counted" in printed
    assert counted(out)[str(text)]["problem"].startswith("cannot be read as an image")


@pytest.mark.parametrize("number", ["gone.jpg", "9" * 30, "99999"])  # numbers beyond all webcams are files
def test_if_no_source_exists_nothing_is_loaded_or_written(capsys, tmp_path, number):
    code, _, _ = run(capsys, number, "--model", tmp_path / "none.pth", "--out", tmp_path / "out")
    assert code == f"ean crowd predict: there is no such file or folder: {number}"
    assert not (tmp_path / "out").exists()


def test_a_folder_without_pictures_is_an_error_and_leaves_earlier_counts(capsys, tmp_path, counter_file):
    write_crowd(tmp_path / "a.jpg")
    out, empty = tmp_path / "out", tmp_path / "empty"
    run(capsys, tmp_path / "a.jpg", "--model", counter_file, "--out", out)
    before = {name: (out / name).read_bytes() for name in files(out)}
    (empty / "deep").mkdir(parents=True)
    (empty / "notes.txt").write_text("no picture")
    code, _, _ = run(capsys, empty, "--model", counter_file, "--out", out)
    assert code.startswith(f"ean crowd predict: no image or video in {empty}; supported: ")
    assert ".jpg" in code
    assert {name: (out / name).read_bytes() for name in files(out)} == before


def test_without_overlays_there_are_only_counts(capsys, pictures, tmp_path, counter_file):
    write_video(pictures / "a.avi")
    out = tmp_path / "out"
    run(capsys, pictures, "--no-overlay", "--model", counter_file, "--out", out)
    assert files(out) == ["a.avi.counts.csv", "counts.csv", "counts.json"]
    assert {result["overlay"] for result in counted(out).values()} == {""}
    assert sum(result["count"] is not None for result in counted(out).values()) == 6


def test_one_top_is_for_all_overlays_and_opacity_0_leaves_the_pictures(capsys, tmp_path, counter_file):
    write_crowd(tmp_path / "a.png", size=(100, 480))
    drawn = {}
    for words in ((), ("--top", 2), ("--top", 1000), ("--opacity", 0)):
        out = tmp_path / f"out{len(drawn)}"
        code, _, _ = run(capsys, tmp_path / "a.png", *words, "--model", counter_file, "--out", out)
        assert code == 0
        with Image.open(out / "a.png.overlay.jpg") as overlay:
            drawn[words] = np.asarray(overlay).astype(int)
    own, low, high, none = drawn.values()
    plain = np.asarray(crowd(size=(100, 480))).astype(int)
    difference = [np.abs(overlay[:100] - plain).mean() for overlay in (low, high, none)]
    assert min(difference[:2]) > 5 * difference[2]  # people are seen on any scale
    assert low[:100].mean() > high[:100].mean() + 10  # bright and dark end of the color bar
    assert np.abs(own[100:] - high[100:]).max() > 100  # another number at the bar


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--top", "0"], "ean crowd predict: --top must be a number above 0, got 0.0"),
        (["--top", "nan"], "ean crowd predict: --top must be a number above 0, got nan"),
        (["--model", "nowhere.pth"], "ean crowd predict: no checkpoint at nowhere.pth"),
        (["--model", "resnet21"], "ean crowd predict: there is no model 'resnet21'"),
        (["--opacity", "2"], 2),
        (["--seconds", "-1"], 2),
        (["--region", "1,2,3"], "ean crowd predict: --region 1,2,3 is not a region; expected x0,y0,x1,y1, "),
        (["--region", "9,2,3,4"], "ean crowd predict: --region 9,2,3,4 has no area: x0 must be less than x1"),
        (["--device", "warp"], "ean crowd predict: device 'warp' cannot be used, use cpu: "),
    ],
)
def test_a_wrong_argument_is_answered_in_one_line(capsys, tmp_path, counter_file, words, status):
    write_crowd(tmp_path / "a.jpg")
    code, _, _ = run(capsys, tmp_path / "a.jpg", "--model", counter_file, "--out", tmp_path / "out", *words)
    assert code == status if isinstance(status, int) else code.startswith(status)
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_text_end_nothing(capsys, tmp_path, counter_file):
    write_crowd(tmp_path / "in/a.jpg")
    write_video(tmp_path / "in/a.avi")
    try:
        for suffix in ("jpg", "avi"):
            (tmp_path / f"in/a.{suffix}").rename(tmp_path / f"in/\udcff.{suffix}")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes text only")
    write_crowd(tmp_path / "in/a.jpg")
    out = tmp_path / "out"
    code, _, err = run(capsys, tmp_path / "in", "--model", counter_file, "--out", out)
    assert code == 1
    assert "?.avi: cannot be read as a video: its name is not UTF-8; rename it; skipped" in err
    results = json.loads((out / "counts.json").read_text())["results"]
    assert [result["count"] is None for result in results] == [False, True, False]
    assert len(table(out / "counts.csv")) == 3
    assert "\udcff.jpg.overlay.jpg" in files(out)


def test_what_is_too_large_for_the_memory_is_skipped(capsys, tmp_path, counter_file, monkeypatch):
    write_crowd(tmp_path / "in/a.jpg", size=(80, 40))
    write_crowd(tmp_path / "in/b.jpg")
    write_video(tmp_path / "in/c.avi", size=(80, 40))
    usual = Counter.__call__

    def counts(self, pixels):
        if pixels.shape[:2] == (80, 40):
            raise MemoryError
        return usual(self, pixels)

    monkeypatch.setattr(Counter, "__call__", counts)
    code, _, err = run(capsys, tmp_path / "in", "--model", counter_file, "--out", tmp_path / "out")
    assert code == 1
    assert [result["count"] is None for result in counted(tmp_path / "out").values()] == [True, False, True]
    assert err.count("is too large for this machine's memory: 40 x 80 pixels; skipped") == 2


# ---------------------------------------------------------------- videos


@pytest.mark.parametrize(("name", "codec"), [("walk.avi", "MJPG"), ("walk.MP4", "mp4v")])
def test_a_video_is_counted_frame_by_frame_and_annotated(capsys, tmp_path, counter, counter_file, name, codec):
    video, out = write_video(tmp_path / name, frames=6, fps=4, codec=codec), tmp_path / "out"
    frames, _ = read_video(video)
    expected = [counter(frame).count for frame in frames]
    assert expected[0] != counter(frames[0][:, :, ::-1]).count
    code, printed, _ = run(capsys, video, "--model", counter_file, "--out", out)
    assert code == 0

    lines = table(out / f"{name}.counts.csv")
    assert [line["frame"] for line in lines] == ["0", "1", "2", "3", "4", "5"]
    assert [line["seconds"] for line in lines] == ["0.000", "0.250", "0.500", "0.750", "1.000", "1.250"]
    assert [line["count"] for line in lines] == [f"{count:.3f}" for count in expected]
    smoothed = Smoothed()
    steady = [smoothed(count, number / 4) for number, count in enumerate(expected)]
    assert [line["smoothed"] for line in lines] == [f"{count:.3f}" for count in steady]

    result = counted(out)[str(video)]
    assert (result["frames"], result["width"], result["height"], result["problem"]) == (6, 64, 48, "")
    assert result["count"] == pytest.approx(sum(expected) / 6)
    assert result["peak"] == pytest.approx(max(expected))
    assert result["overlay"] == f"{name}.overlay.mp4"
    assert f"about {people(sum(expected) / 6)} on average over 6 frames, at most {round(max(expected))}" in printed

    drawn, fps = read_video(out / result["overlay"])
    assert (len(drawn), fps) == (6, 4)
    assert drawn[0].shape == (360 + 56, 480, 3)
    assert (drawn[0][-4:] > 240).all()  # the white strip
    plain = cv2.resize(frames[5], (480, 360)).astype(int)
    assert np.abs(drawn[5][:360] - plain).mean() < np.abs(drawn[5][:360] - plain[:, :, ::-1]).mean()
    assert files(out) == ["counts.csv", "counts.json", f"{name}.counts.csv", f"{name}.overlay.mp4"]


def test_odd_sides_lose_a_row_and_not_a_frame(capsys, tmp_path, counter_file):
    video, out = write_video(tmp_path / "a.avi", frames=3, size=(101, 501)), tmp_path / "out"
    assert run(capsys, video, "--model", counter_file, "--out", out)[0] == 0
    drawn, _ = read_video(out / "a.avi.overlay.mp4")
    assert [frame.shape for frame in drawn] == [(156, 500, 3)] * 3


@pytest.mark.parametrize("fps", [0.2, 0.4, 23.976, 29.97, 239.847])
def test_any_rate_of_frames_is_annotated(capsys, tmp_path, counter_file, fps):
    video, out = write_video(tmp_path / "a.avi", frames=3, fps=fps), tmp_path / "out"
    assert read_video(video)[1] == pytest.approx(fps, rel=1e-3)
    assert run(capsys, video, "--model", counter_file, "--out", out)[0] == 0
    drawn, rate = read_video(out / "a.avi.overlay.mp4")
    assert len(drawn) == 3
    assert rate == pytest.approx(fps, rel=1e-3)
    assert float(table(out / "a.avi.counts.csv")[2]["seconds"]) == pytest.approx(2 / fps, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(("seconds", "frames"), [(0, 1), (0.25, 1), (0.3, 2), (1, 4), (1.01, 5), (60, 10)])
def test_a_video_stops_after_the_given_seconds(capsys, tmp_path, counter_file, seconds, frames):
    video, out = write_video(tmp_path / "a.avi", frames=10, fps=4), tmp_path / "out"
    words = ("--seconds", seconds, "--no-overlay", "--model", counter_file, "--out", out)
    assert run(capsys, video, *words)[0] == 0
    assert counted(out)[str(video)]["frames"] == len(table(out / "a.avi.counts.csv")) == frames


def test_the_bar_of_a_video_stays_after_its_first_second(capsys, tmp_path, counter_file, monkeypatch):
    tops = []
    draw = sys.modules["tasks.crowd_counting.predict"].draw_overlay
    highest = iter([30, 3, 100, 900, 4, 900])

    def watched(pixels, density, label, heat, warning):
        tops.append(heat.top)
        return draw(pixels, density, label, heat, warning)

    monkeypatch.setattr("tasks.crowd_counting.predict.draw_overlay", watched)
    monkeypatch.setattr("tasks.crowd_counting.predict.round_top", lambda density: next(highest))
    video = write_video(tmp_path / "a.avi", frames=6, fps=3)
    run(capsys, video, "--model", counter_file, "--out", tmp_path / "out")
    assert tops == [30, 30, 100, 100, 100, 100]
    tops.clear()
    run(capsys, video, "--top", 7, "--model", counter_file, "--out", tmp_path / "out")
    assert tops == [7] * 6


def test_the_label_is_the_count_of_a_picture_and_the_smoothed_count_of_a_video(
    capsys, tmp_path, counter_file, monkeypatch
):
    write_crowd(tmp_path / "in/a.jpg")
    write_video(tmp_path / "in/b.avi", frames=3, fps=1)
    counts, labels = iter([1234.4, 0.0, 100.0, 100.0]), []
    draw = sys.modules["tasks.crowd_counting.predict"].draw_overlay

    def watched(pixels, density, label, heat, warning):
        labels.append(label)
        return draw(pixels, density, label, heat, warning)

    monkeypatch.setattr("tasks.crowd_counting.predict.draw_overlay", watched)
    monkeypatch.setattr(
        Counter, "__call__", lambda self, pixels: Prediction(next(counts), np.zeros(pixels.shape[:2], np.float32))
    )
    run(capsys, tmp_path / "in", "--model", counter_file, "--out", tmp_path / "out")
    assert labels == ["1,234 people", "0 people", "63 people", "86 people"]


def test_videos_that_cannot_be_read_are_skipped_and_those_cut_off_are_counted_as_far_as_they_go(
    capsys, tmp_path, counter_file
):
    root, out = tmp_path / "in", tmp_path / "out"
    whole = write_video(root / "c.avi", frames=20)
    (root / "a.avi").write_text("no video")
    (root / "b.mp4").write_bytes(b"")
    (root / "d.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    code, _, err = run(capsys, root, "--model", counter_file, "--out", out)
    assert code == 1
    found = [counted(out)[str(root / name)] for name in ("a.avi", "b.mp4", "c.avi", "d.avi")]
    assert [result["problem"] for result in found[:3]] == ["cannot be read as a video"] * 2 + [""]
    assert f"{root / 'a.avi'}: cannot be read as a video; skipped" in err
    assert found[2]["frames"] == 20
    assert 0 < found[3]["frames"] < 20
    assert found[3]["frames"] == len(table(out / "d.avi.counts.csv"))


def test_videos_have_the_pixel_limit_of_images(capsys, tmp_path, counter_file, monkeypatch):
    """A video of 8,000 x 8,000 pixels may have 100 KB. The size may change on the way, or be other than was said."""
    read = []
    usual = predict.read_frames
    monkeypatch.setattr(predict, "read_frames", lambda capture: (read.append(capture), usual(capture))[1])
    monkeypatch.setattr(frames_of, "MAX_PIXELS", 48 * 64 - 1)
    video, out = write_video(tmp_path / "a.avi"), tmp_path / "out"
    code, _, err = run(capsys, video, "--model", counter_file, "--out", out)
    assert code == 1
    assert f"{video}: has frames of 64 x 48, 0.0 million pixels, more than the limit of 0.0 million; scale it" in err
    assert not read
    frames = [np.zeros((4, 4, 3), np.uint8), np.zeros((60, 60, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)]
    monkeypatch.setattr(predict, "read_frames", lambda capture: iter(frames))
    monkeypatch.setattr(frames_of, "MAX_PIXELS", 48 * 64)
    assert run(capsys, video, "--model", counter_file, "--out", out)[0] == 0
    result = counted(out)[str(video)]
    assert result["frames"] == 1
    assert result["problem"].startswith("has frames of 60 x 60, ")


@pytest.fixture
def opened(monkeypatch):
    """The files that OpenCV is given."""
    files, usual = [], cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: (files.append(source), usual(source))[1])
    return files


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp", "ppm", "jp2"])
def test_an_image_that_is_called_a_video_is_counted_as_an_image(capsys, tmp_path, counter_file, opened, suffix):
    write_crowd(tmp_path / f"in/a.{suffix}").rename(tmp_path / "in/a.mp4")
    assert run(capsys, tmp_path / "in", "--model", counter_file, "--out", tmp_path / "out")[0] == 0
    result = counted(tmp_path / "out")[str(tmp_path / "in/a.mp4")]
    assert (result["width"], result["height"], result["frames"], result["peak"]) == (64, 48, 1, None)
    assert not opened


def test_a_video_that_is_called_an_image_is_said_to_be_one(capsys, tmp_path, counter_file):
    for name, codec in (("a.avi", "MJPG"), ("b.mp4", "mp4v"), ("c.mkv", "MJPG")):
        path = write_video(tmp_path / "in" / name, codec=codec)
        path = path.rename(path.with_suffix(".jpg"))
        _, _, err = run(capsys, path, "--model", counter_file, "--out", tmp_path / "out")
        assert f"{path}: is a video; rename it, for example to {path.stem}.mp4; skipped" in err


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile secret.avi\n", "#EXTM3U\n#EXTINF:1,\nsecret.avi\n", "text " * 99, "v=0\r\n"]
)
def test_a_text_that_leads_ffmpeg_to_other_files_is_not_a_video(capsys, tmp_path, counter_file, opened, text):
    write_video(tmp_path / "secret.avi")
    for name in ("a.mp4", "a.mkv"):
        (tmp_path / name).write_text(text)
        _, _, err = run(capsys, tmp_path / name, "--model", counter_file, "--out", tmp_path / "out")
        assert f"{tmp_path / name}: cannot be read as a video; skipped" in err
    assert not opened


def test_a_video_whose_name_is_an_address_is_read_as_a_file(capsys, tmp_path, counter_file, monkeypatch):
    write_video(tmp_path / "secret.avi", frames=5)
    write_video(tmp_path / "a.avi", frames=2).rename(tmp_path / "concat:secret.avi")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "concat:secret.avi", "--model", counter_file, "--out", tmp_path / "out")[0] == 0
    assert counted(tmp_path / "out")["concat:secret.avi"]["frames"] == 2


def test_a_webcam_that_is_not_there_is_said_in_one_line(capfd, tmp_path, counter_file):
    number = next(str(n) for n in range(64) if not Path(f"/dev/video{n}").exists())
    code, _, err = run(capfd, number, "--model", counter_file, "--out", tmp_path / "out")
    assert code == 1
    assert err.strip().splitlines()[-1] == f"{number}: webcam {number} cannot be opened; skipped"
    assert "VIDEOIO" not in err
    assert counted(tmp_path / "out")[number]["problem"] == f"webcam {number} cannot be opened"


def test_a_folder_or_file_that_is_called_a_number_is_no_webcam(capsys, tmp_path, counter_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_crowd(tmp_path / "0/a.jpg")
    write_crowd(tmp_path / "1", format="PNG")
    assert run(capsys, "0", "1", "--model", counter_file)[0] == 0
    assert [result["problem"] for result in counted(tmp_path / "counted").values()] == ["", ""]


# ---------------------------------------------------------------- regions


def test_a_region_counts_the_density_inside_and_is_drawn(capsys, tmp_path, counter, counter_file):
    path, out = write_crowd(tmp_path / "a.png", 9, (96, 128)), tmp_path / "out"
    (tmp_path / "corners.json").write_text("[[10, 5], [90, 5], [90, 60], [10, 60]]")
    _, density = counter(path)
    expected = density[5:60, 10:90].sum(dtype=float)
    drawn = []
    for words in ("10,5,90,60", tmp_path / "corners.json"):
        code, printed, _ = run(capsys, path, "--region", words, "--model", counter_file, "--out", out)
        assert code == 0
        assert counted(out)[str(path)]["count"] == pytest.approx(expected)
        assert "the error in a region is unknown" in printed
        assert json.loads((out / "counts.json").read_text())["region"] == [[10, 5], [90, 5], [90, 60], [10, 60]]
        drawn.append((out / "a.png.overlay.jpg").read_bytes())
    assert drawn[0] == drawn[1]
    run(capsys, path, "--model", counter_file, "--out", out)
    assert drawn[0] != (out / "a.png.overlay.jpg").read_bytes()


@pytest.mark.parametrize("kind", ["image", "video"])
def test_heat_outside_of_the_region_is_not_drawn(tmp_path, counter, monkeypatch, kind):
    """A counter that sees people everywhere; the image is gray, so that any color is heat."""
    dense = np.full((480, 640), 30 / 100**2, np.float32)
    monkeypatch.setattr(Counter, "__call__", lambda self, pixels: Prediction(float(dense.sum()), dense))
    region = Region.read("320,0,640,480")
    predictor = Predictor(counter, tmp_path, heat=Heat(), region=region)
    gray = np.full((480, 640, 3), 120, np.uint8)
    if kind == "image":
        Image.fromarray(gray).save(tmp_path / "a.png")
        found = predictor.picture(tmp_path / "a.png", "a.png")
        drawn = np.asarray(Image.open(tmp_path / found.overlay))
    else:
        writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 4, (640, 480))
        writer.write(gray)
        writer.release()
        found = predictor.video(str(tmp_path / "a.avi"), "a.avi")
        ((drawn,), _) = read_video(tmp_path / found.overlay)
    assert found.people == round(dense[:, 320:].sum())
    colored = np.ptp(drawn[:480].astype(int), 2) > 40
    assert not colored[:, :300].any()
    assert colored[20:-20, 340:620].all()


def test_an_image_that_the_region_exceeds_is_named_and_not_counted(capsys, tmp_path, counter_file):
    write_crowd(tmp_path / "in/a.png", size=(48, 64))
    write_crowd(tmp_path / "in/b.png", size=(96, 128))
    write_video(tmp_path / "in/c.avi", size=(48, 64))
    out = tmp_path / "out"
    code, _, err = run(capsys, tmp_path / "in", "--region", "0,0,100,90", "--model", counter_file, "--out", out)
    assert code == 1
    problem = "the region 0,0,100,90 reaches to 100,90, outside of the image of 64 x 48 pixels"
    assert [result["problem"] for result in counted(out).values()] == [problem, "", problem]
    assert err.count(problem) == 4  # where it happened, and in the end


# ---------------------------------------------------------------- trust


@pytest.fixture(scope="module")
def knowing(counter_file, tmp_path_factory):
    """The counter as a file that knows drawn crowds, its error on them, and its data set."""
    counter = Counter.from_checkpoint(counter_file, device="cpu")
    rows = []
    for seed in range(LEAST_IMAGES):
        pooled = Pooled()
        image = torch.from_numpy(np.array(crowd(5 + seed, (96, 128), seed))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            counter.network.count_map(
                image,
                prepare=lambda part: counter.network.data_preprocessor({"inputs": part.float()})["inputs"],
                seen=pooled,
            )
        rows.append(pooled.features.numpy())
    found = {**statistics_of(np.stack(rows)), **errors_of([10.0, 50.0, 100.0] * 4, [12, 45, 90] * 4)}
    path = tmp_path_factory.mktemp("knowing") / "knowing.safetensors"
    network = load_network(str(counter_file))
    network.familiar.learn(found)
    metadata = {"network": json.dumps(SETTINGS), "name": "resnet20.shanghaitech_b"}
    save_weights(network.state_dict(), path, metadata)
    return path


def test_an_unfamiliar_image_is_marked_everywhere(capsys, tmp_path, knowing):
    like = write_crowd(tmp_path / "in/a.png", 9, (96, 128), 99)
    strange = tmp_path / "in/b.png"
    Image.new("RGB", (128, 96), (0, 0, 255)).save(strange)
    out = tmp_path / "out"
    code, printed, _ = run(capsys, tmp_path / "in", "--model", knowing, "--out", out)
    assert code == 0
    found = counted(out)
    one, other = found[str(like)], found[str(strange)]
    assert (one["familiar"], other["familiar"]) == ("yes", "no")
    assert one["strangeness"] <= 1 < other["strangeness"]
    assert one["error"] >= 1
    assert other["error"] is None
    lines = printed.splitlines()
    assert lines[0] == f"{like}: about {people(one['count'])}, +- {one['error']}"
    assert lines[1] == f"{strange}: about {people(other['count'])}; unlike its training images: do not rely on this"
    assert "+- covers 68% of 12 validation images of ShanghaiTech B (mean absolute error 5.7 [" in printed
    assert "unlike the training images, and not to be relied on: 1 of 2" in printed
    heights = []
    for name in ("a", "b"):
        with Image.open(out / f"{name}.png.overlay.jpg") as overlay:
            heights.append(overlay.height)
            amber = (np.abs(np.asarray(overlay).astype(int) - (255, 196, 0)).max(2) < 12).mean()
            assert (amber > 0.02) == (name == "b")
    assert heights[1] > heights[0]
    content = json.loads((out / "counts.json").read_text())
    assert content["trained_on"] == "ShanghaiTech B"
    assert content["mean_absolute_error"] == pytest.approx(17 / 3)
    assert content["validation_images"] == 12


def test_an_error_measured_on_too_few_images_is_not_given(capsys, tmp_path, knowing):
    network = load_network(str(knowing))
    network.familiar.learn(errors_of([10.0, 50.0], [12, 45]))
    few = tmp_path / "few.safetensors"
    save_weights(network.state_dict(), few, {"network": json.dumps(SETTINGS), "name": "x"})
    path, out = write_crowd(tmp_path / "a.png", 9, (96, 128), 99), tmp_path / "out"
    code, printed, _ = run(capsys, path, "--model", few, "--out", out)
    assert code == 0
    assert counted(out)[str(path)]["error"] is None
    assert table(out / "counts.csv")[0]["error"] == ""
    assert "+-" not in printed
    few_text = "the error of a count is unknown: 2 validation images are too few, at least 10 are needed, to measure it"
    assert few_text in printed
    content = json.loads((out / "counts.json").read_text())
    assert content["reliability"] == few_text
    assert content["validation_images"] == 2


def test_a_folder_goes_on_in_onnx_runtime_and_says_so(capsys, tmp_path, monkeypatch, counter_file):
    monkeypatch.setenv("EAN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(engine, "LOADING_S", 1e-9)
    monkeypatch.setattr(engine, "EXPORTING_S", 1e-9)
    for name in "abc":
        draw_crowd(5, (64, 96))[0].save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    words = [*(str(tmp_path / f"{name}.png") for name in "abc"), "--model", str(counter_file), "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main(["crowd", "predict", *words, "--device", "cpu", "--no-overlay"])
    assert ended.value.code == 0
    assert "3 of 3 counted by counter.safetensors (PyTorch and ONNX Runtime): " in capsys.readouterr().out
    assert json.loads((out / "counts.json").read_text())["passes"] == {"PyTorch": 1, "ONNX Runtime": 2}
    one, *others = (result["count"] for result in counted(out).values())
    assert others == pytest.approx([one, one], rel=1e-4)


def test_an_annotated_video_has_all_its_frames_also_where_only_some_are_unfamiliar(capsys, tmp_path, knowing):
    path, out = tmp_path / "a.avi", tmp_path / "out"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 4, (128, 96))
    for number in range(6):
        blue = np.full((96, 128, 3), (255, 0, 0), np.uint8)
        writer.write(np.asarray(crowd(9, (96, 128), 99))[:, :, ::-1] if number % 2 else blue)
    writer.release()
    assert run(capsys, path, "--model", knowing, "--out", out)[0] == 0
    frames, _ = read_video(out / "a.avi.overlay.mp4")
    assert len(frames) == 6
    amber = [(np.abs(frame.astype(int) - (255, 196, 0)).max(2) < 40).mean() > 0.02 for frame in frames]
    assert amber == [True, False] * 3


def test_the_frames_of_a_video_have_their_strangeness(capsys, tmp_path, knowing):
    video, out = write_video(tmp_path / "a.avi", frames=3, size=(96, 128)), tmp_path / "out"
    assert run(capsys, video, "--no-overlay", "--model", knowing, "--out", out)[0] == 0
    values = [float(row["strangeness"]) for row in table(out / "a.avi.counts.csv")]
    result = counted(out)[str(video)]
    assert result["strangeness"] == pytest.approx(sorted(values)[1], abs=1e-3)
    assert result["familiar"] == ("yes" if sorted(values)[1] <= 1 else "no")


# ---------------------------------------------------------------- Ctrl-C


def wait_for(condition, process):
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_ctrl_c_during_a_video_leaves_whole_files_and_ends_the_command(tmp_path, counter_file):
    root, out = tmp_path / "in", tmp_path / "out"
    write_crowd(root / "a.jpg")
    video = write_video(root / "b.avi", frames=3000, fps=25, size=(32, 32))
    write_crowd(root / "c.jpg")
    # a shell's background jobs, and what they start, ignore SIGINT; a user's terminal does not
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = start(root, "--model", counter_file, "--out", out, cwd=Path.cwd(), **listening)
    lines = out / "b.avi.counts.csv"
    wait_for(lambda: lines.is_file() and lines.read_text().count("\n") > 5, process)
    os.kill(process.pid, signal.SIGINT)
    printed, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "2 of 3 counted" in printed
    found = counted(out)
    assert list(found) == [str(root / "a.jpg"), str(video)]
    result = found[str(video)]
    assert result["problem"] == "stopped before its end"
    assert 5 <= result["frames"] < 3000
    rows = table(lines)
    assert [int(row["frame"]) for row in rows] == list(range(result["frames"]))
    assert all(re.fullmatch(r"\d+\.\d{3}", row["smoothed"]) for row in rows)
    assert len(read_video(out / result["overlay"])[0]) == result["frames"]
    assert files(out) == ["a.jpg.overlay.jpg", "b.avi.counts.csv", "b.avi.overlay.mp4", "counts.csv", "counts.json"]


@pytest.mark.parametrize("step", ["_even", "_video_writer"])
def test_ctrl_c_while_a_frame_is_written_leaves_as_many_lines_as_frames(
    capsys, tmp_path, counter_file, monkeypatch, interrupts, step
):
    usual, steps = getattr(frames_of, step), []

    def interrupted(*arguments):
        steps.append(step)
        if len(steps) == (3 if step == "_even" else 1):
            interrupts()
        return usual(*arguments)

    monkeypatch.setattr(frames_of, step, interrupted)
    video, out = write_video(tmp_path / "a.avi", frames=6), tmp_path / "out"
    code, printed, _ = run(capsys, video, "--model", counter_file, "--out", out)
    assert code == 130
    assert "1 of 1 counted" in printed
    result = counted(out)[str(video)]
    assert result["problem"] == "stopped before its end"
    assert result["frames"] == len(steps)
    assert len(table(out / "a.avi.counts.csv")) == len(read_video(out / result["overlay"])[0]) == len(steps)
    assert files(out) == ["a.avi.counts.csv", "a.avi.overlay.mp4", "counts.csv", "counts.json"]


def test_ctrl_c_between_the_two_lists_of_counts_leaves_them_the_same(
    capsys, tmp_path, counter_file, monkeypatch, interrupts
):
    write_crowd(tmp_path / "in/a.jpg")
    write_crowd(tmp_path / "in/b.jpg")
    usual = predict._say
    monkeypatch.setattr(predict, "_say", lambda one: (interrupts(), usual(one)))
    code, printed, _ = run(capsys, tmp_path / "in", "--model", counter_file, "--out", tmp_path / "out")
    assert code == 130
    assert "1 of 2 counted" in printed
    assert list(counted(tmp_path / "out")) == [str(tmp_path / "in/a.jpg")]


def test_ctrl_c_while_the_counts_get_their_names_gives_both(capsys, tmp_path, counter_file, monkeypatch, interrupts):
    write_crowd(tmp_path / "in/a.jpg")
    usual = predict._json
    monkeypatch.setattr(predict, "_json", lambda *words: (interrupts(), usual(*words))[1])
    code, _, _ = run(capsys, tmp_path / "in", "--model", counter_file, "--out", tmp_path / "out")
    assert code == 130
    assert len(counted(tmp_path / "out")) == 1


def test_a_video_is_counted_in_another_thread(tmp_path, counter):
    video, found = write_video(tmp_path / "a.avi", frames=3), []
    (tmp_path / "out").mkdir()
    predictor = predict.Predictor(counter, tmp_path / "out", heat=predict.Heat())
    thread = threading.Thread(target=lambda: found.append(predictor.video(str(video), "a.avi")))
    thread.start()
    thread.join()
    assert found[0].frames == len(table(tmp_path / "out/a.avi.counts.csv")) == 3


def interrupt_counter(monkeypatch, stop):
    """Make the counter raise KeyboardInterrupt after so many images."""
    usual, seen = Counter.__call__, []

    def counts(self, pixels):
        seen.append(pixels.shape)
        if len(seen) > stop:
            raise KeyboardInterrupt
        return usual(self, pixels)

    monkeypatch.setattr(Counter, "__call__", counts)


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupt_of_the_counter_leaves_as_many_lines_as_frames(capsys, tmp_path, counter_file, monkeypatch, stop):
    interrupt_counter(monkeypatch, stop)
    video, out = write_video(tmp_path / "a.avi"), tmp_path / "out"
    assert run(capsys, video, "--model", counter_file, "--out", out)[0] == 130
    result = counted(out)[str(video)]
    assert result["frames"] == stop
    assert len(table(out / "a.avi.counts.csv")) == len(read_video(out / result["overlay"])[0]) == stop


@pytest.mark.parametrize("stop", [0, 2])
def test_ctrl_c_between_pictures_keeps_what_was_counted(capsys, tmp_path, counter_file, monkeypatch, stop):
    for number in range(4):
        write_crowd(tmp_path / f"in/{number}.jpg")
    interrupt_counter(monkeypatch, stop)
    out = tmp_path / "out"
    code, printed, _ = run(capsys, tmp_path / "in", "--model", counter_file, "--out", out)
    assert code == 130
    assert f"{stop} of 4 counted" in printed
    assert len(counted(out)) == stop
    assert len(files(out)) == 2 + stop


# ---------------------------------------------------------------- counts over time

COUNTS = st.floats(0, 1e6)
STEPS = st.lists(st.floats(0, 10), min_size=1, max_size=30)


@given(COUNTS, STEPS)
def test_a_steady_count_stays_as_it_is(count, steps):
    smoothed, at = Smoothed(), 0.0
    for step in steps:
        at += step
        assert smoothed(count, at) == count


@given(COUNTS, COUNTS, STEPS, st.floats(0.1, 10))
def test_a_step_is_followed_by_how_long_ago_it_was_whatever_the_frames_between(before, after, steps, seconds):
    smoothed = Smoothed(seconds)
    smoothed(before, 0.0)
    at = 0.0
    for step in steps:
        at += step
        expected = after + (before - after) * np.exp(-at / seconds)
        assert smoothed(after, at) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(st.lists(st.tuples(COUNTS, st.floats(0, 10)), min_size=1))
def test_the_smoothed_count_is_between_the_lowest_and_the_highest(frames):
    smoothed, at, seen = Smoothed(), 0.0, []
    for count, step in frames:
        at += step
        seen.append(count)
        steady = smoothed(count, at)
        assert min(seen) * (1 - 1e-9) <= steady <= max(seen) * (1 + 1e-9) + 1e-9


def test_frames_at_the_same_time_or_before_change_nothing():
    smoothed = Smoothed()
    assert [smoothed(10, 5), smoothed(99, 5), smoothed(99, 4)] == [10, 10, 10]
