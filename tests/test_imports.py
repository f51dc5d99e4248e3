"""Imports run one way, tasks -> zoo -> ean_core and downward between the rooms of ean_core, and none is in vain."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Rooms of ean_core by rank; "top" is its own modules, attention and data. A room imports from lower ranks, and
#: between rooms of one rank in at most one direction.
RANKS = {
    "common": 0,
    "weights": 1,
    "top": 2,
    "inference": 3,
    "runs": 3,
    "search": 3,
    "show": 4,
    "report": 4,
    "watch": 4,
    "commands": 5,
}
PACKAGES = ("ean_core", "zoo", "tasks")
#: The package itself has names of all its rooms.
WHOLE = "ean_core.__init__"


def imported(path, root):
    """The absolute names of the modules that a file imports, wherever in it."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANKS else "top"


def upward(root):
    """List violations of the import rule below a folder."""
    wrong, level = [], {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for name in sorted(set(imported(path, root))):
                other = name.split(".")[0]
                if other not in PACKAGES or name == module:
                    continue
                if PACKAGES.index(other) > PACKAGES.index(package):
                    wrong.append(f"{module} imports {name}")
                if (package, other) != ("ean_core", "ean_core") or module == WHOLE or name == "ean_core":
                    continue
                mine, theirs = room_of(module), room_of(name)
                if RANKS[theirs] > RANKS[mine]:
                    wrong.append(f"{module} imports {name}")
                elif mine != theirs and RANKS[theirs] == RANKS[mine]:
                    level.setdefault((mine, theirs), f"{module} imports {name}")
    return wrong + [text for (mine, theirs), text in level.items() if (theirs, mine) in level]


def test_imports_run_one_way():
    assert upward(ROOT) == []


@pytest.mark.parametrize(
    ("at", "line"),
    [
        ("ean_core/common/errors.py", "from ean_core.weights import files"),
        ("ean_core/layers.py", "from .runs.folder import Run"),
        ("ean_core/inference/timing.py", "def late():\n    import ean_core.show.table"),
        ("ean_core/scheme.py", "import zoo"),
        ("zoo/names.py", "from tasks import cli"),
    ],
)
def test_an_upward_import_is_found(tmp_path, at, line):
    path = tmp_path / at
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert len(upward(tmp_path)) >= 1


def test_a_ring_between_rooms_of_one_rank_is_found(tmp_path):
    for at, line in (
        ("inference/a.py", "from ean_core.runs import b"),
        ("runs/b.py", "from ean_core.inference import a"),
    ):
        path = tmp_path / "ean_core" / at
        path.parent.mkdir(parents=True)
        path.write_text(line)
    assert len(upward(tmp_path)) == 2


def test_importing_a_package_or_a_network_imports_only_what_it_needs():
    code = """
import sys

def others(before=frozenset(sys.modules)):
    return {name.split(".")[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names

import ean_core, ean_core.attention, ean_core.data, zoo
print(*sorted(others()))
import mmengine.model
before = frozenset(sys.modules)
from ean_core import ConnectionScheme, EANResNet, ImageClassifier
print(*sorted(others(before)))
print(*(name for name in ("mmengine.runner", "mmengine.hooks", "PIL", "torchvision") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["ean_core zoo", "ean_core mmengine safetensors", ""]
