"""Recipes told apart by name: networks of one data set and depth that were trained or measured differently."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from .results import Key, Result

#: Settings that say where a network's initial weights come from.
_WEIGHTS = ("load_from", "model.backbone.init_cfg", "model.init_cfg")
_SCHEDULE = "param_scheduler"
#: Settings and characters of a value in the note at most.
MOST, LONGEST = 6, 40


@dataclass(frozen=True)
class Recipes:
    """Names of the recipes of some networks.

    Recipes of one data set and depth have letters if they differ in more than their length, which rows state anyway.
    Initial weights do not count where each network has its own, nor does a schedule that follows from the length.

    Args:
        letters: by key, ``A``, ``B`` …; without keys of networks whose length tells their recipe.
        notes: a sentence for each data set and network with several letters.
    """

    letters: Mapping[Key, str]
    notes: Mapping[tuple[str, str], str]

    @classmethod
    def of(cls, results: Sequence[Result]) -> Recipes:
        """Name the recipes of networks, in their order."""
        groups: dict[tuple[str, str], list[Key]] = {}
        for each in results:
            groups.setdefault((each.data, each.network), []).append(each.runs[0].key)
        letters: dict[Key, str] = {}
        notes = {}
        for (data, network), keys in groups.items():
            told = _differences(keys)
            names = {settings: _letter(place) for place, settings in enumerate(dict.fromkeys(told))}
            if len(names) > 1:
                letters |= {key: names[settings] for key, settings in zip(keys, told, strict=True)}
                texts = [f"{name}: {_text(settings)}" for settings, name in names.items()]
                notes[data, network] = f"Recipes of {network} on {data}: {'; '.join(texts)}."
        return cls(letters, notes)

    def letter(self, result: Result) -> str:
        """Letter of a network's recipe; empty if its length tells the recipe."""
        return self.letters.get(result.runs[0].key, "")

    def note(self, results: Iterable[Result]) -> str:
        """Differences between the recipes of the data sets and networks of some results, in sentences."""
        places = dict.fromkeys((each.data, each.network) for each in results)
        return " ".join(self.notes[place] for place in places if place in self.notes)

    def text(self, result: Result) -> str:
        """Length and letter of a network's recipe, e.g. ``24 epochs, recipe A``."""
        letter = self.letter(result)
        return f"{result.epochs} epoch{'s' * (result.epochs != '1')}" + f", recipe {letter}" * bool(letter)


def _differences(keys: Sequence[Key]) -> list[tuple[tuple[str, str], ...]]:
    """Settings in which some keys differ, as pairs of name and value, for each key."""
    flat = [_settings(key) for key in keys]
    networks = [key._replace(recipe="", epochs=0.0, processes=0, images=0) for key in keys]
    names = [name for name in dict.fromkeys(name for each in flat for name in each) if len(_values(name, flat)) > 1]
    lengths = [str(key.epochs) for key in keys]
    names = [
        name
        for name in names
        if not (name.startswith(_WEIGHTS) and _follows(name, flat, networks))
        and not (name.startswith(_SCHEDULE) and _follows(name, flat, lengths))
    ]
    return [tuple((name, each.get(name, "default")) for name in names) for each in flat]


def _values(name: str, flat: Sequence[Mapping[str, str]]) -> set[str | None]:
    return {each.get(name) for each in flat}


def _follows(name: str, flat: Sequence[Mapping[str, str]], of: Sequence[Any]) -> bool:
    """Whether a setting's value is the same wherever ``of`` is the same."""
    return len({(other, each.get(name)) for other, each in zip(of, flat, strict=True)}) == len({*of})


def _settings(key: Key) -> dict[str, str]:
    """All settings of a recipe by their dotted names, without its length."""
    return {
        **dict(_flat("", json.loads(key.recipe))),
        "processes": str(key.processes),
        "test images": str(key.images),
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, (dict, list)) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for inner, each in items:
            yield from _flat(f"{name}.{inner}" if name else str(inner), each)
    else:
        yield name, str(value)


def _text(settings: Sequence[tuple[str, str]]) -> str:
    def short(text: str) -> str:
        text = text.replace("`", "'")
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"

    texts = [f"`{name.replace('`', chr(39))}` {short(value)}" for name, value in settings[:MOST]]
    more = len(settings) - MOST
    return ", ".join(texts) + (f" and {more} more settings" if more > 0 else "")


def _letter(place: int) -> str:
    """``A`` … ``Z``, then ``A2`` …"""
    rounds, letter = divmod(place, len(ascii_uppercase))
    return ascii_uppercase[letter] + (str(rounds + 1) if rounds else "")
