"""Packages whose contents are imported when they are used, in a process of their own."""

import subprocess
import sys

import pytest


def answers(code, *options):
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_package_registers_everything_and_nothing_that_only_figures_need():
    code = (
        "import ean_core, sys\n"
        "from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, RUNNERS, Registry\n"
        "child = Registry('model', parent=MODELS, scope='child')\n"
        "print(child.get('EANResNet').__name__, MODELS.build(dict(type='EANResNetCIFAR', depth=20)).depth)\n"
        "print(*(name for kind in (DATASETS, HOOKS, METRICS, RUNNERS) for name in kind.module_dict\n"
        "        if kind.module_dict[name].__module__.startswith('ean_core')))\n"
        "print(*(name for name in ('torchvision', 'scipy', 'matplotlib', 'sklearn') if name in sys.modules))\n"
    )
    found = answers(code)
    assert {"EANResNet", "20", "CIFAR100", "Digits", "ImageTree", "ProgressHook", "TopK", "EANRunner"} <= set(found)
    assert not {"torchvision", "scipy", "matplotlib", "sklearn"} & set(found)


@pytest.mark.parametrize("package", ["ean_core", "ean_core.data", "ean_core.attention", "zoo"])
def test_a_package_has_all_its_names(package):
    code = (
        f"import {package} as it\n"
        "missing = set(it.__all__) - set(dir(it))\n"
        f"from {package} import *\n"
        "print(*missing, *(name for name in it.__all__ if name not in globals()), hasattr(it, 'nothing'))\n"
    )
    assert answers(code, "-X", "ean_registers_later") == ["False"]


def test_the_command_line_may_register_later():
    code = (
        "import ean_core, sys; print('torch' in sys.modules)\n"
        "import ean_core.register; from mmengine.registry import MODELS; print('EANResNet' in MODELS.module_dict)"
    )
    assert answers(code, "-X", "ean_registers_later") == ["False", "True"]
