"""The command ``ean configs``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ean_core.common.config import config_root, find_config, packaged_configs, read_config, reading
from ean_core.common.plain import plain_files

if TYPE_CHECKING:
    from mmengine.config import Config


def show_configs(
    name: Annotated[str | None, typer.Argument(help="Config to print in full, with its base configs merged.")] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Execute a Python config file that is more than plain settings.")
    ] = False,
) -> None:
    """List the packaged configs, or print one as a starting point for a custom config.

    A config file is printed without executing it or importing its custom_imports.
    """
    root = config_root()
    if name is None:
        for packaged, path in packaged_configs().items():
            typer.echo(f"{path.relative_to(root).parent}/{packaged}")
    else:
        path = find_config(name)
        config = read_config(path, import_custom_modules=False) if execute else _read_without_executing(path)
        typer.echo(config.pretty_text, nl=False)


def _read_without_executing(
    path: Path, above: tuple[Path, ...] = (), known: dict[Path, Config] | None = None
) -> Config:
    """Read a config whose files are packaged ones, plain settings in Python, YAML or JSON.

    Args:
        path: file to read.
        above: files that it is a base config of.
        known: files that were read before: each is read once, however many others have it as a base config.

    Raises:
        FileNotFoundError: if a base config is missing.
        ValueError: if a file would have to be executed, or cannot be read.
    """
    import mmengine
    from mmengine.config import Config

    from ean_core.runs.settings import read_settings

    path = path.resolve()
    if path.is_relative_to(config_root().resolve()):
        return read_config(path, import_custom_modules=False)
    known = {} if known is None else known
    if path in known:
        return known[path]
    if path in above:
        raise ValueError(f"{path} is one of its own base configs")
    if path.suffix == ".py":
        with reading(path):
            text = path.read_text(encoding="utf-8")
        try:
            settings = read_settings(text)
        except ValueError as error:
            raise _not_plain(path, error) from error
    else:
        with reading(path), plain_files():
            settings = Config(mmengine.load(path))
    bases = settings.pop("_base_", [])
    merged = Config()
    for base in bases if isinstance(bases, (list, tuple)) else [bases]:
        if "::" in str(base):
            raise _not_plain(path, f"its base config {base} belongs to an installed package")
        if not (path.parent / str(base)).is_file():
            raise FileNotFoundError(f"{path}: no base config at {path.parent / str(base)}")
        merged.merge_from_dict(_read_without_executing(path.parent / str(base), (*above, path), known).to_dict())
    merged.merge_from_dict(settings.to_dict(), allow_list_keys=False)
    known[path] = merged
    return merged


def _not_plain(path: Path, reason: object) -> ValueError:
    return ValueError(
        f"{path} is more than plain settings ({reason}); `ean configs --execute {path}` executes it, which is "
        "safe only if you trust the file and its base configs"
    )
