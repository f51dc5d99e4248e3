"""Model names: ``[VARIANT_]resnetDEPTH[_ATTENTION].DATASET``, such as ``ean_resnet20_se.cifar100``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from ean_core.attention import attention_names
from ean_core.common.config import packaged_configs, parse_name
from ean_core.common.errors import unknown_name
from ean_core.common.tasks import find_dataset, task_of_dataset
from ean_core.recorded import FAMILY_DATA, IMAGENET_DEPTHS, find_recorded
from ean_core.scheme import ConnectionScheme

#: Prefixes of names, and the connections they stand for.
VARIANTS: dict[str, str] = {
    "": "vanilla",
    "org": "Org-full",
    "full": "Share-full",
    "ean": "EAN",
    "fold": "constant gates",
    "best": "best accuracy regardless of cost",
}
_NAME = re.compile(
    r"(?:(?P<variant>org|full|ean|fold|best)_)?resnet(?P<depth>\d+)(?:_(?P<attention>[a-z]+))?\.(?P<dataset>\w+)"
)


@dataclass(frozen=True, order=True)
class ModelName:
    """The parts of a model's name.

    Args:
        depth: number of layers of the ResNet.
        dataset: key of a data set, see :func:`~ean_core.common.tasks.known_datasets`.
        variant: a key of :data:`VARIANTS`.
        attention: name of the attention module in lower case; empty for ``variant=''``, the plain ResNet.

    Examples:
        >>> ModelName.parse('ean_resnet20_se.cifar100')
        ModelName(depth=20, dataset='cifar100', variant='ean', attention='se')
        >>> str(ModelName(50, 'imagenet'))
        'resnet50.imagenet'
    """

    depth: int
    dataset: str
    variant: str = ""
    attention: str = ""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown_name("variant", self.variant, VARIANTS)
        find_dataset(self.dataset)
        if bool(self.variant) != bool(self.attention):
            raise ValueError(
                f"a name has both a variant ({', '.join(filter(None, VARIANTS))}) and an attention, or neither; got "
                f"{self.variant or 'no variant'} and {self.attention or 'no attention'}; for example "
                "ean_resnet20_se.cifar100, or resnet20.cifar100 without attention"
            )

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Parse a name.

        Raises:
            ValueError: if it is not a model name, or has an unknown variant or data set.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is not a model name: expected [org_|full_|ean_|fold_|best_]resnetDEPTH[_ATTENTION].DATASET, "
                "such as ean_resnet20_se.cifar100 or resnet20.cifar100"
            )
        return cls(int(match["depth"]), match["dataset"], match["variant"] or "", match["attention"] or "")

    def __str__(self) -> str:
        parts = (self.variant, f"resnet{self.depth}", self.attention)
        return "_".join(filter(None, parts)) + f".{self.dataset}"

    @property
    def collection(self) -> str:
        """Common name of all variants and attentions of one network on one data set."""
        return f"resnet{self.depth}.{self.dataset}"

    @property
    def task(self) -> str:
        """OpenMMLab's name of the task."""
        return task_of_dataset(self.dataset).name

    @property
    def module(self) -> str | None:
        """The registered name of the attention module: ``SE`` for ``se``."""
        return next((name for name in attention_names() if name.lower() == self.attention), None)

    def settings(self) -> dict[str, object] | None:
        """Backbone settings of this variant; None if no scheme is recorded for it.

        Examples:
            >>> ModelName.parse('full_resnet20_se.cifar100').settings()
            {'scheme': 'full', 'shared': True}
            >>> ModelName.parse('best_resnet20_se.cifar100').settings()
        """
        if self.variant == "ean":
            family = "imagenet" if self.depth in IMAGENET_DEPTHS else "cifar"
            recorded = find_recorded(family, self.depth, self.module or "", self.dataset)
            if recorded is None:
                return None
            return {"scheme": "ean" if recorded.data == FAMILY_DATA[family] else f"ean:{recorded.data}", "shared": True}
        plain: dict[str, dict[str, object]] = {
            "": {"scheme": "none"},
            "org": {"scheme": "full", "shared": False},
            "full": {"scheme": "full", "shared": True},
        }
        return plain.get(self.variant)


def variant_of(scheme: ConnectionScheme, shared: bool) -> str:
    """Return the variant of a network with these connections.

    Raises:
        ValueError: for unshared modules on some of the blocks only, which have no name.
    """
    if not scheme.gates:
        return ""
    if scheme.constants:
        return "fold"
    if shared:
        return "ean" if scheme.sparsity else "full"
    if scheme.sparsity:
        raise ValueError(
            f"there is no name for scheme {str(scheme)!r} with one module per block (shared=False): Org-full connects "
            "all blocks, EAN shares its modules"
        )
    return "org"


@cache
def trained_by() -> dict[ModelName, str]:
    """Return the names of all networks that a packaged config trains, with that config.

    Org-full exists for modules without a state between blocks. EAN is listed where a scheme is on record.
    """
    found: dict[ModelName, str] = {}
    for config in sorted(packaged_configs(), key=lambda config: "_se_" not in config):
        for name in _names(config):
            found.setdefault(name, config)
    return found


def config_of(name: ModelName) -> str | None:
    """Return the packaged config that trains a network of this depth, attention and data, with any connections."""
    alike = (
        config
        for other, config in trained_by().items()
        if (other.depth, other.dataset) == (name.depth, name.dataset) and name.attention in ("", other.attention)
    )
    return next(alike, None)


def _names(config: str) -> Iterator[ModelName]:
    parts = None if config.startswith(("supernet_", "search_")) else parse_name(config)
    if parts is None:
        return
    plain = ModelName(parts.depth, parts.dataset)
    yield plain
    for variant in ("full", "org", "ean"):
        name = replace(plain, variant=variant, attention=parts.attention)
        if name.module is None or name.settings() is None:
            continue
        if variant != "org" or not attention_names()[name.module]:
            yield name
