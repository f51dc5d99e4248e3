"""Small files of strangers that claim or become much: refused within bounds of memory and time, by name."""

import json
import os
import pickle
import re
import resource
import signal
import zipfile
import zlib
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

import zoo
from ean_core import EANResNetCIFAR
from ean_core.common.config import load_config
from ean_core.common.record import read_record
from ean_core.inference.comparison import trained_variant
from ean_core.runs.folder import Run
from ean_core.runs.settings import read_settings
from ean_core.search.ledger import read_lines
from ean_core.watch.state import look
from ean_core.weights.addresses import read_metadata
from ean_core.weights.files import read_state_dict, save_weights
from ean_core.weights.loading import check_fit
from tasks.crowd_counting.formats import Pictures, read_annotations
from tasks.crowd_counting.prepare import read_manifest
from tasks.crowd_counting.prepared_file import read_prepared
from tasks.trained import load_network
from zoo.index import Index, published
from zoo.publish import publish

from .conftest import DIGITS

pytestmark = pytest.mark.fault("hostile checkpoints, indexes and servers")
SCHEME = "model.backbone.scheme=100-010-001"
#: Seconds and bytes that a refusal may take.
SECONDS, MEMORY = 30, 120 * 2**20


def refusal(function):
    """The message of the ValueError that a function raises in a process with little memory and time."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.close(reading)
            with Path("/proc/self/statm").open() as file:
                have = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, have + MEMORY))
            signal.alarm(SECONDS)
            try:
                text = f"nothing was refused: {function()!r}"[:2000]
            except ValueError as error:
                text = str(error) if not isinstance(error, UnicodeError) else f"bare {error!r}"
            except BaseException as error:  # a traceback would show what the test expects
                text = f"bare {error!r}"
            text = text.replace("MemoryError", "it took more than the memory of this process")
            os.write(writing, b"=" + text.encode()[:5000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(process, 0)
    assert said, f"it took more than {SECONDS} s, or did not survive"
    return said[1:]


# ---------------------------------------------------------------- checkpoints


def storages(number):
    """The state dict of so many tensors of 2 million numbers, as a pickle of PyTorch, and its first file."""
    return {f"a{k}": torch.zeros(2_000_000) + k for k in range(number)}


def rewritten(path, change):
    """An archive with another directory than its entries have."""
    with zipfile.ZipFile(path, "a") as archive:
        change(archive)
        archive._didModify = True


def overlap(archive):
    """All tensors lie where the first one does."""
    data = [info for info in archive.filelist if "/data/" in info.filename]
    for info in data[1:]:
        info.header_offset = data[0].header_offset


def exceed(archive):
    (info,) = [info for info in archive.filelist if info.filename.endswith("/data/0")]
    info.file_size = info.compress_size = 10**9


@pytest.mark.parametrize("change", [overlap, exceed])
def test_entries_of_an_archive_that_overlap_or_exceed_it(tmp_path, tally, change):
    path = tmp_path / "evil.pth"
    torch.save(storages(3), path)
    rewritten(path, change)
    for reader in (lambda: read_state_dict(path), lambda: load_network(str(path))):
        with tally.case():
            assert re.search(r"evil\.pth is a damaged archive: its entry .* overlaps", refusal(reader))


def test_archives_of_pytorch_itself_are_taken(tmp_path, tally):
    for name in ("a", "ä" * 40):
        torch.save({"x.weight": torch.arange(5.0), "leer": torch.zeros(0)}, tmp_path / f"{name}.pth")
        with tally.case():
            assert read_state_dict(tmp_path / f"{name}.pth")["x.weight"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(64, 3, 7, 10**8), (10**9, 64)])
def test_tensors_that_repeat_the_bytes_of_their_file(tmp_path, tally, shape):
    path = tmp_path / "evil.pth"
    torch.save({"conv1.weight": torch.zeros(1).expand(shape)}, path)
    with tally.case():
        assert re.search(
            r"evil\.pth has .* its tensors would take .*: they repeat", refusal(lambda: read_state_dict(path))
        )


def digits_network(path, **changes):
    """The weights of a classifier, and metadata that describe another one."""
    model = load_config(DIGITS, [SCHEME]).model.to_dict()
    from mmengine.registry import MODELS

    state = MODELS.build(dict(model)).state_dict()
    backbone = {**model["backbone"], **changes.pop("backbone", {})}
    settings = {**model, "backbone": backbone, **changes}
    if path.suffix == ".pth":
        torch.save({"state_dict": state, "meta": {"cfg": f"model = {settings!r}"}}, path)
    else:
        save_weights(state, path, {"network": json.dumps(settings)})
    return path


@pytest.mark.parametrize("name", ["evil.safetensors", "evil.pth"])
@pytest.mark.parametrize("change", [{"num_classes": 3_000_000}, {"backbone": {"base_channels": 20_000}}])
def test_settings_of_a_network_much_larger_than_its_file(tmp_path, tally, name, change):
    with tally.case():
        load_network(str(digits_network(tmp_path / f"good_{name}"))).state_dict()
        path = digits_network(tmp_path / name, **change)
        assert re.search(rf"tensors of .*{name} differ in shape", refusal(lambda: load_network(str(path))))


@pytest.mark.parametrize("change", [{"num_classes": 3_000_000}, {"backbone": {"base_channels": 20_000}}])
def test_timing_a_run_whose_network_is_much_larger_than_its_file(tmp_path, tally, change):
    with tally.case():
        digits_network(tmp_path / "epoch_1.pth", **change)
        assert re.search(r"tensors of .*epoch_1\.pth differ in shape", refusal(lambda: trained_variant(tmp_path)))


@pytest.mark.parametrize("kind", ["os.system", "antigravity", "mmengine.os.system", ["os.system"]])
def test_timing_a_run_whose_settings_call_something(tmp_path, tally, kind):
    call = {"type": kind, "command": f"touch {tmp_path / 'ran'}"}
    model = {"type": "ImageClassifier", "backbone": {"type": "EANResNetCIFAR", "conv_cfg": call}}
    for settings in (call, {**model, "data_preprocessor": call}, model):
        content = {"state_dict": {"a": torch.zeros(1)}, "meta": {"cfg": f"model = {settings!r}"}}
        torch.save(content, tmp_path / "epoch_1.pth")
        with (
            tally.case(),
            pytest.raises(ValueError, match=f"have the type {re.escape(repr(kind))}, which is not registered"),
        ):
            trained_variant(tmp_path)
        assert not (tmp_path / "ran").exists()


def test_a_network_of_a_million_layers_is_not_built(tmp_path, tally):
    save_weights({"0.weight": torch.zeros(1, 1)}, tmp_path / "a.safetensors", {})
    many = lambda: torch.nn.Sequential(*(torch.nn.Linear(1, 1, bias=False) for _ in range(10**7)))  # noqa: E731
    with tally.case():
        assert "too many for the 1 tensors of" in refusal(lambda: check_fit(many, tmp_path / "a.safetensors"))
        check_fit(lambda: torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False)), tmp_path / "a.safetensors")


def test_headers_of_safetensors_that_claim_too_much(tmp_path, tally):
    path = tmp_path / "evil.safetensors"
    empty = ",".join(f'"{k}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for k in range(200_000))
    contents = (
        (2**62).to_bytes(8, "little") + b"{}",
        (100).to_bytes(8, "little") + b"{}",
        (len(empty) + 2).to_bytes(8, "little") + f"{{{empty}}}".encode(),
        b"",
    )
    for content in contents:
        path.write_bytes(content)
        for reader in (read_state_dict, read_metadata, lambda path: load_network(str(path))):
            with tally.case():
                assert re.match(
                    r".*evil\.safetensors (is not a complete|cannot be read)",
                    refusal(lambda: reader(path)),  # noqa: B023
                )


@pytest.mark.parametrize("kind", [["ImageClassifier"], {}, 3, None])
def test_a_type_that_is_not_a_name(tmp_path, tally, kind):
    for backbone in ({}, {"type": kind}):
        path = tmp_path / "evil.safetensors"
        settings = (
            {"type": kind, "backbone": backbone} if not backbone else {"type": "ImageClassifier", "backbone": backbone}
        )
        save_weights({"a": torch.zeros(1)}, path, {"network": json.dumps(settings)})
        with tally.case(), pytest.raises(ValueError, match=r"evil\.safetensors: a network may only use registered"):
            load_network(str(path))


def test_settings_nested_too_deeply(tmp_path, tally):
    deep = '{"type":"ImageClassifier","a":' + '{"a":' * 900 + "1" + "}" * 901
    save_weights({"a": torch.zeros(1)}, tmp_path / "evil.safetensors", {"network": deep})
    with tally.case(), pytest.raises(ValueError, match=r"evil\.safetensors: its settings are nested more than"):
        load_network(str(tmp_path / "evil.safetensors"))
    for text in ("a = " + "-" * 2000 + "1", "a = f(" + "-" * 2000 + "1)", "-" * 2000 + "1", "a = " + "[]," * 2**19):
        torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {"cfg": text}}, tmp_path / "evil.pth")
        with tally.case():
            message = refusal(lambda: load_network(str(tmp_path / "evil.pth")))
            assert re.match(r"the settings in .*evil\.pth cannot be read: settings", message)
        with tally.case():
            assert refusal(lambda: read_settings(text)).startswith("settings ")  # noqa: B023


# ---------------------------------------------------------------- density maps, configs, records


def one_block(file):
    file.create_dataset("density", (16_000, 16_000), np.float32, chunks=(16_000, 16_000), compression="gzip")
    file["density"].id.write_direct_chunk((0, 0), zlib.compress(bytes(1000)))


def long_stream(file):
    """A block of the right size, of which a stream of 800 MB is stored."""
    file.create_dataset("density", (256, 256), np.float32, chunks=(256, 256), compression="gzip")
    stream = zlib.compressobj(9)
    zeros = bytes(8_000_000)
    file["density"].id.write_direct_chunk((0, 0), b"".join(stream.compress(zeros) for _ in range(100)) + stream.flush())


def many_heads(file):
    del file["points"]
    file.create_dataset("points", (400_000_000, 2), np.float64, chunks=(1000, 2), compression="gzip")


def compressed_heads(file):
    del file["points"]
    file.create_dataset("points", (900_000, 2), np.float64, chunks=(900_000, 2), compression="gzip")


@pytest.mark.parametrize("make", [one_block, long_stream, many_heads, compressed_heads])
def test_prepared_files_that_expand(tmp_path, tally, make):
    path = tmp_path / "evil.h5"
    with h5py.File(path, "w") as file:
        file["points"] = np.zeros((0, 2))
        make(file)
        if "density" not in file:
            file["density"] = np.zeros((4, 4), np.float32)
    assert path.stat().st_size < 2_000_000
    with tally.case():
        message = refusal(lambda: read_prepared(path, (slice(0, 4), slice(0, 4))))
        assert re.search(r"evil\.h5 is damaged: (points|density) (has|are)", message)


def laughs(form):
    first = "a: &a " + ("{k: 1}" if form == "<<: [{}]" else "[x, x, x, x, x, x, x, x, x]")
    names = "abcdefghijkl"
    nexts = [
        f"{b}: &{b} " + ("{<<: [%s]}" if form == "<<: [{}]" else "[%s]") % ", ".join([f"*{a}"] * 9)
        for a, b in pairwise(names)
    ]
    return "\n".join([first, *nexts])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("evil.yml", laughs("[{}]")),
        ("evil.yaml", laughs("<<: [{}]")),
        ("evil.yml", "a: &a [*a]"),
        ("evil.yml", "a: " + "[" * 5000),
        ("evil.yml", "a: [" + "[]," * 2**20 + "]"),
        ("evil.json", '{"a": [' + "[]," * 2**20 + "[]]}"),
        ("evil.json", '{"a": ' + "9" * 5000 + "}"),
        ("evil.json", '{"a": ' + "[" * 100_000),
    ],
    ids=["aliases", "merges", "itself", "deep", "long", "json long", "json digits", "json deep"],
)
def test_configs_that_expand(tmp_path, tally, name, text):
    (tmp_path / name).write_text(text)
    (tmp_path / "mine.yml").write_text(f"_base_: {name}\n")
    for path in (tmp_path / name, tmp_path / "mine.yml"):
        with tally.case():
            message = refusal(lambda: load_config(str(path)))  # noqa: B023
            assert re.match(rf".*{name}.* cannot be read as a config", message)
            assert "memory of this process" not in message


def test_aliases_that_do_not_expand_are_taken(tmp_path, tally):
    (tmp_path / "mine.yml").write_text("a: &a {k: 1}\nb: {<<: *a, c: [*a, *a]}\n")
    with tally.case():
        assert load_config(str(tmp_path / "mine.yml")).b == {"k": 1, "c": [{"k": 1}, {"k": 1}]}


@pytest.mark.parametrize("content", ['{"a": ' + "9" * 5000 + "}", "[" * 100_000, "\ud800", "3"])
def test_records_that_json_does_not_refuse_by_name(tmp_path, tally, content):
    content = content.encode(errors="surrogatepass")
    readers = {
        "record.json": read_record,
        "progress.json": lambda path: Run(path.parent).progress,
        "manifest.json": lambda path: read_manifest(path.parent),
        "points.json": lambda path: read_annotations(path, Pictures(path.parent)),
        "ledger.jsonl": lambda path: read_lines(path),
    }
    for name, reader in readers.items():
        (tmp_path / name).write_bytes(content + b"\n")
        with tally.case():
            assert re.search(name, refusal(lambda: reader(tmp_path / name)))  # noqa: B023


def test_a_record_without_an_end_is_refused(tmp_path, tally):
    with (tmp_path / "record.json").open("wb") as file:
        file.truncate(2**36)
    with tally.case():
        assert re.search(r"record\.json .*has more than", refusal(lambda: read_record(tmp_path / "record.json")))


@pytest.mark.parametrize("points", ['{"a.jpg": [[1' + "0" * 400 + ", 1]]}"])
def test_heads_beyond_all_numbers(tmp_path, tally, points):
    (tmp_path / "points.json").write_text(points)
    with tally.case(), pytest.raises(ValueError, match=r"points\.json, 'a\.jpg': points must be pairs"):
        read_annotations(tmp_path / "points.json", Pictures(tmp_path))


@pytest.mark.parametrize("change", [{"finished": 3}, {"finished": "x"}, {"finished": None}])
def test_watching_a_run_with_a_damaged_record(tmp_path, tally, change):
    record = {"kind": "training", "environment": {}, "settings": {}, **change}
    (tmp_path / "record.json").write_text(json.dumps(record))
    with tally.case(), pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        look(tmp_path)


def test_a_checkpoint_of_no_epoch_is_none(tmp_path, tally):
    (tmp_path / "epoch_x.pth").write_bytes(pickle.dumps(3))
    with tally.case(), pytest.raises(FileNotFoundError, match="contains no run"):
        look(tmp_path)


# ---------------------------------------------------------------- an index


def changed(path, edit):
    content = yaml.safe_load(path.read_text())
    edit(content)
    path.write_text(yaml.safe_dump(content))


def add(content, **fields):
    content["Models"].append({**deepcopy(content["Models"][0]), **fields})


@pytest.fixture
def said(monkeypatch):
    """Messages of the index, each of which is logged once in a process."""
    messages = []
    zoo.index._say_once.cache_clear()
    monkeypatch.setattr("mmengine.logging.print_log", lambda text, *arguments: messages.append(text))
    return messages


@pytest.mark.parametrize(
    "fields",
    [
        {"Name": "vit16_se.digits"},
        {"Name": "resnet20.depth_maps"},
        {"Name": "resnet20.digits", "Network": {"type": "DepthEstimator"}},
    ],
    ids=["architecture", "data", "network"],
)
def test_an_entry_of_an_unknown_kind_disables_nothing_else(root, tally, said, fields):
    packaged = {str(name) for name in Index(zoo.index.PACKAGED).entries}
    (metafile,) = (root / "metafiles").iterdir()
    changed(metafile, lambda content: add(content, **fields))
    with tally.case():
        for _ in range(2):
            assert packaged | {"ean_resnet20_se.digits"} == {str(name) for name in published()}
        assert list(map(str, Index(root).entries)) == ["ean_resnet20_se.digits"]
        (message,) = said
        assert f"{metafile}: {fields['Name']!r} is left out: " in message


def test_publishing_keeps_entries_of_unknown_kinds(root, tally, digits_run):
    (metafile,) = (root / "metafiles").iterdir()
    changed(metafile, lambda content: add(content, Name="vit16_se.digits"))
    with tally.case():
        publish(digits_run / "epoch_1.pth", load_config(DIGITS, [SCHEME]), root)
        names = [fields["Name"] for fields in yaml.safe_load(metafile.read_text())["Models"]]
        assert names == ["ean_resnet20_se.digits", "vit16_se.digits"]


@pytest.mark.parametrize("place", ["head", "metafile"])
def test_an_index_of_a_later_version_disables_itself_only(root, tally, said, place):
    path = root / "model-index.yml" if place == "head" else next((root / "metafiles").iterdir())
    changed(path, lambda content: content.update({"Format Version": 2}))
    with tally.case():
        assert published().keys() == Index(zoo.index.PACKAGED).entries.keys()
        assert published()
        (message,) = said
        assert re.search(rf"{path.name} has Format Version 2, .* reads up to 1; upgrade .* are left out", message)
        with pytest.raises(ValueError, match="has Format Version 2"):
            _ = Index(root).entries


@pytest.mark.parametrize("version", [0, -1, "2", [1], True, 1.0])
def test_a_version_that_is_not_a_number(root, tally, version):
    changed(root / "model-index.yml", lambda content: content.update({"Format Version": version}))
    with tally.case(), pytest.raises(ValueError, match=r"model-index\.yml: Format Version must be an integer above 0"):
        _ = Index(root).entries


@pytest.mark.parametrize("text", ["Import: 2001-99-99", "Import: " + "9" * 5000, "Import: [" + "a," * 2**22 + "]"])
def test_an_index_that_yaml_does_not_refuse_by_name(root, tally, text):
    (root / "model-index.yml").write_text(text)
    with tally.case():
        assert re.match(r".*model-index\.yml (is not YAML|has .* bytes)", refusal(lambda: Index(root).entries))


def test_an_index_whose_network_is_much_larger_than_its_file(root, tally):
    (metafile,) = (root / "metafiles").iterdir()
    changed(metafile, lambda content: content["Models"][0]["Network"].update(num_classes=3_000_000))
    for options in ({}, {"features_only": False}):
        with tally.case():
            said = refusal(lambda: zoo.get_model("ean_resnet20_se.digits", pretrained=True, **options))  # noqa: B023
            assert re.search(r"tensors of .*\.safetensors differ in shape", said)


def test_checking_first_draws_no_random_numbers(root, tally):
    with tally.case():
        torch.manual_seed(3)
        zoo.get_model("ean_resnet20_se.digits", pretrained=True)
        after = torch.rand(3)
        torch.manual_seed(3)
        from ean_core.networks import build_network
        from zoo.index import find_entry

        build_network(find_entry("ean_resnet20_se.digits").network)
        assert torch.equal(after, torch.rand(3))


def test_names_of_first_convolutions_are_compared_whole(tally):
    from ean_core.weights.names import translate

    own = EANResNetCIFAR(scheme="full", in_channels=1).state_dict()
    wide = {"conv1.weight": torch.zeros(1).expand(16, 3, 3, 10**12)}
    with tally.case():
        assert translate(wide, own)[0]["conv1.weight"].shape == (16, 3, 3, 10**12)
