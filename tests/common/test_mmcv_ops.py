"""The stand-in for mmcv's compiled operators: used only if nothing else provides them."""

import importlib
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import ean_core
from ean_core.common.mmcv_ops import MissingOperatorError, StandIn, StandInFinder, provide_stand_in

FOLDER = Path(ean_core.__file__).parent / "common"


def run(*arguments, path=()):
    """Run code in a separate Python; its exit code and last output line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, (done.stdout + done.stderr).strip().rpartition("\n")[2]


def run_alone(code, folder):
    """With the stand-in, what ``folder`` holds and the standard library, and nothing that is installed."""
    return run("-S", "-c", f"import mmcv_ops; mmcv_ops.provide_stand_in(); {code}", path=(folder, FOLDER))


@pytest.fixture
def mmcv():
    """mmcv without compiled operators, with ``mmcv.ops``."""
    mmcv = pytest.importorskip("mmcv")
    if not isinstance(importlib.import_module("mmcv._ext"), StandIn):
        pytest.skip("this mmcv has its operators")
    importlib.import_module("mmcv.ops")
    return mmcv


@pytest.fixture
def made(tmp_path):
    """Write a custom mmcv package whose ``_ext`` is the given code."""

    def make(extension):
        (tmp_path / "mmcv").mkdir()
        (tmp_path / "mmcv" / "__init__.py").touch()
        if extension is not None:
            (tmp_path / "mmcv" / "_ext.py").write_text(extension)
        return tmp_path

    return make


# ---------------------------------------------------------------- where operators are missing


@pytest.mark.parametrize("library", ["mmseg", pytest.param("mmdet", marks=pytest.mark.slow)])
def test_openmmlab_imports_behind_ean_core(library):
    pytest.importorskip(library)
    code = f"import ean_core, {library}.utils, {library}.models, {library}.apis; print('imported')"
    assert run("-c", code) == (0, "imported")


def test_mmseg_does_not_import_without_ean_core(mmcv):
    try:
        version("mmsegmentation"), version("mmcv-lite")
    except PackageNotFoundError:
        pytest.skip("this is not the mmsegmentation that takes operators for granted")
    assert run("-c", "import mmseg.utils") == (1, "ModuleNotFoundError: No module named 'mmcv._ext'")


@pytest.mark.parametrize("module", ["mmseg.utils", pytest.param("mmdet.datasets", marks=pytest.mark.slow)])
def test_an_import_that_failed_before_ean_core_works_after_it(mmcv, module):
    """In a notebook, or where the error is caught: nothing half-imported is in the way."""
    pytest.importorskip(module.split(".")[0])
    code = f"""
import importlib
try:
    importlib.import_module({module!r})
    print("it has operators")
except ModuleNotFoundError:
    import ean_core
    print(importlib.import_module({module!r}).__name__)
"""
    assert run("-c", code)[1] in (module, "it has operators")


def test_an_operator_that_is_called_says_its_name_and_what_to_do(mmcv):
    boxes, scores = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.ones(1)
    with pytest.raises(MissingOperatorError, match=r"^nms is a compiled operator of the full mmcv, .*`pip "):
        mmcv.ops.nms(boxes, scores, 0.5)
    pool = mmcv.ops.RoIAlign(2)
    with pytest.raises(MissingOperatorError, match=r"^roi_align_forward is a compiled operator"):
        pool(torch.zeros(1, 3, 8, 8), torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]))


def test_the_environment_is_collected_and_says_that_there_are_no_operators(mmcv):
    found = importlib.import_module("mmcv.utils").collect_env()
    assert found["MMCV"] == mmcv.__version__
    assert found["MMCV Compiler"].startswith("none: ")
    pytest.importorskip("mmseg")
    assert "MMSegmentation" in importlib.import_module("mmseg.utils").collect_env()


def test_its_spec_is_as_good_as_any(mmcv):
    spec = find_spec("mmcv._ext")
    assert type(spec) is ModuleSpec
    assert (spec.name, type(spec.loader), spec.parent) == ("mmcv._ext", StandInFinder, "mmcv")
    assert importlib.import_module("mmcv._ext").__spec__.name == "mmcv._ext"


def test_it_has_operators_by_any_name_but_nothing_that_python_asks_of_modules():
    module = StandIn("mmcv._ext")
    assert module.anything.__name__ == "anything"
    assert not hasattr(module, "__path__")
    assert not hasattr(module, "__wrapped__")


# ---------------------------------------------------------------- and where they are not


def test_the_finder_is_put_once():
    provide_stand_in()
    provide_stand_in()
    assert [type(finder) for finder in sys.meta_path].count(StandInFinder) == 1


def test_it_stands_in_where_mmcv_has_no_operators(made):
    assert run_alone("import mmcv._ext; print(type(mmcv._ext).__name__)", made(None)) == (0, "StandIn")


def test_operators_that_are_there_are_taken(made):
    folder = made("nms = 'the real one'")
    assert run_alone("import mmcv._ext; print(mmcv._ext.nms)", folder) == (0, "the real one")


def test_importing_ean_core_imports_nothing_of_openmmlab_and_leaves_operators_that_are_there(made):
    names = "sorted({n.split('.')[0] for n in sys.modules if n.startswith('mm') and n != 'mmap'})"
    code = f"import sys, ean_core; found = {names}; import mmcv._ext; print(found, mmcv._ext.nms)"
    assert run("-c", code, path=[made("nms = 'the real one'")]) == (0, "[] the real one")


def test_operators_that_do_not_load_say_why(made):
    folder = made("raise ImportError('libc10.so: cannot open shared object file')")
    assert run_alone("import mmcv._ext", folder) == (1, "ImportError: libc10.so: cannot open shared object file")


def test_without_mmcv_there_are_no_operators_either(tmp_path):
    for name in ("mmcv", "mmcv._ext", "mmcv.ops"):
        assert run_alone(f"import {name}", tmp_path) == (1, "ModuleNotFoundError: No module named 'mmcv'")


def test_nothing_else_is_stood_in_for(made):
    folder = made(None)
    assert run_alone("import mmcv._ext2", folder) == (1, "ModuleNotFoundError: No module named 'mmcv._ext2'")
    assert run_alone("import _ext", folder) == (1, "ModuleNotFoundError: No module named '_ext'")
