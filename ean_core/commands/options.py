"""Shared by the commands: options, overrides, and handling of interruptions."""

from __future__ import annotations

import inspect
import pkgutil
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from enum import Enum
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from ean_core.common.choices import Format
from ean_core.common.config import config_name, load_config
from ean_core.common.errors import unknown_name, writing
from ean_core.common.output import printing, say
from ean_core.common.places import SCHEME
from ean_core.common.plain import read_plain_files_only
from ean_core.common.tasks import known_datasets
from ean_core.common.writing import check_folder

if TYPE_CHECKING:
    import torch
    from mmengine.config import Config

P = ParamSpec("P")

CfgOptions = Annotated[
    list[str] | None,
    typer.Option(help="Overrides KEY=VALUE, several per flag: model.backbone.scheme=full train_cfg.max_epochs=5"),
]
ConfigName = Annotated[
    str,
    typer.Argument(
        help="Name of a packaged config, or a config file. A Python config, and the modules that it names under "
        "custom_imports, are executed: run only files that you trust."
    ),
]
WorkDir = Annotated[Path | None, typer.Option(help="Output folder; work_dirs/CONFIG by default.")]
Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint of the whole network, or folder of its run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Amp = Annotated[bool, typer.Option("--amp", help="Train with bf16 autocast, on CPUs and GPUs.")]
Capture = Annotated[
    bool,
    typer.Option(
        "--capture", help="Capture training iterations as CUDA graphs; for classifiers on a single NVIDIA GPU."
    ),
]
Tensorboard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Write curves for `tensorboard --logdir work_dirs`."),
]


Verbose = Annotated[bool, typer.Option("--verbose", help="Print all that mmengine logs, too.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the result only; the log file stays complete.")]


class Launcher(str, Enum):
    """How the processes of a run were started."""

    none = "none"
    pytorch = "pytorch"
    slurm = "slurm"
    mpi = "mpi"


LauncherName = Annotated[Launcher, typer.Option(help="Launcher that started the processes of a distributed run.")]


Supernet = Annotated[
    Path | None, typer.Option(help="Checkpoint of the supernet; by default the config's, or the latest in work_dirs.")
]


class Dataset(str, Enum):
    """Data set of the quickstart."""

    digits = "digits"
    cifar100 = "cifar100"


class Precision(str, Enum):
    """Type of weights, images and feature maps."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.value]


class Protocol(str, Enum):
    """Number of timed forward passes per network."""

    robust = "robust"
    paper = "paper"

    @property
    def rounds(self) -> int:
        return 1000 if self is Protocol.paper else 50


def done_by(target: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Declare a command whose work another module does, which is imported only for it.

    The declared function has the arguments, options and help of the command, and its body refuses wrong arguments
    without importing anything that is slow to import. Then ``target`` is called with all arguments, those that were not
    given at their declared defaults. The options ``verbose`` and ``quiet``, if the function declares them, set the
    output meanwhile and are not passed on; other commands print no header.

    Args:
        target: ``module:function`` with the same parameters, without defaults.
    """

    def declared(check: Callable[P, None]) -> Callable[P, None]:
        signature = inspect.signature(check)

        @wraps(check)
        def command(*arguments: P.args, **options: P.kwargs) -> None:
            given = signature.bind(*arguments, **options)
            given.apply_defaults()
            flags = {name: given.arguments.pop(name) for name in ("verbose", "quiet") if name in given.arguments}
            with printing(**flags, header=bool(flags)):
                check(*arguments, **options)
                work = pkgutil.resolve_name(target)
                if "mmengine.logging" in sys.modules:  # work that logs imports it with its own module
                    import_module("ean_core.runs.terminal").restrain()
                work(**given.arguments)

        command.done_by = target  # type: ignore[attr-defined]
        return command

    return declared


def check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint, or a folder of a run, that does not exist.

    Raises:
        FileNotFoundError: if there is none; the message says how to get the file of a model of the zoo, or gives the
            nearest name in the same folder.
    """
    if path.exists():
        return
    address = path.parts[0] == SCHEME.rstrip("/")  # ean://NAME as a path is ean:/NAME
    if address or (len(path.parts) == 1 and path.suffix.removeprefix(".") in known_datasets()):
        raise FileNotFoundError(
            f"{SCHEME if address else ''}{path.name} is a model of the zoo; expected a file or the folder of a run: "
            f"`ean zoo download {path.name} --to FOLDER` gives the file, `ean zoo info {path.name}` "
            "the config and the connections to test it with"
        )
    there = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, there, n=1)
    raise FileNotFoundError(f"no checkpoint at {path}" + (f"; did you mean {path.parent / near[0]}?" if near else ""))


def check_work_dir(work_dir: Path | None, config: str) -> None:
    """Refuse a folder for output that cannot be created or written to; by default that of the config in work_dirs."""
    check_folder(work_dir or Path("work_dirs") / Path(config).stem)


def chosen_format(out: Path | None, format: Format | None) -> str:
    """Return the format to export, from ``--format`` or the suffix of ``OUT``.

    Raises:
        ValueError: if it is unknown, or is not the file's.
    """
    known = [kind.value for kind in Format]
    if out is None and format is None:
        raise ValueError(f"give a file to write, or --format with one of {', '.join(known)}")
    kind = format.value if format else out.suffix.removeprefix(".") if out else ""
    if kind not in known:
        raise unknown_name("format", kind, known)
    if out and out.suffix != f".{kind}":
        raise ValueError(f"--format {kind} needs a file like {out.stem}.{kind}, got {out.name}")
    return kind


def checked_config(config: str, cfg_options: Sequence[str] | None) -> Config:
    """Return the config with its overrides, after a check of all its entries.

    Raises:
        ValueError: if an entry is an argument that its class does not have; the message gives the nearest one.
    """
    cfg = load_config(config, cfg_options or ())
    from ean_core.runs.signatures import check_signatures  # with PyTorch, which help and refused arguments do not need

    check_signatures(cfg)
    return cfg


def prepare(config: str, work_dir: Path | None, cfg_options: list[str] | None) -> tuple[Config, Path]:
    """Return the checked config with its overrides, and the folder of its run."""
    read_plain_files_only()
    cfg = checked_config(config, cfg_options)
    return cfg, work_dir or Path("work_dirs") / str(config_name(cfg))


def use_bf16(config: Config) -> None:
    """Apply ``--amp``: use bf16 autocast."""
    config.optim_wrapper.type = "Bf16OptimWrapper"


def suggest(purpose: str, *words: object, cfg_options: Sequence[str] | None = None) -> None:
    """Print the command to run next, quoted for the shell; nothing with ``--quiet``.

    Args:
        purpose: what it does, such as ``'test it'``.
        words: words of the command.
        cfg_options: its ``--cfg-options``.

    Examples:
        >>> suggest('test it', 'ean', 'test', 'resnet20_se_digits', Path('my runs/a'), cfg_options=['model.x=[1,2]'])
        test it: ean test resnet20_se_digits 'my runs/a' --cfg-options 'model.x=[1,2]'
    """
    options = ["--cfg-options", *cfg_options] if cfg_options else []
    say(f"{purpose}: {shlex.join(map(str, (*words, *options)))}")


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """On Ctrl-C, print how to resume and exit with status 130; a run that fails before its first step leaves nothing.

    Raises:
        NotADirectoryError: if a file is in the way of the folder.
        CannotWriteError: if any file cannot be written.
    """
    from ean_core.runs.processes import starting

    try:
        with writing(folder, alone=False), starting(folder):
            yield
    except KeyboardInterrupt:
        from mmengine.dist import is_main_process

        if is_main_process():
            typer.echo(f"\ninterrupted; the same command with --resume continues {folder}", err=True)
        raise typer.Exit(130) from None
