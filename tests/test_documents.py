"""The documents: their Python examples run as they stand, their commands and links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch

from .documents import ALL, DOCUMENTS, OTHERS, ROOT, Command, blocks, check, commands, is_complete, text_of


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
        if document == "ean_core/README.md":  # where each goes on from those before it
            exec("".join(examples[:number]), names)
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


def test_every_document_is_looked_at():
    rooms = [path for path in ROOT.iterdir() if (path / "__init__.py").is_file() or (path / "README.md").is_file()]
    rooms = [path for path in rooms if not path.name.startswith(".")]
    found = [*ROOT.glob("*.md"), *(path for room in rooms for path in room.rglob("*.md"))]
    names = {path.relative_to(ROOT) for path in found}
    assert {name for name in names if not any(name.is_relative_to(other) for other in OTHERS)} == {
        *map(Path, DOCUMENTS)
    }


@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_command_exists_with_its_options(command):
    check(command)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ean trian resnet20_se_cifar100", "no command `ean trian"),
        ("ean train resnet20_se_cifar100 --ampp", "no option --ampp"),
        ("ean train CONFIG --ampp", "no option --ampp"),
        ("ean train resnet21_se_cifar100", "no packaged config resnet21_se_cifar100"),
        ("ean time resnet50_{se,sea}_imagenet --batch 2", "no packaged config resnet50_sea_imagenet"),
        ("ean train resnet20_se_cifar100 && ean frobnicate x", "no command `ean frobnicate"),
        ("ean zoo info ean_resnet21_se.cifar100", "no model ean_resnet21_se.cifar100"),
        ("ean explain a.jpg --model resnet20.cifar10", "no model resnet20.cifar10"),
        ("ean train", "is incomplete: Missing argument"),
        ("ean time resnet20_se_cifar100 --batch many", "is incomplete: Invalid value for '--batch'"),
        ("torchrun --nproc-per-node 2 --no-python ean train CONFIG --frob", "no option --frob"),
        ("python tasks/segmentation/train.py CONFIG --frob", "no option --frob"),
        ("python benchmarks/campaign.py --frob", "no option --frob"),
        ("python benchmarks/nothing.py x", "no script benchmarks/nothing.py"),
        ("python -m zoo.nothing", "no module zoo.nothing"),
        ("make tset", "no target tset"),
        ('pip install ".[sge]"', "no extra sge"),
    ],
)
def test_what_is_wrong_is_found(text, message):
    with pytest.raises(AssertionError, match=re.escape(message)):
        check(Command("a document", 1, text))


def test_names_placeholders_and_complete_commands_are_told_apart():
    def complete(text):
        return is_complete(Command("a document", 1, text, inline=True))

    assert complete("ean zoo list --all")
    assert complete("ean train mine.py --cfg-options model.backbone.attention=DIA")
    assert complete("ean configs resnet20_se_cifar100 > mine.py")
    for text in (
        "ean",
        "ean zoo",
        "ean crowd serve",
        "ean train CONFIG",
        "ean zoo download --to",
        "ean seg evaluate a ...",
    ):
        assert not complete(text), text
    (first, *_) = commands("README.md")
    assert (first.words, first.inline) == (["make", "demo"], False)


def anchor(heading):
    """Return the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_relative_links_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(
            r"\]\((?!http)([^)]+)\)", re.sub(r"```.*?```", "", text_of(document), flags=re.DOTALL)
        ):
            path, _, name = target.partition("#")
            linked = (ROOT / document).parent / path if path else ROOT / document
            assert linked.exists(), f"{document} links to {target}"
            if name:
                headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                assert name in map(anchor, headings), f"{document} links to {target}"
