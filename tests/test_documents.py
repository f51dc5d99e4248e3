"""The Python examples of the documents run as they stand."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "configs/README.md",
    "zoo/README.md",
    "tasks/crowd_counting/README.md",
    "tasks/segmentation/README.md",
)


def blocks(document, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("document", "number"), [(name, n) for name in DOCUMENTS for n in range(len(blocks(name, "python")))]
)
def test_python_examples_run(document, number):
    from ean_core import ATTENTION, EANResNetCIFAR
    from ean_core.inference import deploy
    from ean_core.inference.gates import GATES
    from ean_core.search import STRATEGIES, build_strategy

    names = {}
    examples = blocks(document, "python")
    try:
        if "register_gate(ECA)" in examples[number]:  # which goes on from another example
            exec(next(text for text in examples if "class ECA(" in text), names)
        exec(examples[number], names)
        if "ECA" in names:
            features = EANResNetCIFAR(20, "ECA", scheme="full")(torch.zeros(2, 3, 32, 32))
            assert features[-1].shape == (2, 64, 8, 8)
        if "ECAGate" in names:
            network = EANResNetCIFAR(164, "ECA", scheme="full").double()
            images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = None  # statistics of the images: without, values grow from block to block
            network(images)
            deployed = deploy(network.eval())
            assert {block.form for block in deployed.blocks()} == {"commuted"}
            with torch.no_grad():
                for got, expected in zip(deployed(images), network(images), strict=True):
                    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()
        if "Growing" in names:
            strategy = build_strategy({"type": "growing"}, (2, 1), seed=0)
            assert [str(strategy.ask()[0]) for _ in range(3)] == ["00-1", "01-1", "11-1"]
            assert strategy.ask() == []
    finally:
        STRATEGIES.module_dict.pop("growing", None)
        ATTENTION.module_dict.pop("ECA", None)  # other tests list what is registered
        GATES.pop(names.get("ECA"), None)


def test_commands_in_documents_exist():
    from ean_core.config import packaged_configs
    from tasks.cli import COMMANDS

    commands = {name for name, _, _ in COMMANDS}
    configs = packaged_configs()
    used = [line.split() for name in DOCUMENTS for block in blocks(name, "bash") for line in block.splitlines()]
    words = [line for line in used if line[:1] == ["ean"]]
    assert len(words) >= 5
    for _, *line in words:
        length = 2 if " ".join(line[:2]) in commands else 1
        assert " ".join(line[:length]) in commands
        arguments = line[length:]
        if line[0] not in ("zoo", "crowd", "seg"):
            assert arguments[0].startswith(("-", "work_dirs/")) or arguments[0] in configs


def test_relative_links_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / document).read_text()):
            assert (ROOT / document).parent.joinpath(target).exists(), f"{document} links to {target}"
