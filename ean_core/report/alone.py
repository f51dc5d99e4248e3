"""Networks of which each was trained alone, by the groups of their schemes (Figure 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ean_core.common.config import parse_name
from ean_core.scheme import ConnectionScheme

from .results import Key, Result
from .search_figures import Sampling

METRIC = "accuracy/top1"
#: Trained schemes that a group needs, and groups that a figure needs.
FEWEST, GROUPS = 2, 2


@dataclass(frozen=True)
class SchemeGroups:
    """Schemes that are to be trained alone, as ``schemes.json`` lists them.

    Args:
        config: that each is trained by.
        groups: the different schemes of each; one may be in several.
    """

    config: str
    groups: Mapping[str, tuple[ConnectionScheme, ...]]

    @property
    def schemes(self) -> frozenset[ConnectionScheme]:
        """Those of all groups."""
        return frozenset(scheme for schemes in self.groups.values() for scheme in schemes)

    def holds(self, run: Path, folder: Path) -> bool:
        """Whether a run was made for these groups alone: ``folder`` has it under the name of a scheme."""
        return any(place.parent == folder and place.name in map(str, self.schemes) for place in (run, *run.parents))


def read_groups(record: Mapping[str, Any]) -> SchemeGroups:
    """The groups that a record lists.

    Raises:
        ValueError: if they are no lists of schemes of one network, or the config's name does not say which it is.
    """
    config, listed = record["config"], record["groups"]
    if not isinstance(config, str) or parse_name(config) is None:
        raise ValueError(f"its config is {config!r}, expected a name such as 'resnet20_se_cifar100'")
    if not isinstance(listed, Mapping) or not all(isinstance(schemes, list) for schemes in listed.values()):
        raise ValueError("its groups are expected as {'random': ['011-101-100', …], …}")
    groups = {name: tuple(dict.fromkeys(map(ConnectionScheme.parse, schemes))) for name, schemes in listed.items()}
    found = SchemeGroups(config, groups)
    if len({scheme.stages for scheme in found.schemes}) != 1:
        raise ValueError("its schemes are expected to be of one network, with equally many blocks in each stage")
    return found


@dataclass(frozen=True)
class TrainedAlone:
    """The networks of some groups' schemes that were trained and measured, all by one recipe.

    Args:
        of: the schemes listed.
        networks: one a scheme, over the seeds it was trained with.
    """

    of: SchemeGroups
    networks: Mapping[ConnectionScheme, Result]

    @classmethod
    def find(cls, of: SchemeGroups, results: Iterable[Result]) -> TrainedAlone:
        """Take, from networks of the config's data set, depth and attention, those of the recipe that most of the
        schemes were trained by (of equally common ones, the longest).

        Args:
            of: the schemes listed.
            results: of which those are left out that another config trained, or that have another scheme.
        """
        recipes: dict[Key, dict[ConnectionScheme, Result]] = {}
        for each in results:
            by_config = any(run.training["config"] == of.config for run in each.runs)
            if by_config and each.scheme in of.schemes and METRIC in each.runs[0].test["metrics"]:
                recipes.setdefault(each.runs[0].key.common, {})[each.scheme] = each
        most = max(recipes, key=lambda key: (len(recipes[key]), key.epochs, key.recipe), default=None)
        return cls(of, {} if most is None else recipes[most])

    def samples(self) -> dict[str, dict[ConnectionScheme, float]]:
        """By group: its schemes that were trained, with their test accuracies, means over seeds."""
        return {
            name: {scheme: fmean(self.networks[scheme].values(METRIC)) for scheme in schemes if scheme in self.networks}
            for name, schemes in self.of.groups.items()
        }

    @property
    def enough(self) -> bool:
        """Whether there are groups to compare."""
        return sum(len(found) >= FEWEST for found in self.samples().values()) >= GROUPS

    @property
    def sampling(self) -> Sampling:
        """What the accuracies are, for a figure."""
        listed = {name: len(schemes) for name, schemes in self.of.groups.items()}
        return Sampling("test accuracy (%)", FEWEST, listed)

    def counts(self) -> str:
        """How many of the listed schemes were trained, by group."""
        samples, listed = self.samples(), self.of.groups
        return ", ".join(f"{name} {len(samples[name])} of {len(listed[name])}" for name in listed)
