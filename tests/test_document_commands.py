"""Every command of every document runs as it stands there, in a folder of its own: ``make test-docs``.

What needs only length or size is shortened (:data:`SMALLER`), what cannot run here stands in :data:`ELSEWHERE` with its
reason and where it is tested instead.
"""

import csv
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .crowd_counting.drawn import save_crowd, write_part, write_pictures
from .documents import ALL, DOCUMENTS, ROOT, commands, is_complete, text_of
from .segmentation.drawn import write_sbd, write_voc

SECONDS = 300  # that a command may take
SERVERS = ("ean crowd serve", "tensorboard")

#: Beginnings of commands that are not run: why not, and where what they do is tested.
ELSEWHERE = {
    "make test": "runs all other tests",
    "make test-slow": "runs the slow tests",
    "make test-docs": "runs these tests",
    "make test-fork": "installs another environment; it is a test itself",
    "make audit": "asks PyPI for known vulnerabilities",
    "make lock": "needs a package index; tests/test_packaging.py checks the lock",
    "make lint": "is a part of `make test`",
    "pip install": "needs a package index; tests/test_packaging.py installs, tests/test_documents.py checks the extras",
    ".venv/bin/python -m pytest": "is a part of `make test`",
    "python -m zoo.page": "writes into the repository; tests/zoo/test_page.py",
    "ean zoo verify --metrics": "measures real data sets; tests/zoo/test_published.py",
    "ean zoo import torchvision://": "needs a network; tests/zoo/test_foreign.py",
    "python benchmarks/faults.py": "runs tests/faults for a quarter of an hour",
    "python benchmarks/gpu_inference.py": "needs a GPU; tests/test_benchmarks.py",
    "python benchmarks/gpu_training.py": "needs a GPU; tests/test_benchmarks.py",
    "pip download": "needs a package index",
    "pip wheel": "builds in the repository; tests/test_packaging.py builds one",
    "python benchmarks/newcomer.py": "clones and installs the repository; it is a measurement",
    "python benchmarks/campaign.py run": "trains for hours, into the repository; tests/test_campaign.py",
}

#: Lines at the end of files of `configs/` that make them small, and why. Lengths: see `shorten`.
SMALLER = {
    "_base_/models/resnet50_imagenet.py": (
        "a ResNet-50 takes minutes for a few pictures",
        "model['backbone']['base_channels'] = 16",
    ),
    "_base_/datasets/imagenet.py": (
        "drawn pictures are few and small",
        """
        image_size = 32
        for loader in (train_dataloader, test_dataloader):
            loader.update(batch_size=4, num_workers=0)
            loader['dataset']['size'] = 32
        del loader
        train_dataloader['persistent_workers'] = False
        """,
    ),
    "_base_/datasets/cifar100_search.py": (
        "three drawn images a class are for training",
        """
        train_dataloader['batch_size'] = 32
        train_dataloader['dataset']['val_per_class'] = 1
        val_dataloader['dataset']['val_per_class'] = 1
        """,
    ),
    "_base_/models/counter_resnet50.py": (
        "as the classifier",
        "model['backbone']['base_channels'] = 16",
    ),
    "_base_/datasets/crowd.py": (
        "drawn pictures are small",
        """
        image_size = (96, 128)
        train_dataloader['dataset']['crop'] = (64, 64)
        for loader in (train_dataloader, val_dataloader, test_dataloader):
            loader['num_workers'] = 0
            loader.pop('persistent_workers', None)
        del loader
        """,
    ),
    "_base_/models/segmentor_resnet50.py": (
        "as the classifier",
        """
        model['backbone']['base_channels'] = 16
        model['decode_head'].update(in_channels=512, channels=16)
        model['auxiliary_head'].update(in_channels=256, channels=16)
        model['data_preprocessor']['size'] = (48, 48)
        model['test_cfg']['shorter_side'] = 64
        """,
    ),
    "_base_/models/segmentor_resnet20.py": (
        "drawn pictures are small",
        """
        model['data_preprocessor']['size'] = (48, 48)
        model['test_cfg'] = dict(shorter_side=64)
        """,
    ),
    "_base_/datasets/voc2012.py": (
        "drawn pictures are small",
        """
        image_size = (48, 48)
        train_pipeline[2]['scale'] = (256, 64)
        train_pipeline[3]['crop_size'] = (48, 48)
        train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
        test_dataloader['num_workers'] = 0
        """,
    ),
    "_base_/datasets/voc2012_light.py": (
        "drawn pictures are small",
        """
        image_size = (48, 48)
        train_pipeline[2]['scale'] = (256, 64)
        train_pipeline[3]['crop_size'] = (48, 48)
        train_dataloader.update(batch_size=4, num_workers=0)
        test_dataloader['num_workers'] = 0
        """,
    ),
}

_TRAIN = "ean train resnet20_se_cifar100 --work-dir work_dirs/{0} --cfg-options model.backbone.scheme={1}"
_TEST = "ean test resnet20_se_cifar100 work_dirs/{0} --cfg-options model.backbone.scheme={1}"
#: What a document takes for granted, and the commands that make it.
BEFORE = {
    "CONTRIBUTING.md": {"work_dirs/vanilla": (_TRAIN.format("vanilla", "none"),)},
    "zoo/README.md": {
        "work_dirs/mine": (_TRAIN.format("mine", "full"), _TEST.format("mine", "full")),
        "timing.json": (f"cp {ROOT}/benchmarks/results/campaign/time_resnet20_se.cifar100/timing.json .",),
    },
}


# ---------------------------------------------------------------- what documents name


def _street(path):
    save_crowd(path, 20, (120, 160))


def _pictures(folder):
    for number in (4, 9):
        save_crowd(folder / f"{number}.jpg", number, (96, 128))


def _video(path):
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (128, 96))
    assert writer.isOpened(), "OpenCV writes no MP4 here"
    for number in range(5):
        picture = path.with_name("frame.png")
        save_crowd(picture, number + 1, (96, 128))
        writer.write(cv2.imread(str(picture)))
        picture.unlink()
    writer.release()


def _points(path):
    """Points of twelve pictures, of which the last two are for the test."""
    listed = write_pictures(path.parent / "images", numbers=range(2, 14))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "x", "y", "split"])
        for name, heads in listed.items():
            split = "test" if name in ("10.png", "11.png") else ""
            writer.writerows([name, x, y, split] for x, y in heads)


def _data(name):
    return lambda path: path.symlink_to(path.parent / "data" / name)


#: Files and folders that documents name as those of their readers, and what makes them.
FILES = {
    "street.jpg": _street,
    "holidays/": _pictures,
    "more_images/": _pictures,
    "market.mp4": _video,
    "points.csv": _points,
    "ShanghaiTech": _data("ShanghaiTech"),
    "VOCdevkit": _data("VOCdevkit"),
    "benchmark_RELEASE": _data("benchmark_RELEASE"),
}


# ---------------------------------------------------------------- drawn data sets


def write_cifar100(root, train=3, test=1):
    """Torchvision's files, of noise in 100 colours."""
    import zoo

    draw = np.random.default_rng(0)
    colours = draw.integers(0, 200, (100, 3, 1))
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, number in (("train", train), ("test", test)):
        labels = [*range(100)] * number
        pixels = colours[labels] + draw.integers(0, 56, (len(labels), 3, 1024))
        content = {"data": pixels.reshape(len(labels), 3072).astype(np.uint8), "fine_labels": labels}
        (folder / name).write_bytes(pickle.dumps(content))
    names = zoo.get_weights("resnet20.cifar100").meta["categories"]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list(names)}))


def write_imagenet(root, train=6, val=2):
    draw = np.random.default_rng(0)
    for part, number in (("train", train), ("val", val)):
        for label in range(2):
            folder = root / "imagenet" / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            for n in range(number):
                pixels = draw.integers(100 * label, 100 * label + 100, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{n}.JPEG")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """EAN_DATA with drawn data sets in the forms that real ones are downloaded in."""
    folder = tmp_path_factory.mktemp("data")
    write_cifar100(folder)
    write_imagenet(folder)
    for part in "AB":
        write_part(folder / "ShanghaiTech", part, (10, 3))
    devkit = write_voc(folder, (10, 3))
    write_sbd(folder, devkit, [f"2008_{n:06d}" for n in range(4)])
    return folder


# ---------------------------------------------------------------- the sandbox

_GUARD = '''
"""Refuses to write into the repository."""
import os, sys
ROOT = {root!r} + os.sep

def refuse(event, arguments):
    if event == "open":
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(arguments[2], int) else 0
        paths = arguments[:1] if writes else ()
    else:
        paths = arguments[:2] if event in ("os.rename", "os.mkdir", "os.remove", "os.symlink") else ()
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)) and os.path.realpath(os.fsdecode(path)).startswith(ROOT):
            raise PermissionError(f"a command of a document must not write into the repository: {{path}}")

sys.addaudithook(refuse)
'''


def shorten(config, document):
    """The last lines of a packaged config that has two epochs, if the document names no checkpoint of its last one."""
    from mmengine.config import Config

    from ean_core.common.config import packaged_configs

    length = (Config.fromfile(packaged_configs()[config]).get("train_cfg") or {}).get("max_epochs")
    named = map(int, re.findall(r"\bepoch_(\d+)\.pth", text_of(document)))
    return "" if length is None or length in named else "\ntrain_cfg = dict(max_epochs=2, val_interval=1)\n"


def write_configs(folder, document):
    """The packaged configs, made small."""
    shutil.copytree(ROOT / "configs", folder)
    for name, (_, lines) in SMALLER.items():
        path = folder / name
        path.write_text(f"{path.read_text()}\n{textwrap.dedent(lines)}")
    for path in folder.rglob("*.py"):
        if "_base_" not in path.parts:
            path.write_text(path.read_text() + shorten(path.stem, document))


class Sandbox:
    """A folder like a fresh clone after `make install`, with the files that a document takes for granted."""

    def __init__(self, folder, data, document):
        self.folder = folder
        write_configs(folder / "small", document)
        shutil.copytree(data, folder / "data", symlinks=True)
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, words in (("python", ""), ("ean", str(ROOT / "tests/document_ean.py"))):
            path = programs / name
            path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            path.chmod(0o755)
        for name in ("pyproject.toml", "constraints.txt", "requirements.lock", "Makefile"):
            shutil.copy(ROOT / name, folder)
        (folder / ".venv" / ".installed").touch()  # newer than what it is made of
        (folder / "zoo").mkdir()
        for name in ("benchmarks", "tasks", "zoo/records"):
            (folder / name).symlink_to(ROOT / name)
        index = folder / "index"
        index.mkdir()
        for name in ("model-index.yml", "metafiles", "records", "weights", "cards", "figures", "strips"):
            source = ROOT / "zoo" / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, index / name)
        (folder / "guard").mkdir()
        (folder / "guard" / "sitecustomize.py").write_text(_GUARD.format(root=str(ROOT)))
        nowhere = "http://127.0.0.1:9"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("EAN_", "PYTEST"))},
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(folder / "guard"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "EAN_DOCUMENTS_CONFIGS": str(folder / "small"),
            "EAN_DATA": str(folder / "data"),
            "EAN_HOME": str(folder / "home" / "ean"),
            "EAN_ZOO_INDEX": str(index),
            "EAN_OFFLINE": "1",
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
        }
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "MAKEFLAGS", "MAKELEVEL"):
            self.environment.pop(name, None)
        text = " ".join(command.raw for command in commands(document))
        for name, make in FILES.items():
            if name in text:
                make(folder / name)

    def start(self, line):
        return subprocess.Popen(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def run(self, line):
        """Exit status and output of a command."""
        process = self.start(line)
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "none, it took too long", process.communicate()[0]
        return process.returncode, output

    def serve(self, line):
        """As :meth:`run`, of a server: it is asked for its page, and stopped."""
        process = self.start(line)
        output, status = "", "none"
        for printed in process.stdout:
            output += printed
            address = re.search(r"http://[\w.]+:\d+", printed)
            if address:
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with opener.open(address[0].replace("localhost", "127.0.0.1"), timeout=60) as page:
                    status = 0 if page.status == 200 and b"<html" in page.read().lower() else f"page {page.status}"
                break
        os.killpg(process.pid, signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
        return status, output + rest


# ---------------------------------------------------------------- the tests


def elsewhere(command):
    """The entry of :data:`ELSEWHERE` that a command falls under."""
    return next(
        (start for start in ELSEWHERE if re.match(rf"{re.escape(start)}(?![\w-])|{re.escape(start)}$", command.raw)),
        next((start for start in ELSEWHERE if start.endswith("//") and command.raw.startswith(start)), None),
    )


@pytest.mark.docs
@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_run(document, data, tmp_path):
    chosen = [command for command in commands(document) if is_complete(command) and not elsewhere(command)]
    sandbox = Sandbox(tmp_path / "here", data, document)
    lines = [line for made in BEFORE.get(document, {}).values() for line in made]
    failures = []
    for line in [*lines, *(command.raw for command in chosen)]:
        start = time.monotonic()
        status, output = (sandbox.serve if line.startswith(SERVERS) else sandbox.run)(line)
        print(f"{time.monotonic() - start:7.1f} s  {'    ' if status == 0 else 'FAIL'}  {line}", flush=True)
        if status != 0:
            failures.append(f"$ {line}\n{output[-3000:]}\nexit status: {status}")
    shutil.rmtree(sandbox.folder)
    assert not failures, f"{document}: {len(failures)} of {len(chosen)} commands failed\n\n" + "\n\n".join(failures)


def test_the_tables_name_commands_of_documents_only():
    found = {elsewhere(command) for command in ALL}
    assert [start for start in ELSEWHERE if start not in found] == []
    texts = {document: " ".join(command.raw for command in commands(document)) for document in DOCUMENTS}
    assert [name for name in FILES if not any(name in text for text in texts.values())] == []
    assert [name for document, made in BEFORE.items() for name in made if name not in texts[document]] == []
    assert [name for name in SMALLER if not (ROOT / "configs" / name).is_file()] == []
