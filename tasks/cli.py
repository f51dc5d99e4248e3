"""The command line ``ean``: a table of commands, each imported only when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

#: Name of one or two words, what it does in one line, and where its function is.
COMMANDS: tuple[tuple[str, str, str], ...] = (
    (
        "quickstart",
        "supernet, search, training and timing on a small data set",
        "ean_core.commands.quickstart:quickstart",
    ),
    ("train", "train a network or a supernet from a config", "ean_core.commands.train:train"),
    ("search", "search where to connect the attention of a supernet", "ean_core.commands.search:search"),
    ("search compare", "compare search strategies on one supernet", "ean_core.commands.compare:compare"),
    ("search correlate", "how well a supernet ranks its schemes", "ean_core.commands.correlate:correlate"),
    ("watch", "how a training or a search stands, from its files", "ean_core.commands.watch:watch"),
    ("test", "measure a checkpoint on test images", "ean_core.commands.train:test"),
    ("time", "time vanilla, Share-full and EAN side by side", "ean_core.commands.time:time"),
    ("explain", "where decisions come from, side by side (Grad-CAM)", "tasks.explain:explain"),
    ("gates", "how much attention differs between images, by block", "ean_core.commands.gates:gates"),
    ("report", "tables and figures of the paper out of run records", "ean_core.commands.report:report"),
    ("export", "write a trained backbone as plain tensors", "ean_core.commands.train:export"),
    ("crowd prepare", "check annotated pictures, write densities", "tasks.crowd_counting.prepare:prepare_command"),
    ("crowd evaluate", "a counter's errors and time, as Table 3", "tasks.crowd_counting.evaluate:evaluate_command"),
    ("crowd predict", "count people in pictures, videos, a webcam", "tasks.crowd_counting.predict:predict_command"),
    ("crowd serve", "try a counter on a local web page", "tasks.crowd_counting.serve:serve_command"),
    ("seg prepare", "check a VOCdevkit, write masks and lists", "tasks.segmentation.prepare:prepare_command"),
    ("seg evaluate", "a segmentor's mIoU and time, as Table 5", "tasks.segmentation.evaluate:evaluate_command"),
    ("seg predict", "colour what is in pictures", "tasks.segmentation.predict:predict_command"),
    ("zoo list", "list pretrained models", "zoo.command:list_"),
    ("zoo info", "what is known of a model", "zoo.command:info"),
    ("zoo download", "fetch weights, for use without a network", "zoo.command:download"),
    ("zoo verify", "hold published files against their index", "zoo.command:verify"),
    ("zoo publish", "publish a trained network from its records", "zoo.command:publish"),
    ("zoo retime", "renew the times on a model's card", "zoo.command:retime"),
    ("zoo import", "weights of torchvision or of the paper's authors", "zoo.command:import_"),
    ("configs", "list the packaged configs, or print one", "ean_core.commands.configs:show_configs"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``ean`` with the arguments of the process, or with ``arguments``; ends in SystemExit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        sys.exit(0)
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"ean-zoo {version('ean-zoo')}")
        sys.exit(0)
    targets = {name: target for name, _, target in COMMANDS}
    # Some commands have two words.
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in targets), None)
    group = [command for command in COMMANDS if command[0].startswith(f"{words[0]} ")]
    if name is None and group and (len(words) == 1 or words[1] in ("-h", "--help", "help")):
        print(_listing(group))
        sys.exit(0)
    if name is None:
        from difflib import get_close_matches

        given = " ".join(words[:2]) if group else words[0]
        near = get_close_matches(given, targets, n=1) or [name for name, *_ in group]
        hint = f"; did you mean `ean {near[0]}`?" if near else "."
        sys.exit(f"ean: no command {given!r}{hint} `ean --help` lists them.")
    try:
        _run(name, targets[name], _spread_cfg_options(words[len(name.split()) :]))
    except KeyboardInterrupt:
        sys.exit(130)


def _run(name: str, target: str, arguments: list[str]) -> None:
    import typer

    module, function = target.split(":")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    try:
        app.command(name)(getattr(import_module(module), function))
        app(arguments, prog_name=f"ean {name}")
    except (ValueError, OSError, TypeError, KeyError, ImportError) as error:  # the last three of a mistyped config
        if os.environ.get("EAN_TRACEBACK"):
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        hint = "" if isinstance(error, (ValueError, OSError)) else " (EAN_TRACEBACK=1 shows where)"
        sys.exit(f"ean {name}: {text}{hint}")


def _spread_cfg_options(words: Sequence[str]) -> list[str]:
    """OpenMMLab's ``--cfg-options A=1 B=2`` with the flag in front of each pair.

    Examples:
        >>> _spread_cfg_options(['config', '--cfg-options', 'a=1', 'b=2', '--resume'])
        ['config', '--cfg-options', 'a=1', '--cfg-options', 'b=2', '--resume']
    """
    spread: list[str] = []
    position = 0
    while position < len(words):
        spread.append(words[position])
        position += 1
        if spread[-1] != "--cfg-options":
            continue
        start = position
        while position < len(words) and "=" in words[position] and not words[position].startswith("-"):
            if position > start:
                spread.append("--cfg-options")
            spread.append(words[position])
            position += 1
    return spread


def _overview() -> str:
    return (
        "ean: efficient attention networks, searched, trained and timed\n\n"
        f"usage: ean COMMAND [OPTIONS]\n\n{_listing(COMMANDS)}\n\n"
        "`ean COMMAND --help` says more. EAN_DATA names the folder of data sets, EAN_HOME that of downloads, "
        "EAN_OFFLINE=1 forbids the network, EAN_TRACEBACK=1 shows where an error came from."
    )


def _listing(commands: Sequence[tuple[str, str, str]]) -> str:
    width = max(len(name) for name, _, _ in commands)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text, _ in commands)


if __name__ == "__main__":
    main()
