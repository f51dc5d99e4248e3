"""Models by name: build them, with or without their weights."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from ean_core.backbone import find_backbone
from ean_core.common.config import load_config
from ean_core.common.errors import unknown_name
from ean_core.hub import HubNetwork
from ean_core.networks import build_network
from ean_core.weights.addresses import BACKBONE
from ean_core.weights.files import WeightsFile
from ean_core.weights.loading import check_fit, load_weights

from .index import how_to_train, known_name, published
from .listing import get_weights
from .names import ModelName, config_of


def get_model(
    name: str,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    global_pool: str | None = None,
    features_only: bool = False,
    **backbone: Any,
) -> nn.Module:
    """Build a model by name.

    Args:
        name: a name from :func:`list_models`; without ``.DATASET``, the published one, CIFAR-100 first.
        pretrained: load its published weights, downloading them if necessary.
        num_classes: number of classes; if it differs from that of the weights, the head is newly initialized, with a
            warning; 0 for pooled features instead of logits.
        global_pool: ``''`` with ``num_classes=0`` for the last feature map, not pooled.
        features_only: build only the backbone, which returns a tuple of feature maps, one for each of its
            ``out_indices`` (all stages by default).
        backbone: arguments of :class:`ean_core.EANResNet` or :class:`ean_core.EANResNetCIFAR` that override the
            model's, such as ``out_indices``, ``frozen_stages``, ``norm_eval``, ``dilations``, and ``in_channels``, or
            ``in_chans`` as in timm: the preprocessor's mean and std are fitted to the channels. An ``init_cfg`` is
            applied at once: ``dict(type='Pretrained', checkpoint=FILE)`` loads custom weights.

    Returns:
        The network, in training mode as usual in PyTorch. A classifier maps images ``(N, C, H, W)``, as prepared by
        ``get_weights(name).transforms()``, to logits ``(N, num_classes)``.

    Raises:
        ValueError: if there is no model of that name (the message gives the nearest names), it has no weights yet (the
            message names the config that trains it), or the weights do not fit the arguments.
        OSError: if its file cannot be obtained.

    Examples:
        >>> model = get_model('full_resnet20_sge.cifar100', num_classes=10)
        >>> model.fc.out_features, str(model.backbone.scheme)
        (10, '111-111-111')
    """
    if not isinstance(pretrained, bool):
        raise ValueError(f"pretrained must be True or False, got {pretrained!r}; load custom weights with init_cfg")
    if pretrained and backbone.get("init_cfg"):
        raise ValueError("pretrained=True and init_cfg would both load weights; give one of them")
    parsed = known_name(name)
    weights = get_weights(name) if pretrained else None
    entry = published().get(parsed)
    settings = copy.deepcopy(entry.network) if entry else _settings(parsed, backbone)
    if "in_chans" in backbone:
        if "in_channels" in backbone:
            raise ValueError("in_chans and in_channels are two names of one argument; give one of them")
        backbone["in_channels"] = backbone.pop("in_chans")
    _check_arguments(settings["backbone"]["type"], backbone)
    settings["backbone"] = {**settings["backbone"], **backbone}
    if entry and "num_stages" in backbone and "scheme" not in backbone:
        settings["backbone"]["scheme"] = str(entry.scheme.leading(backbone["num_stages"]))
    _fit_channels(settings, backbone.get("in_channels"))
    trained_classes = settings.get("num_classes")
    if global_pool is not None:
        if trained_classes is None or features_only:
            raise ValueError(f"global_pool={global_pool!r} is for classifiers; remove it")
        settings["global_pool"] = global_pool
    if num_classes is not None:
        if trained_classes is None:
            raise ValueError(f"{name} is not a classifier and has no num_classes")
        if features_only:
            raise ValueError(f"features_only=True has no head for num_classes={num_classes}; remove one of them")
        settings["num_classes"] = num_classes
    if "out_indices" in backbone and not features_only and trained_classes is not None:
        raise ValueError(
            f"a classifier uses its last feature map; out_indices={backbone['out_indices']} needs features_only=True"
        )
    build = partial(MODELS.build, settings["backbone"]) if features_only else partial(build_network, settings)
    other_head = not features_only and num_classes not in (None, trained_classes)
    prefix, part = (BACKBONE if features_only or other_head else None), ("backbone" if other_head else "")
    file = WeightsFile(weights.path) if weights else None
    if file:
        check_fit(build, file, prefix, part=part)
    model: Any = build()
    if file:
        load_weights(model.get_submodule(part), file, prefix, strict=True)
    if backbone.get("init_cfg"):
        find_backbone(model).init_weights()
    if weights and not other_head and isinstance(model, HubNetwork):
        model.card_source = Card(weights.name)
    if weights and other_head and num_classes:
        print_log(
            f"{name}: the head is newly initialized for {num_classes} classes, the weights have {trained_classes}",
            "current",
            logging.WARNING,
        )
    return model


@dataclass(frozen=True)
class Card:
    """The card of a published model, for copies of its network on the Hugging Face Hub.

    Args:
        name: model name.
    """

    name: str

    def card_for(self, network: HubNetwork) -> str | None:
        """Return the card's text if the network is still the published one; None if it was trained, changed, or built
        with other arguments."""
        from .page import card  # loads Matplotlib

        published, own = get_weights(self.name), network.state_dict()  # type: ignore[attr-defined]
        there = published.state_dict()
        same = there.keys() == own.keys() and all(torch.equal(own[key].cpu(), value) for key, value in there.items())
        made: Any = build_network(published.entry.network)
        return card(published.entry, on_hub=type(network)) if same and network.settings() == made.settings() else None


def _check_arguments(kind: str, given: Mapping[str, Any]) -> None:
    """Refuse arguments that a backbone does not accept."""
    known = inspect.signature(MODELS.get(kind)).parameters
    for keyword in given:
        if keyword not in known:
            raise unknown_name(f"argument of {kind}", keyword, known)


def _fit_channels(settings: dict[str, Any], channels: int | None) -> None:
    """Give the preprocessor in ``settings`` one mean and std per input channel.

    One channel gets the mean of the trained ones; others repeat them.
    """
    preprocessor = settings.get("data_preprocessor") or {}
    for key in ("mean", "std"):
        values = preprocessor.get(key)
        if channels and values and len(values) != channels:
            mean = [sum(values) / len(values)]
            preprocessor[key] = mean if channels == 1 else [values[c % len(values)] for c in range(channels)]


def _settings(name: ModelName, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a model without weights, from the config that trains it."""
    config = config_of(name)
    if config is None or (name.settings() is None and "scheme" not in given):
        raise ValueError(f"{name} has neither weights nor a scheme on record; {how_to_train(name)}")
    model = load_config(config).model.to_dict()
    model["backbone"].update(name.settings() or {})
    return model
