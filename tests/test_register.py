"""Names in mmengine's registries whose modules are imported only for them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.registry import HOOKS, MODELS, Registry

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


@pytest.mark.parametrize("before", ["", "import mmengine.registry\n", "import mmengine.runner\n"])
def test_names_are_found_by_any_registry_however_mmengine_was_imported(before):
    code = f"""
{before}import ean_core, sys
from mmengine import registry
from ean_core.register import NAMES
print(*(name for name in ("ean_core.backbone", "ean_core.runs") if name in sys.modules))
for kind, modules in NAMES.items():
    child = registry.Registry("child", parent=getattr(registry, kind), scope="child", locations=["json"])
    for module, names in modules.items():
        for name in names:
            found = child.get(name)
            assert found is getattr(registry, kind).get(f"mmengine.{{name}}"), name
            assert found.__module__ == f"ean_core.{{module}}", name
"""
    assert lines(code) == [""]


def test_published_addresses_are_known_however_mmengine_was_imported():
    code = "from mmengine.runner import CheckpointLoader as it; print(it._get_checkpoint_loader('ean://x').__name__)"
    assert lines(f"import ean_core; {code}") == lines(f"{code}; import ean_core; {code}")[1:] == ["load_from_ean"]


def test_hooks_and_loaders_are_built_right_after_the_import():
    code = """
import ean_core
from mmengine.registry import HOOKS
print(type(HOOKS.build(dict(type="FiniteHook"))).__name__)
from mmengine.runner import Runner
loader = dict(dataset=dict(type="Digits", split="val"), batch_size=4, collate_fn=dict(type="as_batch"),
              sampler=dict(type="EpochSampler"))
print(next(iter(Runner.build_dataloader(loader)))["inputs"].shape[0])
"""
    assert lines(code) == ["FiniteHook", "4"]


def test_a_registered_class_pickles_without_any_other_import(tmp_path):
    code = f"""
import pickle, sys
with open({str(tmp_path / "hook")!r}, "rb") as file:
    print(type(pickle.load(file)).__name__)
"""
    import pickle

    (tmp_path / "hook").write_bytes(pickle.dumps(HOOKS.build({"type": "RandomSchemeHook"})))
    assert lines(code) == ["RandomSchemeHook"]


def test_contents_are_listed_without_importing_and_imported_by_their_values():
    code = """
import ean_core, sys
from mmengine.registry import MODELS, HOOKS
print("EANResNet" in list(MODELS.module_dict), len(MODELS.module_dict) >= 4, "ean_core.backbone" in sys.modules)
print({name: kind.__module__ for name, kind in MODELS.module_dict.items()}["EANResNet"])
print("ProgressHook" in repr(HOOKS), "ean_core.runs.hooks" in sys.modules)
"""
    assert lines(code) == ["True True False", "ean_core.backbone", "True True"]


def test_users_replace_a_class_only_by_force():
    code = """
import ean_core
from mmengine.registry import HOOKS
class FiniteHook: pass
try:
    HOOKS.register_module(module=FiniteHook)
except KeyError as error:
    print(error)
HOOKS.register_module(module=FiniteHook, force=True)
import ean_core.runs.hooks
print(HOOKS.get("FiniteHook").__module__)
"""
    assert lines(code) == ["'FiniteHook is already registered in hook at ean_core.runs.hooks'", "__main__"]


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
    assert MODELS.module_dict.get("unknown") is None
