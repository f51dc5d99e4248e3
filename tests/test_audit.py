"""`make audit` fails where packages were not audited; pip-audit is a stand-in, except in the slow test."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

AUDIT = Path(__file__).with_name("audit.py")
CLEAN = {"name": "one", "version": "1.0", "vulns": []}
OTHER = {"name": "Another_one", "version": "2.0", "vulns": []}
SKIPPED = {"name": "another-one", "skip_reason": "Dependency not found on PyPI and could not be audited"}
FLAWED = {**OTHER, "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2.1"]}]}


@pytest.fixture
def packages(tmp_path):
    """A folder with two packages, and this one's."""
    folder = tmp_path / "packages"
    for name, version in (("one", "1.0"), ("another.one", "2.0"), ("ean-zoo", "0.1.0")):
        made = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        made.mkdir(parents=True)
        (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (made / "RECORD").touch()
    return folder


def audited(program, folder):
    done = subprocess.run(
        [sys.executable, AUDIT, program, folder], capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def ends(tmp_path, packages):
    """Run the audit with a pip-audit that prints a text and exits with a status."""

    def ends(status, text):
        program = tmp_path / "pip-audit"
        program.write_text(f"#!{sys.executable}\nimport sys\nsys.stdout.write({text!r})\nsys.exit({status})\n")
        program.chmod(0o755)
        return audited(program, packages)

    return ends


def test_an_audit_of_every_package_without_vulnerabilities_succeeds(ends):
    code, said = ends(0, json.dumps({"dependencies": [CLEAN, OTHER]}))
    assert (code, said) == (0, "2 of 2 packages audited, 0 known vulnerabilities\n")


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (0, json.dumps({"dependencies": [CLEAN, SKIPPED]}), "not audited: another-one"),
        (0, json.dumps({"dependencies": [CLEAN]}), "not audited: another-one"),
        (0, json.dumps({"dependencies": []}), "not audited: another-one, one"),
        (1, "", "nothing was audited: pip-audit ended with 1 and no report"),
        (0, "", "nothing was audited"),
        (0, "[]", "nothing was audited"),
        (1, json.dumps({"dependencies": [CLEAN, FLAWED]}), "Another_one 2.0: CVE-2026-1, fixed in 2.1"),
        (1, json.dumps({"dependencies": [CLEAN, OTHER]}), "pip-audit ended with 1"),
    ],
    ids=["skipped", "missing", "none", "unreachable", "silent", "another format", "vulnerable", "failed"],
)
def test_packages_that_were_not_audited_fail(ends, status, text, message):
    code, said = ends(status, text)
    assert code == 1
    assert message in said


def test_an_empty_environment_fails(ends, packages):
    for path in packages.iterdir():
        path.rename(packages.parent / path.name)
    code, said = ends(0, json.dumps({"dependencies": []}))
    assert code == 1
    assert "there are no packages in" in said


@pytest.mark.slow
def test_pip_audit_itself_on_packages_that_no_index_has(tmp_path, packages):
    """The service skips them where it can be reached, and cannot be reached otherwise: both must fail."""
    venv.create(tmp_path / "audit", with_pip=True)
    subprocess.run([tmp_path / "audit/bin/pip", "install", "--quiet", "pip-audit"], check=True, timeout=600)
    for path in packages.glob("*one*"):
        path.rename(path.with_name(f"ean_zoo_test_{path.name}"))
    for path in packages.glob("*/METADATA"):
        path.write_text(path.read_text().replace("one", "one-that-no-index-has"))
    code, said = audited(tmp_path / "audit/bin/pip-audit", packages)
    assert code == 1, said
    assert "not audited: another-one-that-no-index-has, one-that-no-index-has" in said or "nothing was audited" in said
