"""Score many schemes of one supernet, sharing the computation of common prefixes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from mmengine.dist import all_reduce, broadcast_object_list, is_main_process
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ean_core.attention import State
from ean_core.backbone import Place, walk
from ean_core.classifier import ImageClassifier, label_ranks
from ean_core.common.errors import unknown_name
from ean_core.common.progress import Progress
from ean_core.inference.latency import BlockTimes, time_blocks
from ean_core.layers import join
from ean_core.scheme import ConnectionScheme

Precision = Literal["fp32", "bf16"]


class Batches(Protocol):
    """A list of batches, or an iterable that can be iterated repeatedly."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]: ...


class Evaluator(Protocol):
    """Interface between a search and the object that scores its schemes."""

    @property
    def key(self) -> Mapping[str, Any]:
        """Plain values that identify the evaluated network and data."""
        ...

    @property
    def stages(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        ...

    def evaluate(self, schemes: Sequence[ConnectionScheme]) -> list[float]:
        """Return accuracies in percent, in the order of ``schemes``."""
        ...

    def standard_error(self, accuracy: float) -> float:
        """Return the standard error, in percentage points, of an accuracy in percent."""
        ...


class SupernetEvaluator:
    """Validation accuracies of a supernet's sub-networks.

    In evaluation mode the body of block ``l`` depends only on ``a_1 … a_(l-1)``. The schemes of a call form a prefix
    tree that is walked depth-first, so a body is computed once per distinct prefix. One activation is kept per open
    branch, together with DIA's state.

    In a distributed run each process scores its part of the images: rank 0 calls :meth:`evaluate`, the other ranks
    :func:`serve`.

    Args:
        supernet: a classifier whose backbone has a module for every connection; set to evaluation mode.
        batches: ``dict(inputs=uint8 (N, C, H, W), labels=(N,))``, this process' part of the images; read on first use
            and kept. Not an iterator: timing reads the first batch separately.
        fingerprint: identifies the images of all processes, e.g. a data set's ``fingerprint``.
        precision: ``'fp32'``, or ``'bf16'`` for autocast.
        images: number of images in all processes together; those in ``batches`` if None.

    Raises:
        ValueError: if the precision is unknown, the head is not on the last stage, or there are no images.
    """

    def __init__(
        self,
        supernet: ImageClassifier,
        batches: Batches,
        fingerprint: str,
        precision: Precision = "fp32",
        images: int | None = None,
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise unknown_name("precision", precision, ("fp32", "bf16"))
        self.supernet = supernet.eval()
        self.backbone = supernet.backbone
        self.precision = precision
        self.fingerprint = fingerprint
        self.device = next(supernet.parameters()).device
        if self.backbone.out_indices[-1] + 1 != len(self.backbone.stage_blocks):
            raise ValueError(
                f"the supernet's head is on stage {self.backbone.out_indices[-1]} of out_indices="
                f"{self.backbone.out_indices}; a scheme covers all stages, so the last one must be among them"
            )
        #: Block bodies computed so far by this process, counted per batch.
        self.bodies = 0
        #: Whether scoring failed in some process, which ends it in all of them.
        self.failed = False
        self._source = batches
        self._images = images
        if images == 0:
            raise ValueError("there are no validation images to score schemes on")
        self._places = self.backbone.stages()

    @property
    def stages(self) -> tuple[int, ...]:
        return self.backbone.stage_blocks

    @cached_property
    def key(self) -> Mapping[str, Any]:
        return {
            "weights": weights_hash(self.supernet.state_dict()),
            "data": self.fingerprint,
            "precision": self.precision,
        }

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Images (uint8) and labels of this process."""
        kept = []
        reading = Progress("reading validation images", len(self._source)) if is_main_process() else nullcontext()
        with reading as progress:
            for batch in self._source:
                # Copy out of the loader processes' shared or pinned memory, which is scarce.
                kept.append((batch["inputs"].clone(), batch["labels"].clone()))
                if progress:
                    progress.advance()
        return kept

    @cached_property
    def images(self) -> int:
        """Number of validation images in all processes together.

        Raises:
            ValueError: if there are none.
        """
        images = sum(len(labels) for _, labels in self.batches) if self._images is None else self._images
        if not images:
            raise ValueError("there are no validation images to score schemes on")
        return images

    def standard_error(self, accuracy: float) -> float:
        """Return the binomial standard error of a single accuracy. Schemes are compared on the same images, so
        differences between them are more certain than these errors suggest."""
        share = accuracy / 100
        return 100 * math.sqrt(share * (1 - share) / self.images)

    def evaluate(self, schemes: Sequence[ConnectionScheme]) -> list[float]:
        """Return top-1 accuracies in percent, in the order of ``schemes``, each exactly as if scored alone.

        A scheme that is given twice is computed once.

        Raises:
            ValueError: if a scheme does not fit the supernet, or there are no images.
            RuntimeError: if scoring failed in another process.
        """
        for scheme in schemes:
            self.backbone.set_scheme(scheme)  # raises if the supernet lacks a connection
        distinct = sorted(set(schemes))
        if is_main_process():
            broadcast_object_list([(type(self).__name__, distinct)])
        error: Exception | None = None
        try:
            counts = torch.tensor(self._correct(distinct), dtype=torch.int64, device=self.device)
        except Exception as raised:
            error = raised
        # A failure must reach all processes, or the others would wait forever.
        self.failed = _any_process(error is not None, self.device)
        if error is not None:
            raise error
        if self.failed:
            raise RuntimeError("scoring schemes failed in another process; see its error message")
        all_reduce(counts)
        correct = dict(zip(distinct, counts.tolist(), strict=True))
        return [100 * correct[scheme] / self.images for scheme in schemes]

    @torch.inference_mode()
    def _correct(self, schemes: Sequence[ConnectionScheme]) -> list[int]:
        """Count this process' correctly classified images for each of the distinct ``schemes``."""
        if not schemes:
            return []
        self.backbone.set_scheme("full")
        correct = {scheme: torch.zeros((), dtype=torch.int64, device=self.device) for scheme in schemes}
        with self._autocast():
            for inputs, labels in self.batches:
                data = self.supernet.data_preprocessor({"inputs": inputs, "labels": labels})
                x = self.backbone.forward_stem(self.supernet.prepare(data["inputs"]))
                self._score(self._places, x, None, schemes, data["labels"], correct)
        return [int(count) for count in correct.values()]

    def block_times(self, images: int, rounds: int = 20) -> BlockTimes:
        """Time each part of the supernet as it is scored here, on up to ``images`` images of a validation batch."""
        self.backbone.set_scheme("full")
        batch = {name: value[:images] for name, value in next(iter(self._source)).items()}
        data = self.supernet.data_preprocessor(batch)

        def head(x: Tensor) -> Tensor:
            return label_ranks(self.supernet.head(x.float()), data["labels"])

        with self._autocast():
            return time_blocks(self.backbone, self.supernet.prepare(data["inputs"]), head, rounds=rounds)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        if self.device.type == "cuda":  # by default cuDNN convolutions use TF32
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return nullcontext()

    def _score(
        self,
        stages: Sequence[Sequence[Place]],
        x: Tensor,
        state: State,
        schemes: Sequence[ConnectionScheme],
        labels: Tensor,
        correct: dict[ConnectionScheme, Tensor],
    ) -> None:
        """Walk the remaining blocks, ``stages``, for ``schemes`` with the same prefix.

        ``x`` is the input of the first of these blocks, and ``state`` the attention state there. Where schemes
        diverge, those without the connection continue in a recursive call.
        """

        def step(place: Place, x: Tensor, state: State) -> tuple[Tensor, State]:
            nonlocal schemes
            k, i, block = place
            residual, shortcut = block.branches(x)
            self.bodies += 1
            depth = sum(self.stages[:k]) + i
            plain = [scheme for scheme in schemes if not scheme.bits[depth]]
            connected = [scheme for scheme in schemes if scheme.bits[depth]]
            if not connected:
                return join(residual, shortcut), state
            if plain:
                left = [self._places[k][i + 1 :], *self._places[k + 1 :]]
                self._score(left, join(residual, shortcut), state, plain, labels, correct)
            schemes = connected
            attention = self.backbone.attention_at(k, i)
            assert attention is not None  # the supernet is fully connected here
            residual, state = attention(residual, state)
            return join(residual, shortcut), state

        (x,) = walk(stages, x, step, state=state)
        (scheme,) = schemes
        with torch.autocast(self.device.type, enabled=False):  # bf16 logits of many classes would tie
            logits = self.supernet.head(x.float())
        correct[scheme] += (label_ranks(logits, labels) == 0).sum()  # stays on the device, without synchronization


class RecalibratedEvaluator(SupernetEvaluator):
    """Validation accuracies in fp32, with batch-norm statistics re-estimated for each scheme.

    The running statistics of a supernet come from half-connected networks, which underrates schemes with few or nearly
    all connections. Here they are re-estimated for each scheme before it is scored. Prefixes cannot share this
    computation, so it is meant for the last few tens of schemes.

    Args:
        plain: evaluator with the supernet and images; its own scores are not affected.
        calibration: batches in the format of validation batches, of *training* images as the supernet saw them; read on
            first use and kept. Every process gets all of them.
        fingerprint: identifies the calibration images.
    """

    def __init__(self, plain: SupernetEvaluator, calibration: Iterable[Mapping[str, Tensor]], fingerprint: str) -> None:
        super().__init__(plain.supernet, (), plain.fingerprint, images=plain.images)
        self._plain = plain
        self._calibration_source = calibration
        self._calibration_fingerprint = fingerprint

    @cached_property
    def key(self) -> Mapping[str, Any]:
        return {**super().key, "calibration": self._calibration_fingerprint}

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        return self._plain.batches

    @cached_property
    def _calibration(self) -> list[Tensor]:
        return [batch["inputs"].clone() for batch in self._calibration_source]

    def _correct(self, schemes: Sequence[ConnectionScheme]) -> list[int]:
        correct = []
        for scheme in schemes:
            with self._reestimated(scheme):
                correct += super()._correct([scheme])
        return correct

    @contextmanager
    def _reestimated(self, scheme: ConnectionScheme) -> Iterator[None]:
        """Set batch-norm statistics to their mean over the calibration batches under this scheme; restore on exit."""
        norms = [module for module in self.supernet.modules() if isinstance(module, _BatchNorm)]
        states = [{name: value.clone() for name, value in norm.state_dict().items()} for norm in norms]
        momenta = [norm.momentum for norm in norms]
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # cumulative mean over all batches
                norm.train()
            self.backbone.set_scheme(scheme)
            with torch.no_grad():
                for inputs in self._calibration:
                    data = self.supernet.data_preprocessor({"inputs": inputs})
                    self.backbone(self.supernet.prepare(data["inputs"]))
            self.supernet.eval()
            yield
        finally:
            for norm, state, momentum in zip(norms, states, momenta, strict=True):
                norm.load_state_dict(state)
                norm.momentum = momentum
            self.supernet.eval()
            self.backbone.set_scheme("full")


def serve(*evaluators: SupernetEvaluator) -> None:
    """Worker loop for ranks > 0: evaluate what rank 0 broadcasts, with the evaluator of the same class, until
    :func:`dismiss` is called on rank 0."""
    by_class = {type(evaluator).__name__: evaluator for evaluator in evaluators}
    while True:
        message: list[Any] = [None]
        broadcast_object_list(message)
        if message[0] is None:
            return
        name, schemes = message[0]
        by_class[name].evaluate(schemes)


def dismiss() -> None:
    """On rank 0: make the other ranks return from :func:`serve`."""
    broadcast_object_list([None])


def _any_process(failed: bool, device: torch.device) -> bool:
    flag = torch.tensor(int(failed), device=device)
    all_reduce(flag, "max")
    return bool(flag)


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over names, types, shapes and values, independent of memory format and device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
