"""Read the settings that mmengine writes into checkpoints, without executing anything."""

from __future__ import annotations

import ast
from typing import Any

from mmengine.config import Config

#: Maximum length of settings in characters; those of a large config have 20,000.
MAX_LENGTH = 2**20


def read_settings(text: str) -> Config:
    """Read a config as mmengine writes it into checkpoints: literals and ``dict(...)``; nothing is executed.

    Raises:
        ValueError: if it contains anything else.

    Examples:
        >>> read_settings("model = dict(type='A', sizes=[1, 2])").model.sizes
        [1, 2]
        >>> read_settings("a = print('hello')")
        Traceback (most recent call last):
        ...
        ValueError: settings must be literals and dict(...), found print('hello')
    """
    if len(text) > MAX_LENGTH:  # a parsed character can take 100 bytes
        raise ValueError(f"settings have at most {MAX_LENGTH:,} characters, these have {len(text):,}")
    try:
        return _settings(text)
    except RecursionError as error:
        raise ValueError(f"settings must be literals and dict(...), these are nested too deeply: {error}") from error


def _settings(text: str) -> Config:
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, MemoryError) as error:  # the last one from deep nesting
        raise ValueError(f"settings must be literals and dict(...), this is not Python: {error}") from error
    settings = {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                settings[name] = _literal(value)
            case _:
                raise ValueError(f"settings must be literals and dict(...), found {ast.unparse(statement)}")
    return Config(settings)


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=entries) if all(entry.arg for entry in entries):
            return {entry.arg: _literal(entry.value) for entry in entries}
        case ast.Call(func=ast.Name(id="dict"), args=[ast.Dict() as entries], keywords=[]):
            # Keys that are not identifiers.
            return _literal(entries)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            named = [_literal(key) for key in keys if key is not None]
            contents = [_literal(value) for value in values]
            try:
                return dict(zip(named, contents, strict=True))
            except TypeError:
                raise ValueError(f"settings must have strings or numbers as keys, found {ast.unparse(node)}") from None
        case ast.List(elts=parts):
            return [_literal(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_literal(part) for part in parts)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):  # the latter from unhashable keys
        raise ValueError(f"settings must be literals and dict(...), found {ast.unparse(node)}") from None
