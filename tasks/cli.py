"""The command line ``ean``: a table of commands, each imported only when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from importlib import import_module

#: Command name (one or two words), one-line help, and ``module:function``.
COMMANDS: tuple[tuple[str, str, str], ...] = (
    (
        "quickstart",
        "supernet, search, training and timing on a small data set",
        "ean_core.commands.cli:quickstart",
    ),
    ("train", "train a network or a supernet from a config", "ean_core.commands.cli:train"),
    ("search", "find where to connect attention in a supernet", "ean_core.commands.cli:search"),
    ("search compare", "compare search strategies on one supernet", "ean_core.commands.cli:compare"),
    ("search correlate", "measure how well a supernet ranks its schemes", "ean_core.commands.cli:correlate"),
    ("watch", "show the progress of a training or a search", "ean_core.commands.cli:watch"),
    ("test", "evaluate a checkpoint on test images", "ean_core.commands.cli:test"),
    ("time", "time vanilla, Share-full and EAN side by side", "ean_core.commands.cli:time"),
    ("explain", "show where decisions come from, side by side (Grad-CAM)", "tasks.options:explain"),
    ("gates", "measure per block how much attention varies over images", "ean_core.commands.cli:gates"),
    ("fold", "replace gates that hardly vary by constants, at no cost", "ean_core.commands.cli:fold"),
    ("report", "make the paper's tables and figures from run records", "ean_core.commands.cli:report"),
    ("export", "export a trained network (ONNX, pt2) or its backbone", "ean_core.commands.cli:export"),
    ("crowd prepare", "check annotated images and write density maps", "tasks.crowd_counting.cli:prepare"),
    (
        "crowd evaluate",
        "measure a counter's errors and time (Table 3)",
        "tasks.crowd_counting.cli:evaluate",
    ),
    (
        "crowd characterize",
        "store errors and known images in a counter's checkpoint",
        "tasks.crowd_counting.cli:characterize",
    ),
    (
        "crowd predict",
        "count people in images, videos or from a webcam",
        "tasks.crowd_counting.cli:predict",
    ),
    ("crowd serve", "try a counter on a local web page", "tasks.crowd_counting.cli:serve"),
    ("seg prepare", "check a VOCdevkit and write masks and lists", "tasks.segmentation.cli:prepare"),
    ("seg evaluate", "measure a segmentor's mIoU and time (Table 5)", "tasks.segmentation.cli:evaluate"),
    ("seg predict", "label the pixels of images", "tasks.segmentation.cli:predict"),
    ("zoo list", "list pretrained models", "zoo.command:list_"),
    ("zoo info", "show the details of a model", "zoo.command:info"),
    ("zoo download", "download weights for offline use", "zoo.command:download"),
    ("zoo clean", "show the cache's size, and remove unused files", "zoo.command:clean"),
    ("zoo verify", "check published files against the index", "zoo.command:verify"),
    ("zoo publish", "publish a trained network from its records", "zoo.command:publish"),
    ("zoo retime", "update the timings on a model's card", "zoo.command:retime"),
    ("zoo import", "import weights from torchvision or the paper's authors", "zoo.command:import_"),
    ("configs", "list the packaged configs, or print one", "ean_core.commands.configs:show_configs"),
)


#: A command line of each command that needs arguments, shown in its help and where one is missing or wrong.
EXAMPLES: dict[str, str] = {
    "train": "resnet20_se_digits --work-dir work_dirs/first --cfg-options train_cfg.max_epochs=5",
    "search": "search_resnet20_se_digits --supernet work_dirs/supernet_resnet20_se_digits",
    "search compare": "search_resnet20_se_digits --strategies ean,random --evaluations 30 --seeds 2",
    "search correlate": "search_resnet20_se_digits --schemes 10 --epochs 5",
    "test": "resnet20_se_digits work_dirs/resnet20_se_digits",
    "time": "resnet20_se_digits --batch 50",
    "explain": "photo.jpg --model ean_resnet20_se.cifar100",
    "gates": "resnet20_se_digits work_dirs/resnet20_se_digits",
    "fold": "resnet20_se_digits work_dirs/resnet20_se_digits",
    "report": "work_dirs --out report",
    "export": "resnet20_se_digits work_dirs/resnet20_se_digits network.onnx",
    "crowd evaluate": "resnet18_se_shanghaitech_b work_dirs/resnet18_se_shanghaitech_b",
    "crowd characterize": "resnet18_se_crowd work_dirs/resnet18_se_crowd",
    "crowd predict": "photo.jpg video.mp4 --out counted",
    "seg evaluate": "resnet20_se_voc2012 work_dirs/resnet20_se_voc2012",
    "seg predict": "photo.jpg --out segmented",
    "zoo info": "ean_resnet20_se.cifar100",
    "zoo publish": "work_dirs/resnet20_se_cifar100 resnet20_se_cifar100 --to models",
    "zoo retime": "ean_resnet20_se.cifar100 work_dirs/timing_resnet20_se_cifar100.json",
    "zoo import": "torchvision://resnet50 resnet50.safetensors",
}

#: Options that users of similar tools try, and the entry of configs to set with ``--cfg-options`` instead.
ENTRIES: dict[str, str] = {
    "--epochs": "train_cfg.max_epochs",
    "--lr": "optim_wrapper.optimizer.lr",
    "--batch": "train_dataloader.batch_size",
    "--batch-size": "train_dataloader.batch_size",
    "--seed": "randomness.seed",
}

#: Commands that users of similar tools try, and what to type instead.
INSTEAD: dict[str, str] = {
    "crowd train": "ean train resnet18_se_crowd",
    "crowd test": "ean crowd evaluate",
    "seg train": "ean train resnet20_se_voc2012",
    "seg test": "ean seg evaluate",
    "models": "ean zoo list",
    "list": "ean zoo list",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``ean`` with the process's command line, or with ``arguments``; always raises SystemExit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        sys.exit(0)
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"ean-zoo {version('ean-zoo')}")
        sys.exit(0)
    targets = {name: target for name, _, target in COMMANDS}
    # Two-word commands take precedence.
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in targets), None)
    group = [command for command in COMMANDS if command[0].startswith(f"{words[0]} ")]
    if name is None and group and (len(words) == 1 or words[1] in ("-h", "--help", "help")):
        print(_listing(group))
        sys.exit(0)
    if name is None:
        sys.exit(_no_command(" ".join(words[:2]) if group else words[0], targets, [name for name, *_ in group]))
    if " " not in name and group and len(words) > 1 and not os.path.exists(words[1]):  # noqa: PTH110  quick to import
        from difflib import get_close_matches

        seconds = [two.split()[1] for two, *_ in group]
        if get_close_matches(words[1], seconds, n=1, cutoff=0.7):
            sys.exit(_no_command(" ".join(words[:2]), [two for two, *_ in group], []))
    try:
        _run(name, targets[name], _spread_cfg_options(words[len(name.split()) :]))
    except KeyboardInterrupt:
        sys.exit(130)


def _no_command(given: str, known: Iterable[str], group: Sequence[str]) -> str:
    """The message for an unknown command, with the nearest of the known ones, or the first of its group."""
    from difflib import get_close_matches

    if given in INSTEAD:
        return f"ean: no command {given!r}; use `{INSTEAD[given]}`. `ean --help` lists all commands."
    near = get_close_matches(given, known, n=1) or group
    hint = f"; did you mean `ean {near[0]}`?" if near else "."
    return f"ean: no command {given!r}{hint} `ean --help` lists them."


def _run(name: str, target: str, arguments: list[str]) -> None:
    import logging
    from inspect import signature

    import typer

    from ean_core.common.text import VisibleRecord, visible

    logging.setLogRecordFactory(VisibleRecord)
    module, function = target.split(":")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    example = f"For example: ean {name} {EXAMPLES[name]}" if name in EXAMPLES else None
    try:
        command = getattr(import_module(module), function)
        app.command(name, epilog=example)(command)
        app(arguments, prog_name=f"ean {name}")
    except SystemExit as ended:
        if ended.code == 2:  # the arguments cannot be parsed
            hints = (*_corrections(arguments, signature(command).parameters), example)
            print(*filter(None, hints), sep="\n", end="\n" if any(hints) else "", file=sys.stderr)
        raise
    except (ValueError, OSError, TypeError, KeyError, ImportError) as error:  # the last three: mistyped configs
        if os.environ.get("EAN_TRACEBACK"):
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        hint = "" if isinstance(error, (ValueError, OSError)) else " (EAN_TRACEBACK=1 shows where)"
        sys.exit(visible(f"ean {name}: {text}{hint}", "\n"))


def _corrections(words: Sequence[str], known: Container[str]) -> Iterator[str]:
    """Say how to set with ``--cfg-options`` what the words of a command do not set.

    Args:
        words: arguments of the command.
        known: names of its parameters.

    Examples:
        >>> list(_corrections(['config', '--epochs', '2'], {'cfg_options'}))
        ['instead of --epochs, use --cfg-options train_cfg.max_epochs=2']
        >>> list(_corrections(['config', '--cfg-options', 'train_cfg.max_epochs', '2'], {'cfg_options'}))
        ['--cfg-options takes KEY=VALUE: --cfg-options train_cfg.max_epochs=2']
    """
    if "cfg_options" not in known:
        return
    for position, word in enumerate(words):
        option, equals, value = word.partition("=")
        after = next(iter(words[position + 1 :]), "-")
        value = value if equals else "VALUE" if after.startswith("-") else after
        if option in ENTRIES and option.removeprefix("--").replace("-", "_") not in known:
            yield f"instead of {option}, use --cfg-options {ENTRIES[option]}={value}"
        elif words[position - 1 : position] == ["--cfg-options"] and not equals:
            yield f"--cfg-options takes KEY=VALUE: --cfg-options {word}={value}"


def _spread_cfg_options(words: Sequence[str]) -> list[str]:
    """Expand OpenMMLab's ``--cfg-options A=1 B=2`` to one flag per pair.

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
        "ean: search, train and time efficient attention networks\n\n"
        f"usage: ean COMMAND [OPTIONS]\n\n{_listing(COMMANDS)}\n\n"
        "`ean COMMAND --help` shows details. EAN_DATA is the folder of data sets,\n"
        "EAN_HOME that of downloads; EAN_OFFLINE=1 forbids network access,\n"
        "EAN_TRACEBACK=1 shows tracebacks."
    )


def _listing(commands: Sequence[tuple[str, str, str]]) -> str:
    width = max(len(name) for name, _, _ in commands)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text, _ in commands)


if __name__ == "__main__":
    main()
