"""Damaged files of every kind that is read: a typed error with the file's name, in bounded time and memory."""

import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fuzz_jobs import READERS, fuzz, judge
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from ean_core.common.config import load_config
from ean_core.common.record import write_record
from ean_core.data.images import read_image
from ean_core.scheme import ConnectionScheme
from ean_core.weights.files import read_state_dict, save_weights
from tasks.crowd_counting.annotations import read_mat
from tasks.crowd_counting.cli import prepare
from tasks.crowd_counting.formats import Pictures, read_annotations
from tasks.crowd_counting.prepared_file import read_prepared
from zoo.index import Index
from zoo.publish import publish

from ..crowd_counting.annotated import WRITERS
from ..crowd_counting.drawn import write_part, write_truth
from ..segmentation.drawn import draw, write_sbd, write_voc
from .conftest import DIGITS

pytestmark = pytest.mark.fault("damaged files")
PICTURES = ("jpg", "png", "gif", "tif", "bmp", "webp", "ppm", "jp2")
SCHEME = "model.backbone.scheme=100-010-001"


@pytest.fixture(scope="session")
def good(tmp_path_factory, digits_run, digits_supernet):
    """Good files of each kind, by reader and suffix."""
    folder = tmp_path_factory.mktemp("good")
    found = {}

    def put(reader, name, content):
        path = folder / reader / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        found.setdefault((reader, path.suffix), []).append(path)
        return path

    for k, text in enumerate(("010-0010-110011-001", "100101", "full", "none", "1")):
        put("scheme", f"{k}.txt", text)
    put("settings", "a.txt", load_config(DIGITS).pretty_text)
    put("config", "a.py", load_config(DIGITS).pretty_text)
    put("config", "a.json", json.dumps(load_config(DIGITS).to_dict()))
    put("config", "a.yml", "model:\n  type: A\n  sizes: [1, 2]\ntrain_cfg: {max_epochs: 3}\n")
    write_truth(folder / "truth.mat", [[1.5, 2.0], [30, 40]])
    savemat(folder / "compressed.mat", {"image_info": np.zeros((3, 3))}, do_compression=True)
    for name in ("truth.mat", "compressed.mat"):
        put("mat", name, (folder / name).read_bytes())
    devkit = write_voc(folder / "voc", (1, 1))
    put("mask", "a.png", next((devkit / "SegmentationClass").iterdir()).read_bytes())
    sbd = write_sbd(folder, devkit, ["2008_000001"])
    put("mask", "b.mat", next(sbd.iterdir()).read_bytes())
    write_part(folder / "crowd", images=(2, 1))
    prepare(folder / "crowd", out=folder / "prepared", workers=1)
    for k, path in enumerate(sorted((folder / "prepared").rglob("*.h5"))[:2]):
        put("hdf5", f"{k}.h5", path.read_bytes())
    put("manifest", "a.json", (folder / "prepared/manifest.json").read_bytes())
    picture = draw(1)[0]
    for suffix in PICTURES:
        try:
            picture.save(folder / f"picture.{suffix}")
        except OSError:  # a build of Pillow without this kind
            continue
        put("picture", f"a.{suffix}", (folder / f"picture.{suffix}").read_bytes())
    put("points", "a.csv", "image,x,y,split\na.jpg,1,2,train\nb.jpg,,,test\na.jpg,3.5,4,train\n")
    put("points", "a.json", json.dumps({"a.jpg": [[1, 2], [3.5, 4]], "b.jpg": {"points": [], "split": "test"}}))
    for number, (_, write) in enumerate(WRITERS.values()):
        write(folder / f"annotations {number}")
        for path in sorted((folder / f"annotations {number}").rglob("[ap]*.*")):
            put("points", f"{number}{path.name}", path.read_bytes())
    publish(digits_run / "epoch_1.pth", load_config(DIGITS, [SCHEME]), folder / "zoo")
    put("index", "a.yml", next((folder / "zoo/metafiles").iterdir()).read_bytes())
    put("index", "b.yml", (folder / "zoo/model-index.yml").read_bytes())
    line = {"step": 0, "scheme": "10-01", "accuracy": 60.0, "standard_error": 0.5, "cost": 2.0, "reward": 1.0}
    lines = [{"weights": "x", "stages": [2, 2]}, line, {**line, "scheme": "11-11", "info": {"a": 1.0}}]
    put("ledger", "a.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    put("weights", "a.pth", (digits_run / "epoch_1.pth").read_bytes())
    save_weights(
        {"a": torch.zeros(3, 4), "b": torch.ones(2)}, folder / "a.safetensors", {"network": '{"type": "CrowdCounter"}'}
    )
    put("weights", "a.safetensors", (folder / "a.safetensors").read_bytes())
    put("weights", "b.safetensors", next((folder / "zoo/weights").iterdir()).read_bytes())
    put("record", "record.json", (digits_run / "record.json").read_bytes())
    put("record", "test.json", (digits_run / "test.json").read_bytes())
    times = {"stages": [2], "stem": 0.1, "bodies": [1, 2], "connections": [0.1, 0.2], "joins": [0.1, 0.1], "head": 0.1}
    put("block times", "a.json", write_record(folder / "times.json", kind="block times", **times).read_bytes())
    return found


KINDS = [
    *(("scheme", ".txt"), ("settings", ".txt"), ("config", ".py"), ("config", ".json"), ("config", ".yml")),
    *(("mat", ".mat"), ("mask", ".png"), ("mask", ".mat"), ("hdf5", ".h5"), ("points", ".csv"), ("points", ".json")),
    *(("points", suffix) for suffix in (".xml", ".txt", ".mat")),
    *(("picture", f".{suffix}") for suffix in PICTURES),
    *(("index", ".yml"), ("ledger", ".jsonl"), ("weights", ".pth"), ("weights", ".safetensors"), ("record", ".json")),
    *(("manifest", ".json"), ("block times", ".json")),
]


def test_all_readers_are_tried():
    assert {reader for reader, _ in KINDS} == READERS.keys()


@pytest.mark.parametrize("number", [25, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("reader", "suffix"), KINDS, ids=lambda part: part)
def test_damaged_files(good, forks, tally, tmp_path, reader, suffix, number):
    if (reader, suffix) not in good:
        pytest.skip(f"Pillow cannot write {suffix}")
    process = forks.start(fuzz, reader, good[reader, suffix], number, number, tmp_path, tmp_path / "out.json")
    process.join(20 * number)
    last = (tmp_path / "last").read_bytes()[:2000] if (tmp_path / "last").exists() else b""
    assert process.exitcode == 0, f"the process died: {process.exitcode}, by {last!r}: {forks.said()[-1500:]}"
    found = json.loads((tmp_path / "out.json").read_text())
    with tally.case(number):
        assert found["faults"] == [], "\n".join(sorted({each["fault"] for each in found["faults"]}))
        assert found["raised"] > 0


def element(kind, values):
    """An element of a MATLAB file of version 5."""
    return struct.pack("<II", kind, len(values)) + values + bytes(-len(values) % 8)


def array(of, dimensions, *content):
    """An array of such a file, its sizes as given."""
    parts = [element(6, struct.pack("<II", of, 0)), element(5, struct.pack(f"<{len(dimensions)}i", *dimensions))]
    return element(14, b"".join([*parts, element(1, b"a"), *content]))


HEAD = b"MATLAB 5.0 MAT-file".ljust(124, b" ") + b"\x00\x01IM"
#: What fuzzers found, in the smallest form: the reader, the suffix, and the content.
FOUND = [
    ("config", ".json", b'{"train_cfg": {"max_epochs": 3}, "param_scheduler": {"type": "OneCycleLR"}}'),
    ("config", ".json", b'{"train_cfg": {"max_epochs": 3}, "param_scheduler": [{}], "optim_wrapper": {}}'),
    ("config", ".py", b'custom_imports = dict(imports=["\x7fan_core"], allow_failed_imports=False)'),
    ("config", ".pth", b"PK"),
    ("settings", ".txt", b"a = " + b"[" * 3000),
    ("settings", ".txt", b"a = {([],): 1}"),
    ("settings", ".txt", b"a = {[1, {}]: {(): {}}, ...: set()}"),
    ("mat", ".mat", HEAD + array(6, (0x65757274, 1))),  # SciPy crashes
    ("mat", ".mat", HEAD + array(6, (2, -2), struct.pack("<II", 9, 0))),
    ("mat", ".mat", HEAD + array(1, (2**31 - 1, 2**31 - 1))),
    ("mat", ".mat", HEAD + array(2, (1, 1), struct.pack("<III", 5, 4, 0))),
    ("mat", ".mat", HEAD + struct.pack("<II", 14, 2**31)),
    ("mat", ".mat", HEAD + array(6, (1, 1), element(10, bytes(8)))),  # a kind that there is not
    ("mat", ".mat", HEAD + array(2, (0, 0), element(5, struct.pack("<i", 1)), element(1, b"a" * 10**6))),
    ("mat", ".mat", HEAD + array(1, (500_000, 1), struct.pack("<II", 14, 0) * 500_000)),
    ("index", ".yml", b"Models: [{}]"),
    ("index", ".yml", b"Models: 3"),
    ("index", ".yml", b"Models:\nCollections: [1]"),
    ("index", ".yml", b"Import: [{a: b}]"),
    ("index", ".yml", b"Import: [3]"),
    ("block times", ".json", b'{"kind": "block times", "environment": {}}'),
    ("block times", ".json", b'{"kind": "block times", "environment": {}, "stages": 3}'),
    ("record", ".json", b'{"kind": "\x80"}'),
    ("record", ".json", b"[" * 200_000),
    ("weights", ".pth", b"PK\x03\x04" + bytes(60)),
    ("weights", ".safetensors", struct.pack("<Q", 2**62) + b"{}"),
]


@pytest.mark.parametrize(("reader", "suffix", "content"), FOUND, ids=[f"{k}: {one[0]}" for k, one in enumerate(FOUND)])
def test_what_fuzzers_found(tally, tmp_path, reader, suffix, content):
    read, named = READERS[reader]
    (tmp_path / f"damaged{suffix}").write_bytes(content)
    with tally.case():
        refused, fault = judge(read, tmp_path / f"damaged{suffix}", named)
        assert fault is None
        assert refused or reader == "index"  # an empty one is one, too


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet="01-", max_size=60),
        st.lists(st.integers(-2, 2**70), max_size=5),
        st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=4),
        st.lists(st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=3)), max_size=4),
    ),
    st.one_of(st.none(), st.lists(st.integers(-1, 6), max_size=4)),
)
def test_any_value_in_the_place_of_a_scheme(value, stages):
    try:
        scheme = ConnectionScheme.parse(value, stages)
    except ValueError:
        return
    assert ConnectionScheme.parse(str(scheme), scheme.stages) == scheme


@pytest.mark.parametrize("number", [300])
def test_any_value_in_the_place_of_a_scheme_is_counted(tally, number):
    with tally.case(number):
        test_any_value_in_the_place_of_a_scheme()


# ---------------------------------------------------------------- small files that become large


def test_pictures_of_a_size_that_is_only_said(tally, tmp_path):
    for suffix in ("png", "bmp", "gif", "tif"):
        Image.new("1" if suffix != "gif" else "P", (20_000, 30_000)).save(tmp_path / f"bomb.{suffix}")
        with tally.case(), pytest.raises(ValueError, match=rf"bomb.{suffix} .*20000 x 30000 are 600.0 million pixels"):
            read_image(tmp_path / f"bomb.{suffix}")


def test_a_checkpoint_that_is_compressed(tally, tmp_path):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "good.pth")
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as good,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for info in good.infolist():
            bomb.writestr(info.filename, good.read(info.filename))
    assert (tmp_path / "bomb.pth").stat().st_size < 20_000
    with (
        tally.case(),
        pytest.raises(ValueError, match=r"bomb.pth cannot be read as plain weights: .*is a compressed archive"),
    ):
        read_state_dict(tmp_path / "bomb.pth")


def test_prepared_files_of_a_size_that_is_only_said(tally, tmp_path):
    for name in ("points", "density"):
        with h5py.File(tmp_path / "bomb.h5", "w") as file:
            for each in ("points", "density"):
                shape = (10**10, 2) if each == name else (2, 2)
                file.create_dataset(each, shape, np.float32, chunks=(2, 2), compression="gzip")
        with tally.case(), pytest.raises(ValueError, match=rf"bomb.h5 is damaged: {name} has 20,000,000,000 values"):
            read_prepared(tmp_path / "bomb.h5", (slice(0, 2), slice(0, 2)))


def test_annotations_that_become_large(tally, tmp_path):
    head = b"MATLAB 5.0 MAT-file".ljust(124, b" ") + b"\x00\x01IM"
    part = zlib.compress(bytes(600_000_000), 9)
    (tmp_path / "bomb.mat").write_bytes(head + (15).to_bytes(4, "little") + len(part).to_bytes(4, "little") + part)
    with (
        tally.case(),
        pytest.raises(ValueError, match=r"bomb.mat cannot be read as a .mat file: a part of .* bytes decompresses"),
    ):
        read_mat(tmp_path / "bomb.mat")


def test_an_index_that_says_the_same_a_million_times(tally, tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "model-index.yml").write_text("\n".join([*lines, "Import: *i"]))
    with tally.case(), pytest.raises(ValueError, match=r"model-index.yml has aliases"):
        _ = Index(tmp_path).entries


def test_an_index_that_is_nested_too_deeply(tally, tmp_path):
    """PyYAML's parser in C would end the process."""
    (tmp_path / "model-index.yml").write_text("Import: " + "[" * 100_000 + "]" * 100_000)
    with tally.case(), pytest.raises(ValueError, match=r"nested more than"):
        _ = Index(tmp_path).entries


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_points_that_are_nested_or_of_no_end(tally, tmp_path, suffix):
    path = tmp_path / f"points.{suffix}"
    for text in ("[" * 200_000, '{"a.jpg": ' * 100_000, "image,x,y\n" + "a" * 300_000 + ",1,2", '"' * 100_001, ""):
        path.write_text(text)
        with tally.case(), pytest.raises(ValueError, match=rf"points.{suffix}"):
            read_annotations(path, Pictures(tmp_path))


@pytest.mark.slow
@pytest.mark.fault("inputs that a coverage-guided fuzzer makes")
@pytest.mark.parametrize("reader", ["scheme", "settings", "csv", "json", "ledger", "matlab", "model name", "scrub"])
def test_inputs_that_reach_new_lines_of_a_reader(good, tally, tmp_path, reader):
    pytest.importorskip("atheris", reason="fuzzing that is guided by coverage needs atheris, of the extra `fuzz`")
    (tmp_path / "corpus").mkdir()
    kinds = {"csv": "points", "json": "points", "matlab": "mat"}
    for (kind, _), paths in good.items():
        if kind == kinds.get(reader, reader):
            for path in paths:
                (tmp_path / "corpus" / path.name).write_bytes(path.read_bytes()[128 if reader == "matlab" else 0 :])
    code = Path(__file__).with_name("fuzz_guided.py")
    environment = {**os.environ, "PYTHONPATH": str(code.parents[2])}
    command = [sys.executable, str(code), reader, "20"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    ran = re.search(r"Done (\d+) runs", done.stderr)
    with tally.case(int(ran[1]) if ran else 1):
        assert done.returncode == 0, done.stderr[-3000:]
