"""Find packaged configs, read configs, and override their entries.

Names of configs are checked before arguments are accepted, so mmengine is imported only where a config is read.
"""

from __future__ import annotations

import argparse
import difflib
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .plain import MAX_CONFIG, plain_files
from .tasks import dataset_of, known_datasets

if TYPE_CHECKING:
    from mmengine.config import Config

#: Top-level settings that are read where a config has them: mmengine's, and those of this package.
SETTINGS = frozenset(
    {
        *(
            "model",
            "data_preprocessor",
            "train_dataloader",
            "val_dataloader",
            "test_dataloader",
            "train_cfg",
            "val_cfg",
        ),
        *("test_cfg", "auto_scale_lr", "optim_wrapper", "param_scheduler", "val_evaluator", "test_evaluator"),
        *(
            "default_hooks",
            "custom_hooks",
            "custom_imports",
            "load_from",
            "resume",
            "launcher",
            "env_cfg",
            "log_processor",
        ),
        *("log_level", "visualizer", "default_scope", "randomness", "experiment_name", "work_dir", "runner_type"),
        *("find_unused_parameters", "sync_bn", "model_wrapper_cfg", "compile", "efficient_conv_bn_eval", "tta_model"),
        *("tta_pipeline", "image_size", "search"),
    }
)
_NAME = re.compile(r"(?:\w+_)?resnet(?P<depth>\d+)_(?P<attention>[a-z]+)_(?P<dataset>\w+)")


class NameParts(NamedTuple):
    """Parts of a config's name: ``[STAGE_]resnetDEPTH_ATTENTION_DATASET``."""

    depth: int
    attention: str
    dataset: str


def parse_name(config: str) -> NameParts | None:
    """Parse a config's name; None for names of another form.

    Examples:
        >>> parse_name('supernet_resnet20_se_cifar100')
        NameParts(depth=20, attention='se', dataset='cifar100')
        >>> parse_name('mine')
    """
    match = _NAME.fullmatch(config)
    if match is None or match["dataset"] not in known_datasets():
        return None
    return NameParts(int(match["depth"]), match["attention"], match["dataset"])


def config_name(config: Config) -> str | None:
    """Return the name of a config: its file name without suffix; None for a config built in memory.

    Examples:
        >>> config_name(load_config('resnet20_se_digits'))
        'resnet20_se_digits'
    """
    return Path(config.filename).stem if config.filename else None


def command_name(config: Config) -> str:
    """Return what names a config in a command: the name of a packaged config, otherwise the path of its file.

    Examples:
        >>> command_name(load_config('resnet20_se_digits'))
        'resnet20_se_digits'
    """
    name = config_name(config)
    packaged = name is not None and packaged_configs().get(name) == Path(config.filename)
    return name if name and packaged else config.filename or "CONFIG"


def config_root() -> Path:
    """Return the folder of packaged configs, in an installed wheel or in a checkout."""
    here = Path(__file__).resolve().parent.parent
    packaged = here / "_configs"
    return packaged if packaged.is_dir() else here.parent / "configs"


def packaged_configs() -> dict[str, Path]:
    """Return the paths of packaged configs by name, e.g. ``supernet_resnet20_se_cifar100``."""
    root = config_root()
    return {path.stem: path for path in sorted(root.rglob("*.py")) if "_base_" not in path.relative_to(root).parts}


def find_config(name: str) -> Path:
    """Return the file of a config, given its path or the name of a packaged config.

    Raises:
        FileNotFoundError: if ``name`` is a path and there is no file.
        ValueError: if there is no packaged config of that name; the message gives the closest ones.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    packaged = packaged_configs()
    if path.stem in packaged and (path.parent == Path() or packaged[path.stem].parent.match(str(path.parent))):
        return packaged[path.stem]
    if path.suffix == ".py" and path.parent != Path():
        raise FileNotFoundError(f"no config at {path}{_closest(path.stem, packaged)}")
    if path.suffix in (".py", ".json", ".yml", ".yaml"):
        raise FileNotFoundError(
            f"there is no file {path}, and no packaged config {path.stem!r}{_closest(path.stem, packaged)}"
        )
    raise ValueError(f"unknown config {name!r}{_closest(path.name, packaged)}")


def _closest(name: str, packaged: Iterable[str]) -> str:
    """The end of the message for an unknown config."""
    near = difflib.get_close_matches(name.lower(), packaged, n=2)
    return f"; did you mean {' or '.join(map(repr, near))}?" * bool(near) + (
        " `ean configs` lists them" if near else "; `ean configs` lists the packaged ones"
    )


def check_config(name: str, options: Sequence[str] = ()) -> Path:
    """Return the file of a config that is to be overridden, without reading it.

    Raises:
        FileNotFoundError, ValueError: as in :func:`load_config`, for its name and for options without ``=``.
    """
    wrong = [option for option in options if "=" not in option]
    if wrong:
        raise ValueError(f"--cfg-options takes KEY=VALUE, got {wrong[0]!r}; for example model.backbone.scheme=full")
    return find_config(name)


def load_config(name: str, options: Sequence[str] = ()) -> Config:
    """Read a config and override some of its entries.

    A Python config is executed, and the modules under ``custom_imports`` are imported.

    Args:
        name: path, or name of a packaged config.
        options: ``KEY=VALUE`` as for OpenMMLab's ``--cfg-options``, e.g. ``model.backbone.scheme=full``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or an option lacks ``=``, has an unmatched bracket, or sets a new top-level
            entry that nothing reads.
    """
    path = check_config(name, options)
    config = read_config(path)
    for option in options:
        _check_entry(option.partition("=")[0], config)
    if options:
        from mmengine.config import DictAction

        parser = argparse.ArgumentParser()
        parser.add_argument("options", nargs="+", action=DictAction)
        try:
            given = parser.parse_args([*options]).options
            _name_attention(config, given)
            config.merge_from_dict(given)
        except TypeError as error:  # an entry of what is not a dict
            raise ValueError(f"--cfg-options {' '.join(options)}: {error}") from error
        except AssertionError as error:  # DictAction's
            raise ValueError(f"--cfg-options: {error}; write lists as KEY=[A,B], quoted for the shell") from error
    with reading(path, options):
        _fit_schedules(config)
        _fit_scheme(config)
    return config


def _name_attention(config: Config, given: Iterable[str]) -> None:
    """Write an attention module given by its name as a dict, where overrides set options of it."""
    backbone: Any = (config.get("model") or {}).get("backbone") or {}
    if any(key.startswith("model.backbone.attention.") for key in given):
        kind = backbone.get("attention", "SE")
        backbone.attention = {"type": kind} if isinstance(kind, str) else kind


def _check_entry(key: str, config: Mapping[str, Any]) -> None:
    """Refuse an override whose top-level entry is neither in the config nor a setting.

    Those inside of an entry are checked by :func:`ean_core.runs.signatures.check_signatures`, once all are set.
    """
    first = key.split(".")[0]
    known = {*config, *SETTINGS}
    if first in known:
        return
    same = [f"{name}.{first}" for name, value in config.items() if isinstance(value, Mapping) and first in value]
    near = same or difflib.get_close_matches(first, known, n=1)
    hint = f"; did you mean {near[0]}{key[len(first) :]}?" if near else "; `ean configs NAME` prints a packaged config"
    raise ValueError(f"a config has no entry {first!r}{hint}")


def read_config(path: Path, *, import_custom_modules: bool = True) -> Config:
    """Read a config and its base configs. Python files are executed; YAML and JSON files hold plain values.

    Args:
        path: a ``.py``, ``.yml``, ``.yaml`` or ``.json`` file.
        import_custom_modules: whether to import the modules under ``custom_imports``.

    Raises:
        FileNotFoundError: if a base config is missing.
        ImportError: if a module that it imports is missing.
        ValueError: if it cannot be read; the message names the file at fault, which may be a base config.
    """
    from mmengine.config import Config

    with reading(path), plain_files():
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError(f"it has more than {MAX_CONFIG:,} bytes")
        return Config.fromfile(path, import_custom_modules=import_custom_modules)


@contextmanager
def reading(path: Path, options: Sequence[str] = ()) -> Iterator[None]:
    """Turn any failure while reading a config, which may be Python code, into one error."""
    if path.suffix not in (".py", ".json", ".yml", ".yaml"):
        raise ValueError(f"{path} is not a config: expected a .py, .yml or .json file")
    try:
        yield
    except ImportError as error:  # the config may need a package that is not installed
        raise ImportError(f"{path}: {error}") from error
    except FileNotFoundError:  # one of its base configs
        raise
    except Exception as error:
        mark = getattr(error, "problem_mark", None)  # of YAML errors
        line = mark.line + 1 if mark else getattr(error, "lineno", None)
        where = f", line {line}," if line else f" with {' '.join(options)}" if options else ""
        reason = getattr(error, "problem", None) or getattr(error, "msg", None) or error
        file = _file_at_fault(error, path)
        raise ValueError(f"{file}{where} cannot be read as a config: {type(error).__name__}: {reason}") from error


def _file_at_fault(error: BaseException, path: Path) -> Path:
    """Return the config, of ``path`` and its base configs, that mmengine was reading when the error occurred."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    files = [Path(frame.f_locals["filename"]) for frame in frames if frame.f_code.co_name == "_file2dict"]
    return files[-1] if files and files[-1] != path.absolute() else path


def _fit_schedules(config: Config) -> None:
    """Fill in schedule lengths from ``train_cfg``, and the maximum of OneCycleLR from the optimizer's learning rate."""
    epochs = (config.get("train_cfg") or {}).get("max_epochs")
    schedules = config.get("param_scheduler") or []
    for schedule in [schedules] if isinstance(schedules, dict) else schedules:
        length = {"OneCycleLR": "total_steps", "CosineAnnealingLR": "T_max", "PolyLR": "end"}.get(schedule["type"])
        if (
            isinstance(epochs, int)
            and epochs
            and length
            and schedule.get(length) is None
            and schedule.get("by_epoch", True)
        ):
            schedule[length] = epochs if length == "end" else epochs - schedule.get("begin", 0)
        if schedule["type"] == "OneCycleLR":
            schedule.setdefault("eta_max", config.optim_wrapper.optimizer.lr)


def _fit_scheme(config: Config) -> None:
    """Let ``scheme='ean'`` name the data set that the config trains on, if a scheme found there is on record.

    Not where ``'ean'`` means that scheme anyway: runs and checkpoints from before have ``'ean'`` in their configs.
    """
    backbone: Any = (config.get("model") or {}).get("backbone") or {}
    from mmengine.registry import MODELS

    kind: Any = MODELS.module_dict.get(str(backbone.get("type")))  # those of this package know
    if backbone.get("scheme", "ean") != "ean" or "depth" not in backbone or not hasattr(kind, "has_recorded"):
        return
    dataset = dataset_of((config.get("train_dataloader") or {}).get("dataset") or {})
    if dataset and kind.has_recorded(backbone.depth, backbone.get("attention", "SE"), dataset.key):
        backbone.scheme = f"ean:{dataset.key}"
