"""Networks on the Hugging Face Hub: ``save_pretrained``, ``from_pretrained``, ``push_to_hub``.

The work is done by ``huggingface_hub.PyTorchModelHubMixin``, imported when one of them is called (extra ``hub``).
``config.json`` holds plain settings and ``model.safetensors`` plain tensors: nothing in a repository is executed.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ean_core.common.places import offline
from ean_core.weights.files import save_weights
from ean_core.weights.loading import load_weights

from .backbone import describe, find_backbone
from .networks import KeepsSettings, build_network, check_settings

WEIGHTS, CONFIG = "model.safetensors", "config.json"

Own = TypeVar("Own", bound="HubNetwork")


class CardSource(Protocol):
    """Where a network's own card comes from."""

    def card_for(self, network: HubNetwork) -> str | None:
        """Return the text of the card; None if it does not describe these weights."""


class HubNetwork(KeepsSettings):
    """Mixin, first among the bases of a registered network, for the Hugging Face Hub."""

    #: Hub's name of the task, for the card; None if it has none.
    pipeline: str | None = None
    #: The card of a network that someone published; others get one that is made from their settings.
    card_source: CardSource | None = None

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> str | None:
        """Write ``config.json``, ``model.safetensors`` and ``README.md`` into a folder; an existing card is kept.

        Args:
            folder: the folder, which is made if necessary.
            options: ``push_to_hub``, ``repo_id``, … of ``huggingface_hub.PyTorchModelHubMixin.save_pretrained``.

        Raises:
            ImportError: if huggingface_hub is not installed.
            OSError: if it would upload, and ``EAN_OFFLINE`` forbids it.
            ValueError: if settings cannot describe the network.
        """
        settings = checked_settings(self)
        if options.get("push_to_hub"):
            _refuse_offline(options.get("repo_id") or Path(folder).name)
        return _mixin()(self).save_pretrained(Path(folder), config=settings, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what :meth:`save_pretrained` writes, and return the address of the commit.

        Args:
            repo_id: ``OWNER/NAME``.
            options: ``private``, ``token``, ``branch``, … of ``huggingface_hub.PyTorchModelHubMixin.push_to_hub``.

        Raises:
            ImportError: if huggingface_hub is not installed.
            OSError: if ``EAN_OFFLINE`` forbids it.
            ValueError: if settings cannot describe the network.
        """
        settings = checked_settings(self)
        _refuse_offline(repo_id)
        return _mixin()(self).push_to_hub(repo_id, config=settings, **options)

    @classmethod
    def from_pretrained(cls: type[Own], source: str | os.PathLike[str], **options: Any) -> Own:
        """Load a network, in evaluation mode, from a folder of :meth:`save_pretrained` or a repository of the hub.

        Only registered networks are built, and nothing that was downloaded is executed.

        Args:
            source: the folder, or ``OWNER/NAME``.
            options: ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``.

        Raises:
            ImportError: if huggingface_hub is not installed.
            OSError: if a file cannot be obtained.
            ValueError: if its settings are not those of a network of this class, or the weights do not fit.
        """
        options["local_files_only"] = options.get("local_files_only", False) or offline()
        source = os.fspath(source)
        network = _mixin().from_pretrained(source, expected=cls, **options)
        network.__dict__.pop("_hub_mixin_config", None)  # the network tells its settings itself
        return network


def _refuse_offline(repo_id: str) -> None:
    if offline():
        raise OSError(f"EAN_OFFLINE forbids uploading to {repo_id}; unset it, or use save_pretrained")


def checked_settings(network: KeepsSettings) -> dict[str, Any]:
    """Return a network's settings, of which :meth:`HubNetwork.from_pretrained` will accept everything."""
    settings = network.settings()
    check_settings(settings, f"this {type(network).__name__}")
    return settings


def card_text(network: HubNetwork) -> str:
    """Return the text of a network's card, without the metadata in its head."""
    found = network.card_source.card_for(network) if network.card_source else None
    if found is not None:
        return found
    kind, backbone = type(network).__name__, find_backbone(network)  # type: ignore[arg-type]
    facts = describe(backbone)
    scheme, plain = backbone.scheme, not backbone.scheme.gates
    attention = "no attention" if plain else f"{facts['attention']}, connected to {scheme.connections} blocks"
    if scheme.constants:
        attention += f", and constant gates in {scheme.constants} more"
    return f"""# {kind} with {facts["type"]}-{facts["depth"]}

A residual network with {attention}, by [EAN Zoo](https://arxiv.org/abs/2011.14058).

| | |
|---|---|
| depth | {facts["depth"]} |
| attention | {"none" if plain else facts["attention"]} |
| scheme | `{facts["scheme"]}` |
| modules | {"none" if plain else "one per stage" if backbone.shared else "one per connected block"} |

{loading_code(type(network))}
"""


def loading_code(network: type) -> str:
    """Return the lines, in Markdown, that load a network of this class from its repository."""
    name = network.__name__
    return f'```py\nfrom {network.__module__} import {name}\n\nnetwork = {name}.from_pretrained("OWNER/NAME")\n```'


@cache
def _mixin() -> Any:
    """The mixin's machinery around a network, so that networks need no class of huggingface_hub as a base."""
    try:
        from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
    except ImportError as error:
        raise ImportError('this needs huggingface_hub: pip install "ean-zoo[hub]"') from error

    class OnHub(PyTorchModelHubMixin, library_name="ean-zoo", tags=["efficient-attention-network"]):
        def __init__(self, network: HubNetwork) -> None:
            self.network = network

        def _save_pretrained(self, save_directory: Path) -> None:
            network: Any = self.network
            text = json.dumps(network.settings(), sort_keys=True)
            metadata = {**describe(find_backbone(network)), "network": text, "format": "pt"}
            save_weights(network.state_dict(), save_directory / WEIGHTS, metadata)

        def generate_model_card(self, *arguments: Any, **options: Any) -> ModelCard:
            data = self._hub_mixin_info.model_card_data
            data.pipeline_tag = self.network.pipeline
            return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card_text(self.network)}")

        @classmethod
        def _from_pretrained(  # type: ignore[override]
            cls,
            *,
            model_id: str,
            expected: type[HubNetwork],
            config: Any = None,
            **options: Any,
        ) -> Any:
            path = Path(model_id, WEIGHTS)
            if not isinstance(config, dict):
                raise ValueError(f"{model_id} has no {CONFIG} with settings; save_pretrained writes it")
            if config.get("type") != expected.__name__:
                raise ValueError(
                    f"{CONFIG} of {model_id} is of type {config.get('type')!r}, not {expected.__name__!r}; load it "
                    "with the class of that name"
                )
            check_settings(config, f"{CONFIG} of {model_id}")
            if not Path(model_id).is_dir():
                path = Path(hf_hub_download(model_id, WEIGHTS, **options))
            try:
                network = build_network(config)
            except TypeError as error:  # an argument that it does not take
                raise ValueError(f"{CONFIG} of {model_id} does not fit {expected.__name__}: {error}") from error
            load_weights(network, path, strict=True)
            return network.eval()

    return OnHub
