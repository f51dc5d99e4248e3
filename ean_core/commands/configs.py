"""The command ``ean configs``."""

from __future__ import annotations

from typing import Annotated

import typer
from mmengine.config import Config

from ean_core.common.config import config_root, find_config, packaged_configs


def show_configs(
    name: Annotated[str | None, typer.Argument(help="Config to print in full, with its base configs merged.")] = None,
) -> None:
    """List the packaged configs, or print one as a starting point for a custom config."""
    if name is None:
        root = config_root()
        for packaged, path in packaged_configs().items():
            typer.echo(f"{path.relative_to(root).parent}/{packaged}")
    else:
        typer.echo(Config.fromfile(find_config(name)).pretty_text, nl=False)
