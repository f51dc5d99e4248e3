"""Names of models: ``[VARIANT_]resnetDEPTH[_ATTENTION].DATASET``, such as ``ean_resnet20_se.cifar100``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from ean_core import ATTENTION, RECORDED, ConnectionScheme, EANResNet, EANResNetCIFAR
from ean_core.attention import attention_class
from ean_core.common.config import packaged_configs, parse_name
from ean_core.common.errors import unknown_name
from ean_core.common.tasks import find_dataset, task_of_dataset

#: What stands in front of a name, and what it says of the connections.
VARIANTS: dict[str, str] = {
    "": "vanilla",
    "org": "Org-full",
    "full": "Share-full",
    "ean": "EAN",
    "best": "best accuracy regardless of cost",
}
_NAME = re.compile(
    r"(?:(?P<variant>org|full|ean|best)_)?resnet(?P<depth>\d+)(?:_(?P<attention>[a-z]+))?\.(?P<dataset>\w+)"
)


@dataclass(frozen=True, order=True)
class ModelName:
    """The parts of a model's name.

    Args:
        depth: layers of the ResNet.
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
                f"a variant ({', '.join(filter(None, VARIANTS))}) and an attention go together in a name, got "
                f"{self.variant or 'no variant'} and {self.attention or 'no attention'}; for example "
                "ean_resnet20_se.cifar100, or resnet20.cifar100 without attention"
            )

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read a name.

        Raises:
            ValueError: if it is none, or names a variant or data set that there is not.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is no model name: expected [org_|full_|ean_|best_]resnetDEPTH[_ATTENTION].DATASET, such as "
                "ean_resnet20_se.cifar100 or resnet20.cifar100"
            )
        return cls(int(match["depth"]), match["dataset"], match["variant"] or "", match["attention"] or "")

    def __str__(self) -> str:
        parts = (self.variant, f"resnet{self.depth}", self.attention)
        return "_".join(filter(None, parts)) + f".{self.dataset}"

    @property
    def collection(self) -> str:
        """What the variants and attentions of one network on one data set have in common."""
        return f"resnet{self.depth}.{self.dataset}"

    @property
    def task(self) -> str:
        """As OpenMMLab calls it."""
        return task_of_dataset(self.dataset).name

    @property
    def module(self) -> str | None:
        """The registered name of the attention module: ``SE`` for ``se``."""
        return next((name for name in ATTENTION.module_dict if name.lower() == self.attention), None)

    def settings(self) -> dict[str, object] | None:
        """What makes a config's backbone this variant; None where no scheme of it is known.

        Examples:
            >>> ModelName.parse('full_resnet20_se.cifar100').settings()
            {'scheme': 'full', 'shared': True}
            >>> ModelName.parse('best_resnet20_se.cifar100').settings()
        """
        if self.variant == "ean":
            family = EANResNet.family if self.depth in EANResNet.depths else EANResNetCIFAR.family
            recorded = RECORDED.get((family, self.depth, self.module or ""))
            return None if recorded is None else {"scheme": "ean", "shared": True}
        plain: dict[str, dict[str, object]] = {
            "": {"scheme": "none"},
            "org": {"scheme": "full", "shared": False},
            "full": {"scheme": "full", "shared": True},
        }
        return plain.get(self.variant)


def variant_of(scheme: ConnectionScheme, shared: bool) -> str:
    """The variant that a network with these connections is.

    Raises:
        ValueError: for modules that are not shared on a part of the blocks, for which there is no name.
    """
    if not scheme.connections:
        return ""
    if shared:
        return "ean" if scheme.sparsity else "full"
    if scheme.sparsity:
        raise ValueError(
            f"no name is for scheme {str(scheme)!r} with a module a block (shared=False): Org-full connects all, "
            "EAN shares its modules"
        )
    return "org"


@cache
def trained_by() -> dict[ModelName, str]:
    """The names of all networks that a packaged config trains, and those configs.

    Org-full exists for modules without a state between blocks. EAN is listed where a scheme is on record.
    """
    found: dict[ModelName, str] = {}
    for config in sorted(packaged_configs(), key=lambda config: "_se_" not in config):
        for name in _names(config):
            found.setdefault(name, config)
    return found


def config_of(name: ModelName) -> str | None:
    """The packaged config that trains a network of this depth, attention and data, whatever its connections."""
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
        if variant != "org" or not attention_class(name.module).recurrent:
            yield name
