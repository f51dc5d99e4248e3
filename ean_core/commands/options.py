"""What the commands have in common: options, overrides, and how an interruption ends."""

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

CfgOptions = Annotated[
    list[str] | None,
    typer.Option(help="Overrides KEY=VALUE, several after one flag: model.backbone.scheme=full train_cfg.max_epochs=5"),
]
ConfigName = Annotated[str, typer.Argument(help="A config file, or the name of a packaged config.")]
WorkDir = Annotated[Path | None, typer.Option(help="Folder of everything that is made; work_dirs/CONFIG by default.")]
Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint of the whole network, or the folder of its run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Amp = Annotated[bool, typer.Option("--amp", help="Train under bf16 autocast, on CPUs and GPUs.")]
Capture = Annotated[
    bool,
    typer.Option("--capture", help="Record iterations as CUDA graphs: for classifiers, on one NVIDIA GPU."),
]
Tensorboard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Write curves, which `tensorboard --logdir work_dirs` shows."),
]


class Launcher(str, Enum):
    """How the processes of a run were started."""

    none = "none"
    pytorch = "pytorch"
    slurm = "slurm"
    mpi = "mpi"


LauncherName = Annotated[Launcher, typer.Option(help="How several processes were started.")]


def prepare(config: str, work_dir: Path | None, cfg_options: list[str] | None) -> tuple[Config, Path]:
    """The config with its overrides, and the folder of its run."""
    cfg = load_config(config, cfg_options or ())
    return cfg, work_dir or Path("work_dirs") / str(config_name(cfg))


def use_bf16(config: Config) -> None:
    """What ``--amp`` does."""
    config.optim_wrapper.type = "Bf16OptimWrapper"


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """End an interruption by Ctrl-C with the way to go on, and exit status 130.

    Raises:
        CannotWriteError: for errors of the disk, whatever file they are of.
    """
    try:
        with writing(folder, alone=False):
            yield
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; the same command with --resume continues {folder}", err=True)
        raise typer.Exit(130) from None
