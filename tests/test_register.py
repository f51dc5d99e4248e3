"""Names in mmengine's registries whose modules are imported only for them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.registry import Registry

from ean_core.register import NAMES, Contents

ROOT = Path(__file__).parent.parent / "ean_core"
#: Modules that write the only configs with their names.
OWN_CONFIGS = {"runs.curves", "search.darts"}


def lines(code):
    """The lines that code prints in a new process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def declared():
    """Names by registry and module, as decorators in the source declare them."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for decorator in map(ast.unparse, getattr(node, "decorator_list", ())):
                registry, _, call = decorator.partition(".")
                if call.startswith("register_module(") and module not in OWN_CONFIGS:
                    found.setdefault(registry, {}).setdefault(module, []).append(node.name)
    del found["ATTENTION"], found["STRATEGIES"]  # registries of ours
    return found


def test_every_registered_class_has_its_name_in_the_list():
    listed = {kind: {module: sorted(names) for module, names in each.items()} for kind, each in NAMES.items()}
    assert listed == {kind: {m: sorted(names) for m, names in each.items()} for kind, each in declared().items()}


def test_names_are_found_where_mmengine_comes_later():
    code = """
import pickle, sys
import ean_core
print("torch" in sys.modules)
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, Registry
print("EANResNet" in list(MODELS.module_dict), len(MODELS.module_dict) >= 4, "ean_core.backbone" in sys.modules)
child = Registry("child", parent=METRICS, scope="child", locations=["json"])  # as other libraries' registries are
print(child.get("TopK").__module__, child.get("mmengine.TopK") is child.get("TopK"), "mmengine.runner" in sys.modules)
print(MODELS.build(dict(type="EANResNetCIFAR", depth=20, scheme="full")).depth)

class FiniteHook: pass
try:
    HOOKS.register_module(module=FiniteHook)
except KeyError as error:
    print(error)
HOOKS.register_module(module=FiniteHook, force=True)
print(HOOKS.get("FiniteHook").__module__)
hook = HOOKS.build(dict(type="RandomSchemeHook", p=0.25))
print(pickle.loads(pickle.dumps(hook)).p, "ProgressHook" in repr(HOOKS))

from mmengine.runner import CheckpointLoader, Runner
print(CheckpointLoader._get_checkpoint_loader("ean://resnet20").__name__)
loader = dict(batch_size=4, dataset=dict(type="Digits", split="val"), sampler=dict(type="EpochSampler"))
print(len(next(iter(Runner.build_dataloader(loader | dict(collate_fn=dict(type="as_batch")))))["inputs"]))
"""
    assert lines(code) == [
        "False",
        "True True False",
        "ean_core.classifier True False",
        "20",
        "'FiniteHook is already registered in hook at ean_core.runs.hooks'",
        "__main__",
        "0.25 True",
        "load_from_ean",
        "4",
    ]


def test_names_are_found_where_mmengine_came_earlier():
    code = """
from mmengine.runner import CheckpointLoader
import ean_core, sys
from mmengine import registry
from ean_core.register import NAMES
print(CheckpointLoader._get_checkpoint_loader("ean://resnet20").__name__, "ean_core.backbone" in sys.modules)
for kind, modules in NAMES.items():
    for module, names in modules.items():
        for name in names:
            assert getattr(registry, kind).get(name).__module__ == f"ean_core.{module}", name
"""
    assert lines(code) == ["load_from_ean False"]


def test_other_names_are_registered_as_before():
    registry = Registry("test", scope="test")
    registry._module_dict = Contents(registry.module_dict, {"absent": "json", "broken": "no_such_module"})
    registry.register_module(name="own", module=dict)
    assert registry.get("own") is registry.module_dict.get("own") is dict
    assert "absent" not in registry.module_dict
    assert "unknown" not in registry.module_dict
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        registry.get("broken")
    del registry.module_dict["own"]
    assert list(registry.module_dict) == ["absent", "broken"]
