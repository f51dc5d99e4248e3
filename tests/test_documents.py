"""The documents: their Python examples run as they stand, their commands and links lead somewhere."""

import re
from importlib import import_module

import pytest
import torch
import typer

from ean_core.config import packaged_configs
from tasks.cli import COMMANDS

from .documents import DOCUMENTS, ROOT, blocks, commands, mentioned, parts, text_of


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


TARGETS = {name: target for name, _, target in COMMANDS}


def options_of(command):
    """The options that a command of `ean` takes."""
    module, function = TARGETS[command].split(":")
    app = typer.Typer(add_completion=False)
    app.command()(getattr(import_module(module), function))
    known = [option for each in typer.main.get_command(app).params for option in (*each.opts, *each.secondary_opts)]
    return {*known, "--help"}


def check_ean(words):
    """Of a command: that it exists, takes these options, and that the config exists which it names."""
    name = " ".join(words[:2]) if " ".join(words[:2]) in TARGETS else words[0]
    if name not in TARGETS:  # a group, such as `ean zoo`
        assert any(each.startswith(f"{name} ") for each in TARGETS), f"no command `ean {' '.join(words)}`"
        return
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= options_of(name), f"`ean {' '.join(words)}`: it has no {used - options_of(name)}"
    for word in words:
        if re.fullmatch(r"(supernet_|search_)?resnet\d+_[a-z]+_[a-z0-9_]+", word):
            assert word in packaged_configs(), f"`ean {' '.join(words)}`: there is no config {word}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_documents_exist(document):
    makefile, project = (ROOT / "Makefile").read_text(), (ROOT / "pyproject.toml").read_text()
    found = [part for line in commands(document) for part in parts(line)] + mentioned(document)
    for command in found:
        program, *words = command.split()
        if program in ("ean", ".venv/bin/ean") and words:
            check_ean(words)
        elif program == "torchrun" and "ean" in words:
            check_ean(words[words.index("ean") + 1 :])
        elif program == "make" and words:
            assert f"\n{words[0]}:" in makefile, f"the Makefile has no {words[0]}"
        elif program == "pip":
            for extra in re.findall(r"\[([a-z,-]+)\]", command):
                assert all(f"\n{name} = [" in project for name in extra.split(",")), f"{command}: no such extra"
        elif program == "python" and words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), f"there is no {words[0]}"
    assert found or document == "configs/README.md"


def test_a_command_that_is_wrong_is_found():
    for words, message in (
        (["trian", "resnet20_se_cifar100"], "no command"),
        (["train", "resnet20_se_cifar100", "--ampp"], "--ampp"),
        (["train", "resnet21_se_cifar100"], "no config resnet21_se_cifar100"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_ean(words)


def anchor(heading):
    """What a heading is called in a link to it."""
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
