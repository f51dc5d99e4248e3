"""Accuracies of networks trained individually, grouped by where their schemes come from (Figure 4)."""

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
#: Minimum number of trained schemes per group, and of groups per figure.
FEWEST, GROUPS = 2, 2


@dataclass(frozen=True)
class SchemeGroups:
    """Schemes to be trained individually, as listed in ``schemes.json``.

    Args:
        config: config that trains each of them.
        groups: distinct schemes by group; a scheme may be in several groups.
    """

    config: str
    groups: Mapping[str, tuple[ConnectionScheme, ...]]

    @property
    def schemes(self) -> frozenset[ConnectionScheme]:
        """Schemes of all groups."""
        return frozenset(scheme for schemes in self.groups.values() for scheme in schemes)

    def holds(self, run: Path, folder: Path) -> bool:
        """Whether a run was made only for these groups, that is, lies in ``folder/SCHEME``."""
        return any(place.parent == folder and place.name in map(str, self.schemes) for place in (run, *run.parents))


def read_groups(record: Mapping[str, Any]) -> SchemeGroups:
    """Read the groups that a record lists.

    Raises:
        ValueError: if they are not lists of schemes of one network, or the config's name does not tell the network.
    """
    config, listed = record["config"], record["groups"]
    if not isinstance(config, str) or parse_name(config) is None:
        raise ValueError(f"config is {config!r}, expected a name such as 'resnet20_se_cifar100'")
    if not isinstance(listed, Mapping) or not all(isinstance(schemes, list) for schemes in listed.values()):
        raise ValueError("groups must have the form {'random': ['011-101-100', …], …}")
    groups = {name: tuple(dict.fromkeys(map(ConnectionScheme.parse, schemes))) for name, schemes in listed.items()}
    found = SchemeGroups(config, groups)
    if len({scheme.stages for scheme in found.schemes}) != 1:
        raise ValueError("all schemes must belong to one network, with the same number of blocks in each stage")
    return found


@dataclass(frozen=True)
class TrainedAlone:
    """Trained and measured networks of the listed schemes, all with one recipe.

    Args:
        of: listed schemes.
        networks: one per scheme, over the seeds it was trained with.
    """

    of: SchemeGroups
    networks: Mapping[ConnectionScheme, Result]

    @classmethod
    def find(cls, of: SchemeGroups, results: Iterable[Result]) -> TrainedAlone:
        """Select the networks trained with the recipe that covers most of the schemes (on a tie, the longest one).

        Args:
            of: listed schemes.
            results: networks of the config's data set, depth and attention; those trained by another config or with an
                unlisted scheme are ignored.
        """
        recipes: dict[Key, dict[ConnectionScheme, Result]] = {}
        for each in results:
            by_config = any(run.training["config"] == of.config for run in each.runs)
            if by_config and each.scheme in of.schemes and METRIC in each.runs[0].test["metrics"]:
                recipes.setdefault(each.runs[0].key.common, {})[each.scheme] = each
        most = max(recipes, key=lambda key: (len(recipes[key]), key.epochs, key.recipe), default=None)
        return cls(of, {} if most is None else recipes[most])

    def samples(self) -> dict[str, dict[ConnectionScheme, float]]:
        """Test accuracy of each trained scheme by group, mean over seeds."""
        return {
            name: {scheme: fmean(self.networks[scheme].values(METRIC)) for scheme in schemes if scheme in self.networks}
            for name, schemes in self.of.groups.items()
        }

    @property
    def enough(self) -> bool:
        """Whether enough groups can be compared."""
        return sum(len(found) >= FEWEST for found in self.samples().values()) >= GROUPS

    @property
    def sampling(self) -> Sampling:
        """Description of the accuracies for the figure."""
        listed = {name: len(schemes) for name, schemes in self.of.groups.items()}
        return Sampling("test accuracy (%)", FEWEST, listed)

    def counts(self) -> str:
        """Number of trained and of listed schemes per group, as text."""
        samples, listed = self.samples(), self.of.groups
        return ", ".join(f"{name} {len(samples[name])} of {len(listed[name])}" for name in listed)
