"""Contents of the wheel, its use away from the checkout, and the versions that are installed with it."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from shutil import which

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

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


def test_the_wheel_is_typed(wheel):
    assert {f"{package}/py.typed" for package in ("ean_core", "zoo", "tasks")} <= {*zipfile.ZipFile(wheel).namelist()}


def test_the_metadata_have_the_readme_and_addresses_that_the_project_states(wheel):
    archive = zipfile.ZipFile(wheel)
    name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    body = metadata.get_payload(decode=True).decode().strip()
    assert body == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    addresses = [each.partition(", ")[2] for each in metadata.get_all("Project-URL") or ()]
    assert addresses
    stated = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert all(address in stated for address in addresses)


def test_all_is_every_extra_for_users_and_no_developer_tool(wheel):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert Requirement(*extras["all"]).extras == extras.keys() - {"all", "dev", "fuzz", "mmcv-lite", "openmmlab"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of an environment with this one's libraries, but not its packages: they come from the wheel."""
    home = tmp_path_factory.mktemp("installed") / "environment"
    venv.create(home, with_pip=False)
    site = next((home / "lib").glob("python*/site-packages"))
    libraries = Path(sysconfig.get_path("purelib"))
    (site / "libraries.pth").write_text(f"{libraries}\n")
    for hook in libraries.glob("distutils-precedence.pth"):  # setuptools'; .pth files of the libraries are not read
        (site / hook.name).write_text(hook.read_text())
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


# ---------------------------------------------------------------- versions


@pytest.fixture(scope="module")
def locked():
    """Version and hashes of each package in the lock."""
    found = {}
    for entry in (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines():
        pin, *hashes = entry.split()
        name, _, version = pin.partition("==")
        assert version, entry
        assert name not in found
        found[name] = (version, hashes)
    return found


def test_the_lock_holds_the_tested_versions_with_hashes_and_no_addresses(locked):
    for name, (_, hashes) in locked.items():
        assert hashes, name
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), name
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|/|@|--(index|extra-index|find-links|trusted-host)", text)
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    for pin in pins:
        requirement = Requirement(pin)
        name = canonicalize_name(requirement.name)
        if name == "opencv-python":  # the lock has the headless build in its place
            name = "opencv-python-headless"
        assert str(requirement.specifier) == f"=={locked[name][0]}", name
    assert "opencv-python" not in locked


def test_the_lock_satisfies_what_the_package_asks_for(locked):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    makefile = (ROOT / "Makefile").read_text()
    installed = re.search(r"^EXTRAS := (.*)$", makefile, re.MULTILINE)[1].split()
    assert set(installed) == extras.keys() - {"all", "fuzz"}
    for text in [*project["dependencies"], *(text for name in installed for text in extras[name])]:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": "3.11"}):
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)][0]), text


@pytest.mark.parametrize(
    ("name", "vulnerable"),
    [
        ("torch", "2.5.1"),  # CVE-2025-32434
        ("torch", "2.9.1"),  # CVE-2026-24747
        ("torch", "2.10.0"),  # CVE-2026-4538
        ("h5py", "3.11.0"),  # CVE-2026-26200 in its HDF5
        ("pillow", "12.2.0"),  # CVE-2026-59199
        ("filelock", "4.2.0"),  # CVE-2026-112909
        ("onnx", "1.20.1"),  # CVE-2026-27489
        ("onnx", "1.21.0"),  # CVE-2026-44512
        ("gradio", "6.19.0"),  # CVE-2026-59806
        ("starlette", "1.2.1"),  # PYSEC-2026-248
        ("python-multipart", "0.0.29"),  # CVE-2026-53538
    ],
)
def test_lower_bounds_exclude_known_vulnerabilities(name, vulnerable):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    bounds = [
        requirement
        for requirement in map(Requirement, asked)
        if requirement.name == name
        and (requirement.marker is None or requirement.marker.evaluate({"python_version": "3.11"}))
    ]
    assert bounds
    assert not all(requirement.specifier.contains(vulnerable) for requirement in bounds)
