"""Files and servers of strangers: what would run code, or write elsewhere, is refused, and has done neither."""

import hashlib
import http.server
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config

from ean_core.commands.cli import report, watch
from ean_core.commands.configs import show_configs
from ean_core.common.config import load_config
from ean_core.inference.comparison import trained_variant
from ean_core.runs.folder import Run, trained_config
from ean_core.runs.training import run_test, run_training
from ean_core.weights.files import read_state_dict, save_weights
from tasks.crowd_counting.counter import Counter
from tasks.crowd_counting.dataset import CrowdDataset
from tasks.crowd_counting.prepared_file import read_prepared
from tasks.trained import load_network
from zoo.download import DownloadError, Patience, fetch
from zoo.files import locate
from zoo.index import Index, check_settings
from zoo.publish import publish

from .conftest import DIGITS

pytestmark = pytest.mark.fault("hostile checkpoints, indexes and servers")
SCHEME = "model.backbone.scheme=100-010-001"


class Touch:
    """An object whose pickle runs code when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def sentinel(tmp_path):
    """A file that is there once code of a stranger ran."""
    path = tmp_path / "it_ran"
    yield path
    assert not path.exists(), "code of the file was executed"


def pickles(path, sentinel):
    """Checkpoints that run code, in both formats of PyTorch, as state dict, and in what is beside it."""
    weights = {"conv1.weight": torch.zeros(1)}
    contents = {
        "whole": Touch(sentinel),
        "weight": {"state_dict": {**weights, "evil": Touch(sentinel)}},
        "meta": {"state_dict": weights, "meta": {"epoch": 1, "cfg": Touch(sentinel)}},
        "optimizer": {"state_dict": weights, "meta": {"epoch": 1}, "optimizer": Touch(sentinel)},
        "message_hub": {"state_dict": weights, "meta": {"epoch": 1}, "message_hub": {"runtime_info": Touch(sentinel)}},
    }
    for name, content in contents.items():
        for zipped in (True, False):
            file = path / f"{name}_{zipped}.pth"
            torch.save(content, file, _use_new_zipfile_serialization=zipped)
            yield file
    plain = path / "plain.pth"
    plain.write_bytes(pickle.dumps(Touch(sentinel)))
    yield plain


def test_the_pickles_do_run_code_where_they_are_let(tmp_path):
    torch.save(Touch(tmp_path / "ran"), tmp_path / "evil.pth")
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_pickles_that_run_code(tmp_path, sentinel, tally):
    config = load_config(DIGITS, [SCHEME])
    readers = {
        "weights": read_state_dict,
        "settings": trained_config,
        "network": load_network,
        "counter": Counter.from_checkpoint,
        "test": lambda file: run_test(config, file, tmp_path / "test"),
        "init_cfg": lambda file: load_config_network(config, file),
    }
    for file in pickles(tmp_path, sentinel):
        for reader in readers.values():
            with tally.case(), pytest.raises(ValueError, match=file.name):
                reader(file)


def load_config_network(config, file):
    from mmengine.registry import MODELS

    backbone = {**config.model.backbone, "init_cfg": {"type": "Pretrained", "checkpoint": str(file)}}
    MODELS.build(backbone).init_weights()


def test_resuming_and_loading_from_pickles_that_run_code(tmp_path, sentinel, tally):
    for k, file in enumerate(pickles(tmp_path, sentinel)):
        work_dir = tmp_path / f"run_{k}"
        work_dir.mkdir()
        shutil.copy(file, work_dir / "epoch_1.pth")
        with tally.case(), pytest.raises(ValueError, match=r"epoch_1\.pth"):
            run_training(load_config(DIGITS, [SCHEME]), work_dir, resume=True)
        with tally.case(), pytest.raises((ValueError, pickle.UnpicklingError)):
            run_training(load_config(DIGITS, [SCHEME, f"load_from={file}"]), tmp_path / f"from_{k}")


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "os.system", "command": "touch SENTINEL"},
        {"type": "subprocess.getoutput", "cmd": "touch SENTINEL"},
        {"type": "builtins.exec", "source": "open('SENTINEL', 'w')"},
        {"type": "ImageClassifier", "backbone": {"type": "os.system", "command": "touch SENTINEL"}},
        {
            "type": "ImageClassifier",
            "backbone": {"type": "EANResNetCIFAR", "norm_cfg": {"type": "os.system", "x": "SENTINEL"}},
        },
        {
            "type": "ImageClassifier",
            "backbone": {
                "type": "EANResNetCIFAR",
                "init_cfg": {"type": "Pretrained", "checkpoint": "file:///etc/passwd"},
            },
        },
        {
            "type": "CrowdCounter",
            "backbone": {"type": "EANResNetCIFAR"},
            "loss": {"type": "os.system", "command": "touch SENTINEL"},
        },
        {"_delete_": True, "type": "mmengine.fileio.put_text", "obj": "x", "filepath": "SENTINEL"},
    ],
    ids=lambda settings: settings.get("backbone", settings)["type"],
)
def test_settings_in_a_file_that_would_call_something(tmp_path, sentinel, tally, settings):
    settings = json.loads(json.dumps(settings).replace("SENTINEL", str(sentinel)))
    save_weights({"a": torch.zeros(1)}, tmp_path / "evil.safetensors", {"network": json.dumps(settings)})
    text = f"model = {settings!r}"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {"cfg": text}}, tmp_path / "evil.pth")
    for name in ("evil.safetensors", "evil.pth"):
        for reader in (load_network, Counter.from_checkpoint):
            with tally.case(), pytest.raises(ValueError, match=name):
                reader(tmp_path / name)


@pytest.mark.parametrize("text", ["__import__('os').system('touch SENTINEL')", "model = [open('SENTINEL', 'w')]"])
def test_settings_in_a_checkpoint_that_are_code(tmp_path, sentinel, tally, text):
    meta = {"cfg": text.replace("SENTINEL", str(sentinel))}
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": meta}, tmp_path / "evil.pth")
    with tally.case(), pytest.raises(ValueError, match=r"the settings in .*evil.pth cannot be read"):
        load_network(tmp_path / "evil.pth")


# ---------------------------------------------------------------- configs, annotations, runs


def tagged(sentinel):
    return f"a: 1\nmodel: !!python/object/apply:os.system ['touch {sentinel}']\n"


def test_the_yaml_does_run_code_where_it_is_let(tmp_path, mmengines_readers):
    (tmp_path / "evil.yml").write_text(tagged(tmp_path / "ran"))
    Config.fromfile(tmp_path / "evil.yml")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("evil.yml", {}),
        ("evil.yaml", {}),
        ("mine.py", {"mine.py": "_base_ = 'evil.yml'"}),
        ("mine.py", {"mine.py": "_base_ = ['./evil.yaml']"}),
        ("mine.yml", {"mine.yml": "_base_: evil.yml"}),
        ("mine.json", {"mine.json": '{"_base_": ["evil.yml"]}'}),
        ("mine.py", {"mine.py": "_base_ = 'middle.json'", "middle.json": '{"_base_": "evil.yaml"}'}),
    ],
    ids=["yml", "yaml", "py to yml", "py to yaml", "yml to yml", "json to yml", "py to json to yaml"],
)
def test_configs_in_yaml_that_would_call_something(tmp_path, sentinel, tally, name, files):
    for path, text in {"evil.yml": tagged(sentinel), "evil.yaml": tagged(sentinel), **files}.items():
        (tmp_path / path).write_text(text)
    readers = (load_config, show_configs, lambda path: show_configs(path, execute=True))
    for reader in readers:
        with (
            tally.case(),
            pytest.raises(ValueError, match=r"evil\.ya?ml, line 2, .*tag !!python/.*os\.system is refused"),
        ):
            reader(str(tmp_path / name))


@pytest.mark.parametrize("suffix", ["pkl", "pickle"])
def test_a_pickle_is_not_a_config(tmp_path, sentinel, tally, suffix):
    (tmp_path / f"evil.{suffix}").write_bytes(pickle.dumps(Touch(sentinel)))
    for name, text in (("mine.py", f"_base_ = 'evil.{suffix}'"), ("mine.yml", f"_base_: evil.{suffix}")):
        (tmp_path / name).write_text(text)
        for reader in (load_config, show_configs):
            with tally.case(), pytest.raises(ValueError, match=rf"mine|evil\.{suffix}"):
                reader(str(tmp_path / name))
    with tally.case(), pytest.raises(ValueError, match=rf"evil\.{suffix} is not a config"):
        load_config(str(tmp_path / f"evil.{suffix}"))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch SENTINEL')",
        "model = [open('SENTINEL', 'w')]",
        "_base_ = [open('SENTINEL', 'w').name]",
        "x = '''{{$NONE:''}}'+open('SENTINEL','w').name+'''",
        "with read_base():\n    from .other import *\n",
        "from other import *",
    ],
)
def test_printing_a_config_executes_nothing(tmp_path, sentinel, tally, text):
    code = text.replace("SENTINEL", str(sentinel))
    (tmp_path / "other.py").write_text(f"open('{sentinel}', 'w')\n")
    (tmp_path / "evil.py").write_text(code)
    (tmp_path / "mine.yml").write_text("_base_: evil.py\n")
    for name in ("evil.py", "mine.yml"):
        with tally.case():
            if "$NONE" in code:  # a plain string, unless variables of the environment are put in its place
                show_configs(str(tmp_path / name))
            else:
                with pytest.raises(ValueError, match=r"evil\.py is more than plain settings"):
                    show_configs(str(tmp_path / name))


@pytest.mark.parametrize("suffix", ["py", "yml"])
def test_printing_a_config_imports_nothing(tmp_path, sentinel, tally, monkeypatch, suffix):
    (tmp_path / "evil_module.py").write_text(f"open('{sentinel}', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / f"mine.{suffix}"
    text = {"py": "custom_imports = dict(imports=['evil_module'])", "yml": "custom_imports: {imports: [evil_module]}"}
    path.write_text(text[suffix])
    for execute in (False, True):
        with tally.case():
            show_configs(str(path), execute=execute)


def test_annotations_that_would_call_something(tmp_path, sentinel, tally):
    """A data set of mmengine's reads pickles by their suffix; every command prepares its config first."""
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps({"metainfo": {}, "data_list": [Touch(sentinel)]}))
    code = (
        "from mmengine.dataset import BaseDataset; from ean_core.commands.options import prepare; "
        f"prepare('{DIGITS}', None, None); BaseDataset(ann_file='infos.pkl')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with tally.case():
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert "infos.pkl would execute code from posix.system" in done.stderr


@pytest.mark.parametrize("runner", ["EANRunner", None])
def test_resuming_from_a_checkpoint_with_a_config_that_is_code(tmp_path, digits_run, sentinel, tally, runner):
    """mmengine's Runner.resume executes the text under meta.config."""
    content = torch.load(digits_run / "epoch_1.pth", weights_only=True)
    content["meta"]["config"] = f"open('{sentinel}', 'w')"
    torch.save(content, tmp_path / "epoch_1.pth")
    config = load_config(DIGITS, [SCHEME, "train_cfg.max_epochs=1"])
    if runner is None:
        config.pop("runner_type")
    with tally.case():
        run_training(config, tmp_path, resume=True)


def test_a_run_is_read_without_executing_its_configs(tmp_path, digits_run, sentinel, tally):
    folder = tmp_path / "run"
    shutil.copytree(digits_run, folder)
    for path in folder.rglob("*.py"):
        path.write_text(f"open('{sentinel}', 'w')\n")
    assert list(folder.rglob("*.py"))
    with tally.case():
        assert Run(folder).config == DIGITS
    with tally.case(), pytest.raises(ValueError, match="settings must be literals"):
        _ = Run(folder).settings
    with tally.case(), pytest.raises(ValueError, match="settings must be literals"):
        watch(folder, once=True)
    with tally.case():
        report([folder], out=tmp_path / "report")
    with tally.case():
        publish(folder / "epoch_1.pth", load_config(DIGITS, [SCHEME]), tmp_path / "zoo")


def test_timing_a_run_says_which_modules_its_settings_import(tmp_path, digits_run, tally, caplog, monkeypatch):
    (tmp_path / "theirs.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    content = torch.load(digits_run / "epoch_1.pth", weights_only=True)
    content["meta"]["cfg"] = content["meta"]["cfg"].replace("imports=[", "imports=['theirs', ")
    torch.save(content, tmp_path / "epoch_1.pth")
    with tally.case():
        trained_variant(tmp_path)
        assert f"importing theirs, which the settings of {tmp_path} name" in caplog.text
    caplog.clear()
    with tally.case():
        trained_variant(digits_run)
        assert caplog.text == ""


def test_timing_a_run_calls_nothing_that_is_not_registered(tmp_path, digits_run, tally, sentinel, monkeypatch):
    """mmengine's registries import and call what a type names, if it is a path in Python."""
    (tmp_path / "theirs.py").write_text(f"def call(**settings):\n    open('{sentinel}', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = torch.load(digits_run / "epoch_1.pth", weights_only=True)
    settings = content["meta"]["cfg"]
    for kind in ("EANResNetCIFAR", "ImageClassifier"):
        assert f"type='{kind}'" in settings
        content["meta"]["cfg"] = settings.replace(f"type='{kind}'", "type='theirs.call'")
        torch.save(content, tmp_path / "epoch_1.pth")
        with tally.case(), pytest.raises(ValueError, match=r"'theirs\.call', which is not registered"):
            trained_variant(tmp_path)


@pytest.mark.parametrize("key", ["model = ", "backbone="])
def test_the_settings_of_a_network_import_no_package(tmp_path, digits_run, tally, sentinel, monkeypatch, key):
    """mmengine's registries import the package that ``_scope_`` names, and its module ``registry``."""
    (tmp_path / "theirs.py").write_text(f"open('{sentinel}', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    content = torch.load(digits_run / "epoch_1.pth", weights_only=True)
    before = content["meta"]["cfg"]
    content["meta"]["cfg"] = before.replace(f"{key}dict(", f"{key}dict(_scope_='theirs', ")
    assert content["meta"]["cfg"] != before
    torch.save(content, tmp_path / "epoch_1.pth")
    for load in (load_network, lambda folder: trained_variant(Path(folder))):
        with tally.case(), pytest.raises(ValueError, match="_scope_"):
            load(str(tmp_path))


def test_a_type_that_is_no_text_is_refused(tally):
    with tally.case(), pytest.raises(ValueError, match="registered modules"):
        check_settings({"type": ["os.system"]}, "the network")


# ---------------------------------------------------------------- an index


@pytest.fixture
def index(root):
    """An index with one model; a function changes its metafile."""
    (metafile,) = (root / "metafiles").iterdir()

    def change(**fields):
        content = yaml.safe_load(metafile.read_text())
        content["Models"][0].update(fields)
        metafile.write_text(yaml.safe_dump(content))
        return root

    return change


@pytest.mark.parametrize(
    "fields",
    [
        {"Weights": "../../outside.safetensors"},
        {"Weights": "/etc/passwd"},
        {"Weights": "weights/../../../x-00000000.safetensors"},
        {"SHA256": "0" * 63 + "/"},
        {"SHA256": ["0" * 64]},
        {"Size": "many"},
        {"Network": "os.system"},
        {"Metadata": "none"},
        {"Config": ["passwd"]},
    ],
    ids=lambda fields: next(iter(fields.items()))[0],
)
def test_an_index_that_leads_elsewhere(index, tally, sentinel, fields):
    root = index(**json.loads(json.dumps(fields).replace("SENTINEL", str(sentinel))))
    with tally.case(), pytest.raises(ValueError, match=r"digits|zoo"):
        list(Index(root).entries.values())


@pytest.mark.parametrize(
    "fields",
    [
        {"Name": "../../ean_resnet20_se.digits"},
        {"Name": "ean_resnet20_se.digits/../../../x"},
        {"Network": {"type": "os.system", "command": "touch SENTINEL"}},
    ],
)
def test_an_entry_that_leads_elsewhere_is_left_out(index, tally, sentinel, fields):
    root = index(**json.loads(json.dumps(fields).replace("SENTINEL", str(sentinel))))
    with tally.case():
        assert not Index(root).entries


@pytest.mark.parametrize("metafile", ["../../secrets.yml", "/etc/passwd", "metafiles/../../../x.yml"])
def test_an_index_that_imports_from_outside(index, tally, metafile):
    root = index()
    (root / "model-index.yml").write_text(yaml.safe_dump({"Import": [metafile]}))
    with tally.case(), pytest.raises(ValueError, match="outside of its folder"):
        _ = Index(root).entries


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch SENTINEL']", "!!python/name:os.system"])
def test_yaml_that_would_call_something(index, tally, sentinel, tag):
    root = index()
    (root / "model-index.yml").write_text(f"Import: {tag.replace('SENTINEL', str(sentinel))}\n")
    with tally.case(), pytest.raises(ValueError, match=r"model-index\.yml is not YAML"):
        _ = Index(root).entries


@pytest.mark.parametrize("base", ["file:///etc", "ftp://somewhere", "data:,x", "/etc"])
def test_an_index_whose_address_is_a_folder_or_no_web(index, tally, base):
    root = index()
    head = yaml.safe_load((root / "model-index.yml").read_text())
    (root / "model-index.yml").write_text(yaml.safe_dump({**head, "Base Address": base}))
    shutil.rmtree(root / "weights")
    (entry,) = Index(root).entries.values()
    with tally.case(), pytest.raises(DownloadError, match="cannot download from"):
        locate(entry)


# ---------------------------------------------------------------- a server, and the cache


@pytest.fixture
def lead():
    """A server that leads to an address, and counts what is asked of it."""

    class Leads(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", self.server.target)
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Leads) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://127.0.0.1/", "SELF"]
)
def test_redirects_to_other_places(lead, tally, tmp_path, target):
    address = f"http://127.0.0.1:{lead.server_port}/a.bin"
    lead.target = address if target == "SELF" else target
    with tally.case(), pytest.raises(DownloadError):
        fetch(address, tmp_path / "a.bin", size=3, sha256="0" * 64, patience=Patience(tries=2, timeout=2, backoff=0.01))
    assert list(tmp_path.iterdir()) == []


def test_links_in_the_cache_do_not_lead_what_is_written_elsewhere(tally, tmp_path):
    outside, cache = tmp_path / "outside", tmp_path / "cache"
    cache.mkdir()
    content = b"published" * 1000
    (tmp_path / "served.bin").write_bytes(content)
    for name in ("a.bin.part", "a.bin"):
        outside.write_text("mine")
        (cache / "a.bin").unlink(missing_ok=True)
        (cache / name).symlink_to(outside)
        with tally.case():
            address = (tmp_path / "served.bin").as_uri()
            fetch(address, cache / "a.bin", size=len(content), sha256=hashlib.sha256(content).hexdigest())
            assert outside.read_text() == "mine"
            assert (cache / "a.bin").read_bytes() == content
            assert not (cache / "a.bin").is_symlink()


def test_a_link_in_the_cache_to_another_file_is_not_used(index, tally, tmp_path, monkeypatch):
    root = index()
    (entry,) = Index(root).entries.values()
    cache = tmp_path / "home/zoo"
    cache.mkdir(parents=True)
    shutil.move(entry.packaged_file, tmp_path / "real.safetensors")
    (tmp_path / "other.safetensors").write_bytes(b"x" * entry.size)
    (cache / entry.file).symlink_to(tmp_path / "other.safetensors")
    with tally.case(), pytest.raises(DownloadError):
        locate(entry)


# ---------------------------------------------------------------- prepared files, pictures


def test_prepared_files_that_lead_to_other_files(tally, tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(64, dtype=np.float32).tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["density"] = np.ones((4, 4), np.float32)

    def external(file):
        file["density"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "density")

    def soft(file):
        file["density"] = h5py.SoftLink("/elsewhere")

    def raw(file):
        file.create_dataset("density", (4, 4), np.float32, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])

    def virtual(file):
        layout = h5py.VirtualLayout((4, 4), np.float32)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "density", (4, 4))
        file.create_virtual_dataset("density", layout)

    for make in (external, soft, raw, virtual):
        with h5py.File(tmp_path / "evil.h5", "w") as file:
            file["points"] = np.zeros((0, 2))
            make(file)
        with tally.case(), pytest.raises(ValueError, match=r"evil\.h5 is damaged"):
            read_prepared(tmp_path / "evil.h5", (slice(None), slice(None)))


@pytest.mark.parametrize("name", ["../x.h5", "/etc/passwd", "a/../../x"])
@pytest.mark.parametrize("field", ["file", "image"])
def test_a_manifest_that_leads_elsewhere(tally, tmp_path, field, name):
    entry = {"file": "a.h5", "image": "a.jpg", "name": "a", "split": "train", "part": "own", field: name}
    (tmp_path / "manifest.json").write_text(json.dumps({"version": 1, "root": ".", "images": [entry]}))
    with tally.case(), pytest.raises(ValueError, match="names a file outside of its folders"):
        CrowdDataset("train", tmp_path)


def test_nothing_is_asked_of_the_network_by_any_of_this(tally, monkeypatch):
    """Addresses of other schemes in the place of a checkpoint."""

    def asked(*arguments, **options):
        raise AssertionError(f"the network was asked: {arguments}")

    monkeypatch.setenv("EAN_OFFLINE", "1")
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", asked)
    for address in (
        "http://127.0.0.1/a.pth",
        "https://x/a.pth",
        "s3://x/a.pth",
        "modelzoo://resnet50",
        "openmmlab://a",
    ):
        with tally.case(), pytest.raises(OSError, match="EAN_OFFLINE forbids"):
            read_state_dict(address)
