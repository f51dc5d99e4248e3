"""Packages whose contents are imported when they are used, in a process of their own, and work after an import."""

import importlib
import subprocess
import sys

import pytest

from ean_core.common.lazy import after_import


def test_packages_have_all_their_names():
    code = """
import ean_core, ean_core.attention, ean_core.data, sys, zoo
for package in (ean_core, ean_core.attention, ean_core.data, zoo):
    print(*(set(package.__all__) - set(dir(package))), hasattr(package, "nothing"), "torch" in sys.modules)
exec("".join(f"from {name} import *\\n" for name in ("ean_core", "ean_core.attention", "ean_core.data", "zoo")))
packages = (ean_core, ean_core.attention, ean_core.data, zoo)
print(*(name for package in packages for name in package.__all__ if name not in globals()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*["False False"] * 4, ""]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a module that can be imported and has not been."""
    (tmp_path / "waited_for.py").write_text("value = [1]")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    yield "waited_for"
    sys.modules.pop("waited_for", None)


def test_work_waits_for_an_import(module):
    seen = []
    after_import(module, lambda found: seen.extend(found.value))
    assert importlib.util.find_spec(module) is not None
    assert seen == []
    found = importlib.import_module(module)
    importlib.import_module(module)
    assert seen == [1]
    assert found.__loader__ is found.__spec__.loader
    assert found.__loader__.get_source(module) == "value = [1]"


def test_work_is_done_at_once_after_an_import(module):
    seen = []
    importlib.import_module(module)
    after_import(module, lambda found: seen.extend(found.value))
    assert seen == [1]


def test_a_missing_module_is_missing(module):
    after_import("no_such_module", pytest.fail)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        importlib.import_module("no_such_module")
