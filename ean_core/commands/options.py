"""Shared by the commands: options, overrides, and handling of interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from mmengine.config import Config

from ean_core.common.config import config_name, load_config
from ean_core.common.errors import writing
from ean_core.common.plain import read_plain_files_only

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


class Launcher(str, Enum):
    """How the processes of a run were started."""

    none = "none"
    pytorch = "pytorch"
    slurm = "slurm"
    mpi = "mpi"


LauncherName = Annotated[Launcher, typer.Option(help="Launcher that started the processes of a distributed run.")]


def prepare(config: str, work_dir: Path | None, cfg_options: list[str] | None) -> tuple[Config, Path]:
    """Return the config with its overrides, and the folder of its run."""
    read_plain_files_only()
    cfg = load_config(config, cfg_options or ())
    return cfg, work_dir or Path("work_dirs") / str(config_name(cfg))


def use_bf16(config: Config) -> None:
    """Apply ``--amp``: use bf16 autocast."""
    config.optim_wrapper.type = "Bf16OptimWrapper"


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """On Ctrl-C, print how to resume and exit with status 130.

    Raises:
        CannotWriteError: if any file cannot be written.
    """
    try:
        with writing(folder, alone=False):
            yield
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; the same command with --resume continues {folder}", err=True)
        raise typer.Exit(130) from None
