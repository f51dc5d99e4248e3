"""How far a counter can be trusted on an image: its expected error, and whether the image is like the training images.

Both are measured once, after training, and travel with the weights as a few tensors under ``familiar.``: the
statistics of the last feature map over the training images, and the errors on the validation images. A file without
them, as every file of earlier versions, gives a counter that makes no claim.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from numpy.typing import NDArray
from torch import Tensor, nn

from ean_core.common.intervals import Interval, mean_interval
from ean_core.runs.folder import Run
from ean_core.weights.files import WeightsFile, add_tensors, read_state_dict
from ean_core.weights.loading import load_weights

#: Name of the submodule of a counter, and of its tensors in files.
NAME = "familiar"
#: Tensors of the statistics, and that of the errors.
STATISTICS, ERRORS = ("center", "scale", "axes", "variances", "rest", "limit"), "errors"
#: Fewer training images are too few to estimate the statistics.
LEAST_IMAGES = 20
#: An error measured on fewer validation images is not given for other images.
LEAST_MEASURED = 10
#: At most this number of training images is looked at.
MOST_IMAGES = 500
#: Share of the training images, each held out of the statistics, that is within the limit.
WITHIN = 0.98
#: Weight of the unit matrix in the covariance of the standardized features, and the number of its main axes kept.
SHRINKAGE, AXES = 0.1, 64
#: Parts that the training images are held out in.
FOLDS = 10
#: Share of the validation images with an error of at most the expected one.
COVERED = 0.68


class Errors(NamedTuple):
    """Errors on validation images.

    Args:
        share, floor: an image counted as ``c`` people is expected to be off by at most ``max(floor, share * c)``.
        mae: mean absolute error with its 95 % interval.
        images: number of validation images.
    """

    share: float
    floor: float
    mae: Interval
    images: int

    @property
    def enough(self) -> bool:
        """Whether the images are enough to expect such errors on other images, too."""
        return self.images >= LEAST_MEASURED

    def at(self, count: float) -> int | None:
        """Expected error of an image with this count, in whole people, at least 1; None if measured on too few."""
        if not self.enough:
            return None
        return max(1, math.ceil(max(self.floor, self.share * count) - 1e-6))


class Pooled:
    """Mean and standard deviation of a feature map over its positions, also if it comes in parts.

    Examples:
        >>> pooled = Pooled()
        >>> for part in torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]]).split(1):
        ...     pooled(part[None])
        >>> pooled.features.tolist()
        [4.0, 2.23606797749979]
    """

    def __init__(self) -> None:
        self._cells = 0
        self._mean = self._squares = torch.zeros((), dtype=torch.float64)

    def __call__(self, features: Tensor) -> None:
        """Add the map ``(1, C, h, w)`` of an image or a tile."""
        cells = features.shape[2] * features.shape[3]
        variance, mean = torch.var_mean(features[0].float().flatten(1), 1, correction=0)
        mean, squares = mean.double().cpu(), variance.double().cpu() * cells
        whole = self._cells + cells
        difference = mean - self._mean
        self._squares = self._squares + squares + difference**2 * (self._cells * cells / whole)
        self._mean = self._mean + difference * (cells / whole)
        self._cells = whole

    @property
    def features(self) -> Tensor:
        """Means, then standard deviations, float64 ``(2 C,)``."""
        return torch.cat([self._mean, (self._squares / self._cells).clamp_min(0).sqrt()])


class Familiar(nn.Module):
    """Statistics of the training images and errors on the validation images, as buffers; all are None at first.

    The distance of an image from the training images is that of Mahalanobis, with a shrunk covariance of the pooled
    features: exact along its main axes, with one variance for the rest.

    Its tensors are optional in every file: they are taken from a file that has them, and forgotten with one that lacks
    them, because they describe the weights beside them.

    Args:
        channels: ``C``, channels of the last feature map.
    """

    #: For :func:`ean_core.weights.loading.load_weights`: files may lack these tensors, or have more.
    optional_tensors = True
    center: Tensor | None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        for name in (*STATISTICS, ERRORS):
            self.register_buffer(name, None)

    @property
    def knows_images(self) -> bool:
        """Whether it can tell unfamiliar images."""
        return self.center is not None

    @property
    def errors_known(self) -> Errors | None:
        """The errors on validation images; None if unknown."""
        values = getattr(self, ERRORS)
        if values is None:
            return None
        share, floor, mean, low, high, images = values.tolist()
        return Errors(share, floor, Interval(mean, low, high), round(images))

    def forget(self) -> None:
        """Drop everything, because the weights change."""
        for name in (*STATISTICS, ERRORS):
            setattr(self, name, None)

    def learn(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of :func:`statistics_of` and :func:`errors_of`."""
        device = self.center.device if self.center is not None else None
        for name, value in tensors.items():
            setattr(self, name, value.to(device))

    def strangeness(self, pooled: Pooled) -> float | None:
        """Distance of an image from the training images, divided by the limit: above 1 it is unlike them.

        Returns:
            None if the statistics are unknown.
        """
        if not self.knows_images:
            return None
        tensors = [getattr(self, name).double().cpu().numpy() for name in STATISTICS]
        return float(_distances(pooled.features.numpy()[None], *tensors[:-1])[0] / tensors[-1])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Familiar:
        """Move to a device, but keep the precision: half precision cannot hold the variances."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, value in before.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        device = self.center.device if self.center is not None else None
        self.forget()
        groups: tuple[tuple[tuple[str, ...], Callable[..., bool]], ...] = (
            (STATISTICS, _statistics_fit),
            ((ERRORS,), _errors_fit),
        )
        for names, fit in groups:
            given = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
            if not given:
                continue
            if (
                len(given) < len(names)
                or not all(value.isfinite().all() for value in given.values())
                or not fit(**given)
                or ("center" in given and len(given["center"]) != 2 * self.channels)
            ):
                print_log(f"{NAME} in the file is damaged, and ignored", "current", logging.WARNING)
                continue
            for name, value in given.items():
                setattr(self, name, value.detach().to(device=device, dtype=torch.float32, copy=True))


def _statistics_fit(
    center: Tensor, scale: Tensor, axes: Tensor, variances: Tensor, rest: Tensor, limit: Tensor
) -> bool:
    shapes = axes.dim() == 2 and (*variances.shape, *center.shape) == tuple(axes.shape) and scale.shape == center.shape
    positive = all(bool((each > 0).all()) for each in (scale, variances, rest, limit))
    return shapes and rest.dim() == limit.dim() == 0 and positive


def _errors_fit(errors: Tensor) -> bool:
    return tuple(errors.shape) == (6,) and bool((errors >= 0).all()) and bool(errors[-1] >= 1)


# ---------------------------------------------------------------- measured after training


def statistics_of(features: NDArray[np.float64]) -> dict[str, Tensor]:
    """Statistics of the training images by name, float32.

    The limit is the quantile :data:`WITHIN` of the distances of training images from statistics without them.

    Args:
        features: pooled features of each training image ``(n, 2 C)``.

    Raises:
        ValueError: if there are fewer than :data:`LEAST_IMAGES` images.
    """
    if len(features) < LEAST_IMAGES:
        raise ValueError(f"expected at least {LEAST_IMAGES} training images, got {len(features)}")
    folds = np.arange(len(features)) % FOLDS
    held_out = np.empty(len(features))
    for fold in range(FOLDS):
        held_out[folds == fold] = _distances(features[folds == fold], *_fitted(features[folds != fold]))
    values = [*_fitted(features), np.quantile(held_out, WITHIN)]
    return {
        name: torch.as_tensor(np.asarray(value), dtype=torch.float32)
        for name, value in zip(STATISTICS, values, strict=True)
    }


def _fitted(features: NDArray[np.float64]) -> tuple[Any, ...]:
    """Center, scale, axes ``(k, D)``, variances ``(k,)`` along them, and the variance in all other directions."""
    center, scale = features.mean(0), features.std(0)
    scale = np.maximum(scale, 1e-3 * scale.max() + 1e-12)  # channels that hardly vary would decide alone
    standard = (features - center) / scale
    number, size = standard.shape
    # The same main axes from the smaller of the two matrices of products.
    if number < size:
        values, vectors = np.linalg.eigh(standard @ standard.T / number)
        vectors = standard.T @ vectors / np.sqrt(np.maximum(values, 1e-12) * number)
    else:
        values, vectors = np.linalg.eigh(standard.T @ standard / number)
    order = np.argsort(values)[::-1]
    order = order[values[order] > 1e-8 * max(values.max(), 1e-12)][:AXES]
    kept = values[order]
    rest = max(size - kept.sum(), 0.0) / max(size - len(kept), 1)  # standardized features have variance 1 each
    return center, scale, vectors[:, order].T, (1 - SHRINKAGE) * kept + SHRINKAGE, (1 - SHRINKAGE) * rest + SHRINKAGE


def _distances(features: NDArray[np.float64], center: Any, scale: Any, axes: Any, variances: Any, rest: Any) -> Any:
    standard = (features - center) / scale
    along = standard @ axes.T
    outside = np.maximum((standard**2).sum(1) - (along**2).sum(1), 0)
    return np.sqrt((along**2 / variances).sum(1) + outside / rest)


def errors_of(counts: Sequence[float], truths: Sequence[float]) -> dict[str, Tensor]:
    """Errors on validation images, by name, float32; see :class:`Errors`.

    Errors grow with the count: the floor is their quantile :data:`COVERED` over the third of the images with the
    fewest people, the share that of the relative errors over the others, and both are scaled to cover exactly this
    part of all images.

    Args:
        counts, truths: predicted and true number of people of each image.
    """
    counted = np.maximum(np.asarray(counts, np.float64), 0)
    errors = np.abs(np.asarray(counts, np.float64) - np.asarray(truths, np.float64))
    mae = mean_interval(list(errors))
    order = np.argsort(counted, kind="stable")
    few, many = order[: -(-len(order) // 3)], order[-(-len(order) // 3) :]
    floor = _covering(errors[few])
    share = _covering(errors[many] / np.maximum(counted[many], 1)) if len(many) else 0.0
    expected = np.maximum(floor, share * counted)
    factor = _covering(np.divide(errors, expected, out=np.where(errors > 0, np.inf, 0.0), where=expected > 0))
    factor = factor if math.isfinite(factor) else 1.0
    values = [factor * share, factor * floor, *mae, len(errors)]
    return {ERRORS: torch.tensor(values, dtype=torch.float32)}


def _covering(values: NDArray[np.float64]) -> float:
    """The smallest of the values that at least the share :data:`COVERED` of them does not exceed."""
    return float(np.sort(values)[min(math.ceil(COVERED * len(values)), len(values)) - 1])


@torch.inference_mode()
def measure(
    network: Any, training: Iterable[Mapping[str, Any]], validation: Iterable[Mapping[str, Any]]
) -> dict[str, Tensor]:
    """Measure the statistics and errors of a trained counter, by name.

    Args:
        network: counter in evaluation mode.
        training: items of the training set as whole images, with ``inputs`` ``(3, h, w)`` uint8.
        validation: items of the validation set, also with ``points``.

    Returns:
        The tensors; without the statistics if there are too few training images, without the errors if there are no
        validation images.
    """
    device = next(network.parameters()).device

    def look(item: Mapping[str, Any], pooled: Pooled | None = None) -> float:
        prepare = lambda part: network.data_preprocessor({"inputs": part.to(device).float()})["inputs"]  # noqa: E731
        return float(network.count_map(item["inputs"][None], prepare=prepare, seen=pooled).double().sum())

    found: dict[str, Tensor] = {}
    rows = []
    for item in training:
        pooled = Pooled()
        look(item, pooled)
        rows.append(pooled.features.numpy())
    if len(rows) >= LEAST_IMAGES:
        found.update(statistics_of(np.stack(rows)))
    pairs = [(look(item), len(item["points"])) for item in validation]
    if pairs:
        found.update(errors_of(*zip(*pairs, strict=True)))
    return found


def characterize(checkpoint: Path, network: Any, training: Any, validation: Any) -> dict[str, Tensor]:
    """Measure a checkpoint, and write the result into its file, in place of an earlier one.

    Args:
        checkpoint: checkpoint of the counter.
        network: network of its config, on the device to use; its weights are replaced.
        training, validation: data sets of whole images, indexed by number; at most :data:`MOST_IMAGES` training
            images, evenly spaced, are used.

    Returns:
        The tensors that were added, by name.
    """
    load_weights(network, checkpoint, strict=True)
    network.eval()
    chosen = np.unique(np.linspace(0, len(training) - 1, min(len(training), MOST_IMAGES)).round().astype(int))
    images = (training[int(number)] for number in chosen)
    found = measure(network, images, (validation[number] for number in range(len(validation))))
    add_tensors(checkpoint, {f"{NAME}.{name}": value for name, value in found.items()}, replace=f"{NAME}.")
    return found


def few_images(number: int) -> str:
    """The clause that validation images are too few; what they are too few for follows.

    Examples:
        >>> few_images(2)
        '2 validation images are too few, at least 10 are needed,'
    """
    images = "1 validation image is" if number == 1 else f"{number} validation images are"
    return f"{images} too few, at least {LEAST_MEASURED} are needed,"


def summary(tensors: Mapping[str, Tensor], training: int) -> str:
    """Describe in a line what :func:`characterize` found."""
    familiar = Familiar(len(tensors["center"]) // 2 if "center" in tensors else 0)
    familiar.learn(tensors)
    errors = familiar.errors_known
    parts = []
    if errors and not errors.enough:
        parts.append(f"{few_images(errors.images)} to know the error of a count")
    elif errors:
        parts.append(
            f"{COVERED:.0%} of {errors.images} validation images are counted within +- {errors.at(0)} people or "
            f"{errors.share:.0%}, whichever is more"
        )
    if familiar.knows_images:
        parts.append("images unlike the training images will be marked")
    else:
        parts.append(f"{training} training images are too few to tell unfamiliar images, {LEAST_IMAGES} are needed")
    return "; ".join(parts)


@HOOKS.register_module()
class FamiliarHook(Hook):
    """At the end of training, measure the chosen checkpoint on training and validation images, see :func:`measure`.

    Checkpoints saved on the way make no claim: what was measured for the weights that training started from does not
    hold for them.
    """

    priority = "LOWEST"  # after the record of the run, which does not depend on it

    def before_train(self, runner: Runner) -> None:
        averaged = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
        for module in (part for network in (runner.model, *averaged) for part in network.modules()):
            if isinstance(module, Familiar):
                module.forget()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        for key in ("state_dict", "ema_state_dict"):
            state = checkpoint.get(key) or {}
            for name in [name for name in state if f".{name}".rpartition(".")[0].endswith(f".{NAME}")]:
                del state[name]

    @master_only
    def after_train(self, runner: Runner) -> None:
        checkpoint = Run(Path(runner.work_dir)).chosen
        if any(name.startswith(f"{NAME}.") for name in read_state_dict(WeightsFile(checkpoint))):
            return  # resumed after its end
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        network = MODELS.build({key: value for key, value in runner.cfg.model.items() if key != "init_cfg"})
        network.to(next(model.parameters()).device)
        training = runner.train_dataloader.dataset
        validation = runner.val_loop.dataloader.dataset if runner.val_loop is not None else ()
        found = characterize(checkpoint, network, training, validation)
        runner.logger.info(f"{checkpoint.name}: {summary(found, len(training))}")
