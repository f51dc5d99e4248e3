"""The index of published models: OpenMMLab's ``model-index.yml`` and the metafiles that it imports."""

from __future__ import annotations

import logging
import os
import re
import reprlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from ean_core.attention import attention_names
from ean_core.common.config import packaged_configs
from ean_core.common.places import SCHEME
from ean_core.common.plain import check_yaml
from ean_core.common.record import read_record
from ean_core.common.tasks import known_datasets
from ean_core.kinds import UnknownKindError, check_settings
from ean_core.scheme import ConnectionScheme

from .names import ModelName, config_of, trained_by

#: Folder of the packaged index.
PACKAGED = Path(__file__).resolve().parent
#: Version of the format, under ``Format Version`` in ``model-index.yml`` and metafiles; files without it are version 1.
VERSION = 1
#: Maximum size of ``model-index.yml`` or a metafile in bytes; a model takes 5,000.
MAX_SIZE = 2**22


class IndexVersionError(ValueError):
    """An index was written by a later version of this package."""


#: Ends ``Dataset`` in ``Results`` of a model whose metrics are of validation images.
VALIDATED = ", validation images"


class NoWeightsError(ValueError):
    """The model exists, but its weights have not been published."""


@dataclass(frozen=True)
class Entry:
    """The metafile entry of a published model.

    Args:
        name: model name.
        fields: its entry under ``Models`` in the metafile.
        collection: its entry under ``Collections``.
        root: folder of the index.

    Raises:
        ValueError: if a field is missing or unsafe: a file name other than the model's name with its hash, or a
            network of anything but registered modules.
    """

    name: ModelName
    fields: Mapping[str, Any]
    collection: Mapping[str, Any]
    root: Path

    def __post_init__(self) -> None:
        for key, kind in (("Metadata", Mapping), ("Network", Mapping), ("Results", list), ("Config", str)):
            if key in self.fields and not isinstance(self.fields[key], kind):
                given = type(self.fields[key]).__name__
                raise ValueError(
                    f"the entry of {self.name} in {self.root}: {key} must be a {kind.__name__.lower()}, got {given}"
                )
        # First: an entry of an unknown kind may well have other fields.
        check_settings(self.fields.get("Network", {}), f"the entry of {self.name} in {self.root}")
        needed = {"Config", "Metadata", "Results", "Weights", "Size", "SHA256", "Network", "Training Log"}
        lacking = sorted(needed - self.fields.keys()) + sorted(
            f"Metadata: {key}" for key in {"Parameters", "FLOPs", "Scheme"} - self.metadata.keys()
        )
        if lacking:
            raise ValueError(f"the entry of {self.name} in {self.root} lacks {', '.join(lacking)}")
        if not (isinstance(self.sha256, str) and re.fullmatch("[0-9a-f]{64}", self.sha256)):
            raise ValueError(f"the entry of {self.name} in {self.root}: SHA256 must be 64 hexadecimal digits")
        if self.file != file_name(self.name, self.sha256) or not isinstance(self.size, int):
            raise ValueError(
                f"the entry of {self.name} in {self.root}: expected Weights {file_name(self.name, self.sha256)} and an "
                f"integer Size, got {self.file!r} and {self.size!r}"
            )

    @property
    def metadata(self) -> Mapping[str, Any]:
        """``Metadata``: parameters, operations, scheme, training, timing."""
        return self.fields.get("Metadata", {})

    @property
    def config(self) -> str:
        """Name of the packaged config that trained it."""
        return Path(self.fields["Config"]).stem

    @property
    def network(self) -> dict[str, Any]:
        """Settings for ``MODELS.build``."""
        return dict(self.fields["Network"])

    @property
    def scheme(self) -> ConnectionScheme:
        """Connection scheme."""
        return ConnectionScheme.parse(self.metadata["Scheme"])

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics on the images of :attr:`split` by OpenMMLab's names; accuracies in percent."""
        return self.fields["Results"][0]["Metrics"]

    @property
    def split(self) -> str:
        """Images that the metrics are of: ``'test'``, or ``'validation'`` if the test images were not available."""
        return "validation" if str(self.fields["Results"][0].get("Dataset", "")).endswith(VALIDATED) else "test"

    @property
    def file(self) -> str:
        """Name of the safetensors file of the whole network."""
        return self.fields["Weights"]

    @property
    def size(self) -> int:
        """Size of the file, in bytes."""
        return self.fields["Size"]

    @property
    def sha256(self) -> str:
        """Hash of the file, in hexadecimal digits."""
        return self.fields["SHA256"]

    @property
    def packaged_file(self) -> Path:
        """Path of the file if it is included with the index."""
        return self.root / "weights" / self.file

    @property
    def records(self) -> Path:
        """Folder of the run records, ``record.json`` and ``test.json``, and the training log."""
        return self.root / "records" / str(self.name)

    def record(self, kind: str) -> Mapping[str, Any]:
        """Read one of its records: ``'record'`` (of the training) or ``'test'``."""
        return read_record(self.records / f"{kind}.json")


class Index:
    """All models of one folder.

    Args:
        root: folder with ``model-index.yml``; a folder without it is an empty index.

    Entries of unknown kinds, as from a later version or a task that is not installed, are left out with a warning.

    Raises:
        IndexVersionError: if its format is of a later version.
        ValueError: if a metafile cannot be read, an entry lacks a field, or a model is listed twice.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _head(self) -> Mapping[str, Any]:
        path = self.root / "model-index.yml"
        return read_index_file(path) if path.is_file() else {}

    @property
    def base(self) -> str | None:
        """Download address of files that are not included; None if there is none."""
        return self._head.get("Base Address")

    @cached_property
    def entries(self) -> Mapping[ModelName, Entry]:
        """Models by name, in order."""
        found: dict[ModelName, Entry] = {}
        imports = self._head.get("Import") or []
        if not (isinstance(imports, list) and all(isinstance(each, str) for each in imports)):
            raise ValueError(f"{self.root / 'model-index.yml'}: Import must be a list of metafiles, got {imports!r}")
        for metafile in imports:
            if not (self.root / metafile).resolve().is_relative_to(self.root.resolve()):
                raise ValueError(f"{self.root / 'model-index.yml'} imports {metafile}, which is outside of its folder")
            try:
                for entry in self._read(self.root / metafile):
                    if entry.name in found:
                        raise ValueError(f"{entry.name} is listed twice")
                    found[entry.name] = entry
            except IndexVersionError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                reason = str(error) if isinstance(error, ValueError) else f"is not a valid metafile ({error!r})"
                where = "" if reason.startswith(str(self.root)) else f"{self.root / metafile}: "
                raise ValueError(f"{where}{reason}") from error
        return dict(sorted(found.items()))

    def _read(self, path: Path) -> Iterator[Entry]:
        content = read_index_file(path)
        collections = {collection["Name"]: collection for collection in content.get("Collections") or ()}
        for fields in content.get("Models") or ():
            collection = collections.get(fields.get("In Collection"), {})
            try:
                yield Entry(_model_name(fields["Name"]), fields, collection, self.root)
            except UnknownKindError as error:
                _say_once(logging.WARNING, f"{path}: {reprlib.repr(fields['Name'])} is left out: {error}")


def indexes() -> list[Index]:
    """Return the indexes in order of precedence: the custom one in the folder ``EAN_ZOO_INDEX``, and the packaged one.

    Raises:
        FileNotFoundError: if ``EAN_ZOO_INDEX`` names a folder without ``model-index.yml``.
    """
    own = os.environ.get("EAN_ZOO_INDEX")
    if not own:
        return [Index(PACKAGED)]
    folder = Path(own).expanduser()
    if not (folder / "model-index.yml").is_file():
        raise FileNotFoundError(
            f"EAN_ZOO_INDEX={own}: there is no model-index.yml; `ean zoo publish --to {own}` creates one"
        )
    return [Index(folder), Index(PACKAGED)]


def published() -> dict[ModelName, Entry]:
    """Return all published models, sorted by name; the first index that has a name wins.

    An index of a later version is left out, with an error in the log.
    """
    found: dict[ModelName, Entry] = {}
    for index in reversed(indexes()):
        try:
            found.update(index.entries)
        except IndexVersionError as error:
            _say_once(logging.ERROR, f"{error}; its models are left out")
    return dict(sorted(found.items()))


def find_entry(name: str, task: str | None = None) -> Entry:
    """Find a published model by name.

    Args:
        name: its name.
        task: suggest models of this task only, by OpenMMLab's name.

    Raises:
        NoWeightsError: if it has no weights yet; the message names the config that trains it.
        ValueError: if there is no such model.
    """
    ready = [each for each in published() if task in (None, each.task)]
    parsed = known_name(name, ready)
    entry = published().get(parsed)
    if entry is None:
        same = [each for each in ready if each.task == parsed.task]
        alike = [str(each) for each in same if (each.variant, each.attention) == (parsed.variant, parsed.attention)]
        near = alike[:2] or get_close_matches(name, map(str, same), n=2, cutoff=0.5)
        hint = f". There are weights of {' and '.join(near)}" if near else ""
        raise NoWeightsError(f"{name} has no weights yet; {how_to_train(parsed)}{hint}")
    return entry


def known_name(text: str, suggested: Iterable[ModelName] | None = None) -> ModelName:
    """Parse the name of a model that is published, or that a packaged config can train.

    Without ``.DATASET`` it stands for the first data set, in the order in which reports list them, that has weights of
    this network, or else that has a config for it.

    Args:
        text: the name.
        suggested: models that an error may suggest; all by default.

    Raises:
        ValueError: if there is no such model; the message gives the nearest names.
    """
    text = text.removeprefix(SCHEME)
    ready = published()
    names = {str(name): name for name in (*ready, *trained_by())}
    if text in names:
        return names[text]
    if default := _default_name(text, names.values(), ready):
        return default
    try:
        name = ModelName.parse(text)
    except ValueError:
        name = None
    if name and config_of(name) and not (name.variant == "org" and attention_names()[name.module or ""]):
        return name
    near = get_close_matches(text, names if suggested is None else map(str, suggested), n=6, cutoff=0.5)
    near = sorted(near, key=lambda name: names[name] not in ready)[:3]
    hint = f"; did you mean {' or '.join(near)}?" if near else ","
    lists = "`ean zoo list --all` lists all" if suggested is None else "`ean zoo list` lists those with weights"
    raise ValueError(f"there is no model {text!r}{hint} {lists}")


def _default_name(text: str, names: Iterable[ModelName], ready: Container[ModelName]) -> ModelName | None:
    """Return the name that one without a data set stands for; None if there is none."""
    order = list(known_datasets())
    alike = (name for name in names if str(name).partition(".")[0] == text)
    return min(alike, key=lambda name: (name not in ready, order.index(name.dataset)), default=None)


def how_to_train(name: ModelName) -> str:
    """Describe the commands that train a model."""
    config, settings = config_of(name), name.settings()
    searched = None if settings else f"search_{config}"
    steps = [f"`ean search {searched}` finds a scheme for it"] if searched in packaged_configs() else []
    values = settings or {"scheme": "SCHEME"}
    options = " ".join(f"model.backbone.{key}={value}" for key, value in values.items() if value is not True)
    return ", ".join([*steps, f"`ean train {config} --cfg-options {options}` trains it"])


def base_of(entry: Entry) -> str | None:
    """Return the download address in the index of an entry."""
    return next((index.base for index in indexes() if index.root == entry.root), None)


def by_collection(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Group entries by the name of their collection, in order."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.name.collection, []).append(entry)
    return groups


def file_name(name: ModelName, sha256: str) -> str:
    """Return the file name of a model."""
    return f"{name}-{sha256[:8]}.safetensors"


def read_index_file(path: Path) -> Mapping[str, Any]:
    """Read ``model-index.yml`` or a metafile.

    Raises:
        IndexVersionError: if it is of a later version.
        ValueError: if it is not YAML, or too large.
    """
    status = path.stat()
    if status.st_size > MAX_SIZE:
        raise ValueError(f"{path} has {status.st_size:,} bytes; files of an index have at most {MAX_SIZE:,}")
    content = _parsed_yaml(path, status.st_mtime_ns, status.st_size)
    version = content.get("Format Version", VERSION)
    if type(version) is not int or version < 1:
        raise ValueError(f"{path}: Format Version must be an integer above 0, got {reprlib.repr(version)}")
    if version > VERSION:
        raise IndexVersionError(
            f"{path} has Format Version {version}, this version of ean-zoo reads up to {VERSION}; upgrade ean-zoo"
        )
    return content


def _model_name(text: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except ValueError as error:
        raise UnknownKindError(str(error)) from error


@cache
def _say_once(level: int, text: str) -> None:
    """Log a message; every access to the index comes here."""
    from mmengine.logging import print_log

    print_log(text, "current", level)


@lru_cache
def _parsed_yaml(path: Path, modified: int, size: int) -> Mapping[str, Any]:
    """Parse a file, cached by modification time and size, since every access to the index comes here."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_text(encoding="utf-8")
        aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=loader))
        if not aliases:
            check_yaml(text)
        content = {} if aliases else yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError from dates, and long numbers
        raise ValueError(f"{path} is not YAML: {error}") from error
    if aliases:
        raise ValueError(f"{path} has aliases, with which a few lines can expand to any size")
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must contain a mapping, got {type(content).__name__}")
    return content
