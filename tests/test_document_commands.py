"""Every command in every document runs as it stands: `make test-docs`.

Each document has a folder of its own with drawn pictures in the place of data sets. A program called ``ean`` stands
before the real one, has drawn images in the place of CIFAR-100's, and adds the options of ``SHORTER``.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from .crowd_counting.drawn import save_crowd, write_part
from .documents import DOCUMENTS, ROOT, commands, parts
from .segmentation.drawn import write_sbd, write_voc

#: Commands that do not run there, by a pattern, and where else they are tested.
NOT_RUN = {
    r"make demo": "installs, then `ean quickstart`: tests/test_quickstart.py; benchmarks/newcomer.py times it",
    r"make test.*": "is what runs this",
    r"pip install .*": "tests/test_packaging.py installs the package and its extras",
    r"ean zoo import torchvision://.*": "needs a network; tests/zoo/test_foreign.py imports from a server of its own",
    r"ean zoo verify --metrics": "measures real test images; tests/zoo/test_published.py does",
    r"python benchmarks/campaign\.py (run|keep|report)": "writes into the repository; tests/test_campaign.py runs it",
    r"python benchmarks/newcomer\.py": "installs a clone of its own",
}
#: Servers, by a pattern, and what they say when they are there; group 1 is the address.
SERVERS = {r"ean crowd serve": r"counts at (http://\S+) "}
#: What would take long, by a pattern, and the options that shorten it.
SHORTER = {
    r"train .*resnet50_\w+_imagenet": ["--cfg-options", "train_cfg.max_epochs=3", "train_dataloader.batch_size=4"],
    r"train .*resnet50_\w+_voc2012aug": [
        *("--cfg-options", "train_cfg.max_epochs=1", "train_dataloader.batch_size=2", "crop_size=(64,64)"),
        "model.data_preprocessor.size=(64,64)",
    ],
    r"train (?!.*digits)(?!.*resnet50)": ["--cfg-options", "train_cfg.max_epochs=3"],
    r"search (?!.*(compare|correlate|digits))": ["--cfg-options", "search.finalists.images=200"],
    r"search compare": ["--strategies", "random,ean,ga"],
    r"time (?!.*--rounds)": ["--rounds", "2"],
    r"crowd evaluate|seg evaluate": ["--rounds", "2"],
}
#: What a document takes for granted.
BEFORE = {
    "zoo/README.md": (
        "ean train resnet20_se_cifar100 --work-dir work_dirs/mine --cfg-options model.backbone.scheme=full",
        "ean test resnet20_se_cifar100 work_dirs/mine --cfg-options model.backbone.scheme=full",
    ),
    "CONTRIBUTING.md": (
        "ean train resnet20_se_cifar100 --amp --work-dir work_dirs/vanilla --cfg-options model.backbone.scheme=none",
    ),
}

WRAPPER = """
#!{python}
import re, sys
from types import SimpleNamespace
import numpy as np
from ean_core.data import resident

SHORTER = {shorter!r}

def drawn(train):
    import zoo
    names = zoo.get_weights("resnet20.cifar100").meta["categories"]
    labels = np.tile(np.arange(100), 10 if train else 2)
    pixels = np.random.default_rng(int(train)).integers(256, size=(len(labels), 32, 32, 3), dtype=np.uint8)
    pixels[..., 0] = labels[:, None, None] * 2
    return SimpleNamespace(data=pixels, targets=labels.tolist(), classes=names)

resident._torchvision_cifar100 = drawn
resident.CIFAR100.__init__.__defaults__ = (2,)  # images a class that validate

from tasks.cli import main

words = sys.argv[1:]
for pattern, options in SHORTER.items():
    if re.match(pattern, " ".join(words)):
        words += options
        break
main(words)
"""


class Sandbox:
    """A folder in which the commands of a document find what they name."""

    def __init__(self, folder):
        self.folder = folder
        data = folder / "data"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EAN_")}
        self.environment = {
            **environment,
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{environment['PATH']}",
            "EAN_DATA": str(data),
            "EAN_HOME": str(folder / "home"),
            "EAN_OFFLINE": "1",
            "EAN_ZOO_INDEX": str(folder / "index"),
        }
        self._programs()
        self._pictures()
        write_part(data / "ShanghaiTech")
        write_part(folder / "ShanghaiTech")
        for root in (data, folder):
            devkit = write_voc(root)
            names = (devkit / "ImageSets/Segmentation/train.txt").read_text().split()
            write_sbd(root, devkit, names[:4])
        draw = np.random.default_rng(0)
        for split, number in (("train", 4), ("val", 2)):
            for label in ("n0", "n1"):
                for k in range(number):
                    path = data / "imagenet" / split / label / f"{k}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(draw.integers(256, size=(64, 64, 3), dtype=np.uint8)).save(path)
        kept = shutil.ignore_patterns("*.py", "__pycache__")
        shutil.copytree(ROOT / "zoo", folder / "index", ignore=kept)
        results = ROOT / "benchmarks/results"
        shutil.copytree(results / "quickstart_digits", folder / "quickstart/digits")
        shutil.copy(results / "campaign/time_resnet20_se.cifar100/timing.json", folder)
        for name in ("benchmarks", "tasks"):
            (folder / name).symlink_to(ROOT / name)

    def _programs(self):
        for place in (self.folder / "bin", self.folder / ".venv/bin"):
            place.mkdir(parents=True)
            wrapper = place / "ean"
            wrapper.write_text(textwrap.dedent(WRAPPER).lstrip().format(python=sys.executable, shorter=SHORTER))
            wrapper.chmod(0o755)

    def _pictures(self):
        folder = self.folder
        for path in ("street.jpg", "holidays/beach.jpg", "more_pictures/square.jpg"):
            save_crowd(folder / path)
        writer = cv2.VideoWriter(str(folder / "market.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (320, 240))
        for _ in range(5):
            writer.write(cv2.imread(str(folder / "street.jpg")))
        writer.release()
        lines = ["file,x,y"]
        for n in range(12):
            save_crowd(folder / f"pictures/{n}.png", people=n)
            lines += [f"{n}.png,{10 + 20 * k},{30 + 10 * k}" for k in range(n)]
        (folder / "points.csv").write_text("\n".join(lines) + "\n")
        shutil.copy(folder / "points.csv", folder / "pictures")

    def run(self, line):
        """Run a line as it stands.

        Raises:
            AssertionError: if it fails, with what it printed.
        """
        script = ["bash", "-eo", "pipefail", "-c", line]
        done = subprocess.run(script, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"$ {line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def serve(self, line, pattern):
        """Start a server, ask it for its page, and stop it."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            address = next((found[1] for text in process.stdout if (found := re.search(pattern, text))), None)
            assert address, f"$ {line}\nended without its address"
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(address, timeout=60) as answer:
                assert answer.status == 200
        finally:
            process.terminate()
            process.wait(30)


def one_of(patterns, command):
    return next((pattern for pattern in patterns if re.match(rf"{pattern}(\s|$)", command)), None)


@pytest.mark.docs
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if commands(name)])
def test_the_commands_of_a_document_run_as_they_stand(document, tmp_path):
    sandbox = Sandbox(tmp_path)
    for line in (*BEFORE.get(document, ()), *commands(document)):
        own = parts(line)
        if server := one_of(SERVERS, own[0]):
            sandbox.serve(own[0], SERVERS[server])
        elif not one_of(NOT_RUN, own[0]):
            print(f"$ {line}", flush=True)
            sandbox.run(line)


def test_each_exception_is_one_of_a_command_that_there_is():
    given = [part for name in DOCUMENTS for line in (*BEFORE.get(name, ()), *commands(name)) for part in parts(line)]
    for pattern in (*NOT_RUN, *SERVERS):
        assert any(one_of([pattern], command) for command in given), f"no document has {pattern}"
    for pattern in SHORTER:
        assert any(re.match(pattern, command.removeprefix("ean ")) for command in given), f"no document has {pattern}"
