"""Scoring many schemes of one supernet by the prefixes they share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ean_core.attention import State
from ean_core.backbone import join
from ean_core.classifier import ImageClassifier, label_ranks
from ean_core.errors import unknown_name
from ean_core.scheme import ConnectionScheme

Precision = Literal["fp32", "bf16"]


class Evaluator(Protocol):
    """What a search needs of whatever scores its schemes."""

    @property
    def key(self) -> Mapping[str, Any]:
        """Plain values that identify what is evaluated, on which data."""
        ...

    @property
    def stages(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        ...

    def evaluate(self, schemes: Sequence[ConnectionScheme]) -> list[float]:
        """Accuracies in percent, in the order of ``schemes``."""
        ...


class SupernetEvaluator:
    """Validation accuracies of a supernet's sub-networks.

    In evaluation mode the body of block ``l`` depends on ``a_1 … a_(l-1)`` only. The schemes of a call are walked
    depth-first as the prefix tree they form, so that a body is computed once for each distinct prefix; the
    activations kept are one for each open branch, and DIA's state belongs to the prefix like the activation.

    Args:
        supernet: a classifier whose backbone holds a module for every connection; set to evaluation mode.
        batches: ``dict(inputs=uint8 (N, C, H, W), labels=(N,))``, read once and kept.
        fingerprint: identifies the images, e.g. a data set's ``fingerprint``.
        precision: ``'fp32'``, or ``'bf16'`` for autocast.

    Raises:
        ValueError: if there are no images, the precision is unknown, or the head does not sit on the last stage.
    """

    def __init__(
        self,
        supernet: ImageClassifier,
        batches: Iterable[Mapping[str, Tensor]],
        fingerprint: str,
        precision: Precision = "fp32",
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise unknown_name("precision", precision, ("fp32", "bf16"))
        self.supernet = supernet.eval()
        self.backbone = supernet.backbone
        self.precision = precision
        self.fingerprint = fingerprint
        self.device = next(supernet.parameters()).device
        # Copies leave the shared or pinned memory of loader processes, of which there is little.
        self._batches = [(batch["inputs"].clone(), batch["labels"].clone()) for batch in batches]
        #: Number of validation images.
        self.images = sum(len(labels) for _, labels in self._batches)
        if self.backbone.out_indices[-1] + 1 != len(self.backbone.stage_blocks):
            raise ValueError(
                f"the supernet's head sits on stage {self.backbone.out_indices[-1]} of out_indices="
                f"{self.backbone.out_indices}; a scheme covers all stages, so the last one must be among them"
            )
        if not self.images:
            raise ValueError("there are no validation images to score schemes on")
        #: Block bodies computed so far, over one batch each.
        self.bodies = 0
        self._blocks = list(self.backbone.blocks())

    @property
    def stages(self) -> tuple[int, ...]:
        return self.backbone.stage_blocks

    @property
    def key(self) -> dict[str, Any]:
        """Hash of the weights, of the data, and the precision."""
        return {
            "weights": weights_hash(self.supernet.state_dict()),
            "data": self.fingerprint,
            "images": self.images,
            "precision": self.precision,
        }

    @torch.inference_mode()
    def evaluate(self, schemes: Sequence[ConnectionScheme]) -> list[float]:
        """Top-1 accuracies in percent, in the order of ``schemes``; one that is given twice is computed once.

        Raises:
            ValueError: if a scheme does not fit the supernet.
        """
        for scheme in schemes:
            self.backbone.set_scheme(scheme)  # refuses what the supernet cannot do
        self.backbone.set_scheme("full")
        distinct = sorted(set(schemes))
        correct = dict.fromkeys(distinct, 0)
        autocast = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with autocast:
            for inputs, labels in self._batches:
                data = self.supernet.data_preprocessor({"inputs": inputs, "labels": labels})
                x = self.backbone.forward_stem(self.supernet.prepare(data["inputs"]))
                self._walk(0, x, None, distinct, data["labels"], correct)
        return [100 * correct[scheme] / self.images for scheme in schemes]

    def _walk(
        self,
        depth: int,
        x: Tensor,
        state: State,
        schemes: Sequence[ConnectionScheme],
        labels: Tensor,
        correct: dict[ConnectionScheme, int],
    ) -> None:
        """Go on from the input ``x`` of block ``depth``, which all ``schemes`` share."""
        if depth == len(self._blocks):
            (scheme,) = schemes
            with torch.autocast(self.device.type, enabled=False):  # bf16 logits of many classes tie
                logits = self.supernet.head(x.float())
            correct[scheme] += int((label_ranks(logits, labels) == 0).sum())
            return
        k, i, block = self._blocks[depth]
        if i == 0:
            state = None
        residual, shortcut = block(x)
        self.bodies += 1
        plain = [scheme for scheme in schemes if not scheme.bits[depth]]
        if plain:
            self._walk(depth + 1, join(residual, shortcut), state, plain, labels, correct)
        connected = [scheme for scheme in schemes if scheme.bits[depth]]
        if connected:
            attention = self.backbone.attention_at(k, i)
            assert attention is not None  # the supernet is fully connected here
            residual, state = attention(residual, state)
            self._walk(depth + 1, join(residual, shortcut), state, connected, labels, correct)


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, independent of memory order and device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
