"""Make mmengine read YAML files and pickles as plain values, without executing anything in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

#: Maximum depth of YAML, whose parser would overflow the stack.
MAX_DEPTH = 200
#: Maximum size of a config in bytes, and of its values if each alias in YAML were written out.
MAX_CONFIG = MAX_VALUES = 2**20


@contextmanager
def plain_files() -> Iterator[None]:
    """Refuse, inside the block, large files, and YAML tags and pickles that construct Python objects.

    YAML keeps ``!!python/tuple``, which mmengine writes for tuples.
    """
    from mmengine.fileio.handlers import file_handlers

    from .handlers import SmallJson, SmallYaml

    before = dict(file_handlers)
    read_plain_files_only()
    file_handlers.update(dict.fromkeys(("yml", "yaml"), SmallYaml()), json=SmallJson())
    try:
        yield
    finally:
        file_handlers.update(before)


def read_plain_files_only() -> None:
    """As :func:`plain_files`, for the rest of the process: data sets read their annotation files when they are used."""
    from mmengine.fileio.handlers import file_handlers

    from .handlers import PlainPickle, PlainYaml

    file_handlers.update(dict.fromkeys(("yml", "yaml"), PlainYaml()))
    file_handlers.update(dict.fromkeys(("pkl", "pickle"), PlainPickle()))


class _PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, with tuples."""


def _refuse(loader: Any, node: Any) -> None:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    problem = f"the tag {tag} is refused: tags that construct Python objects would execute code"
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_PlainLoader.add_constructor(None, _refuse)
_PlainLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True))
)


def parsed_yaml(text: str) -> Any:
    """Parse YAML of plain values and tuples; raises as :func:`check_yaml`, and for other tags."""
    check_yaml(text)
    return yaml.load(text, Loader=_PlainLoader)


def check_yaml(text: str) -> None:
    """Refuse YAML that is nested too deeply or in itself, or that aliases expand to too many values.

    Raises:
        ValueError: with the reason.
        yaml.YAMLError: if it is not YAML.
    """
    values = 0
    sizes: dict[str | None, int] = {}  # by anchor
    open_: list[tuple[str | None, int]] = []  # anchor, and number of values before
    for event in yaml.parse(text, Loader=_PlainLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, values))
            values += 1
            if len(open_) > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor] = values - before
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_):
                raise ValueError(f"the alias *{event.anchor} contains itself")
            values += sizes.get(event.anchor, 1)
            if values > MAX_VALUES:
                raise ValueError(f"its aliases expand to more than {MAX_VALUES:,} values")
