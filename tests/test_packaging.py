"""Contents of the wheel, and its use away from the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from shutil import which

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command, cwd):
    # nothing of the checkout or of this environment may leak in
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EAN_"))}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", ROOT, *build, cwd=folder)
    return next(folder.glob("ean_zoo-*.whl"))


def test_the_wheel_adds_three_packages_and_no_configs_or_tests_of_its_own(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"ean_core", "zoo", "tasks"}
    files = [path for path in (ROOT / "configs").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    configs = {path.relative_to(ROOT / "configs").as_posix() for path in files}
    assert {name.removeprefix("ean_core/_configs/") for name in names if "_configs/" in name} == configs


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of an environment with this one's libraries, but not its packages: they come from the wheel."""
    home = tmp_path_factory.mktemp("installed") / "environment"
    venv.create(home, with_pip=False)
    site = next((home / "lib").glob("python*/site-packages"))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    zipfile.ZipFile(wheel).extractall(site)
    return home / "bin" / "python"


def test_an_installed_wheel_trains_by_name_from_another_folder(installed, tmp_path):
    code = "import ean_core, tasks.cli; print(ean_core.__file__, flush=True); tasks.cli.main()"
    out = run(
        *(installed, "-c", code, "train", "supernet_resnet20_sge_digits", "--work-dir", "run"),
        *("--cfg-options", "train_cfg.max_epochs=1"),
        cwd=tmp_path,
    )
    assert Path(out.splitlines()[0]).is_relative_to(installed.parents[1])
    assert (tmp_path / "run" / "epoch_1.pth").is_file()


def test_an_installed_wheel_classifies_with_its_models_at_the_accuracy_on_their_cards(installed, tmp_path):
    """In a network name space without any interface where that is allowed, else with the network forbidden by name."""
    code = """
import zoo, torch
from ean_core.data import Digits
names = zoo.list_models("*.digits", pretrained=True)
images = Digits("test")
batch = torch.stack([images[i]["inputs"] for i in range(len(images))])
for name in names:
    model, weights = zoo.get_model(name, pretrained=True).eval(), zoo.get_weights(name)
    with torch.no_grad():
        right = (model(weights.transforms()(batch)).argmax(1) == images.labels).double().mean()
    assert abs(100 * right - weights.meta["metrics"]["Top 1 Accuracy"]) < 0.01, name
    print(name, zoo.__file__, weights.path)
"""
    unshare = ["unshare", "--map-root-user", "--net"]
    isolates = which("unshare") and not subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode
    command = [*(unshare if isolates else []), "env", "EAN_OFFLINE=1", f"EAN_HOME={tmp_path / 'home'}", installed]
    lines = run(*command, "-c", code, cwd=tmp_path).splitlines()
    found = [line.split() for line in lines if line.split()[0].endswith(".digits")]
    assert {name for name, _, _ in found} >= {"resnet20.digits", "full_resnet20_se.digits", "ean_resnet20_se.digits"}
    assert all(Path(path).is_relative_to(installed.parents[1]) for _, *paths in found for path in paths)
    assert not (tmp_path / "home").exists()
    listed = run(*command, "-m", "tasks.cli", "zoo", "list", cwd=tmp_path)
    assert all(name in listed for name, _, _ in found)


@pytest.mark.slow
def test_pip_install_into_an_empty_environment(tmp_path):
    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    run(home / "bin" / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", ROOT, cwd=tmp_path)
    assert "resnet20_se_digits" in run(home / "bin" / "ean", "configs", cwd=tmp_path)
    out = run(
        *(home / "bin" / "ean", "quickstart"),
        *("--cfg-options", "train_cfg.max_epochs=1", "search.strategy.evaluations=6"),
        cwd=tmp_path,
    )
    assert "Share-full" in out
