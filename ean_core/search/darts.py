"""Find a scheme by gradient descent: one relaxed gate per block, trained alternately with the weights.

"DARTS: Differentiable Architecture Search", Liu et al., ICLR 2019, in its first-order form (``xi = 0``), on the
connections of "Efficient Attention Network: Accelerate Attention by Searching Where to Plug", Huang et al.,
arXiv 2011.14058 (Table 4).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ean_core.attention import State
from ean_core.backbone import Place, walk
from ean_core.classifier import ImageClassifier
from ean_core.common.config import config_name
from ean_core.common.errors import unknown_name
from ean_core.common.record import read_record, write_record
from ean_core.inference.latency import BlockTimes
from ean_core.layers import join
from ean_core.runs.folder import check_same_network
from ean_core.runs.training import run_training
from ean_core.scheme import ConnectionScheme
from ean_core.weights.files import WeightsFile, read_state_dict
from ean_core.weights.loading import load_weights

from .evaluator import weights_hash
from .strategy import Evaluation, Strategy

#: Blocks with a gate above this are connected in the final scheme.
THRESHOLD = 0.5
#: File of the result, next to those of the run.
RECORD = "darts.json"


@dataclass(frozen=True)
class DartsSettings:
    """Settings in a config's ``search.strategy`` besides ``type='darts'``.

    Args:
        epochs: epochs over the training images; each iteration takes one step of the weights and one of the alphas.
        lr: learning rate of the weights, which are already trained: low, and constant, because they follow the gates
            to the end. The rest of the optimizer is the supernet's. 0 keeps the weights.
        alpha_lr: learning rate of the alphas (Adam). A step moves an alpha by about this much if its gradients agree:
            with 0.01, the 300 iterations of an epoch of CIFAR-100 can move a gate from 1/2 to 0.95. DARTS uses 3e-4,
            for its 50 epochs from scratch.
        penalty: weight of the expected cost in the loss of the alphas, see :class:`RelaxedClassifier`.

    Raises:
        ValueError: if a value is out of range.
    """

    epochs: int = 10
    lr: float = 0.01
    alpha_lr: float = 0.01
    penalty: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(
                f"epochs of darts must be an integer of at least 1, got {self.epochs!r}; for example epochs=10"
            )
        for name in ("lr", "alpha_lr", "penalty"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(
                    f"{name} of darts must be a finite number of at least 0, got {value!r}; for example {name}=0.01"
                )

    @classmethod
    def read(cls, strategy: Mapping[str, Any]) -> DartsSettings:
        """Read the settings in ``dict(type='darts', ...)``; defaults for a strategy of another type.

        Raises:
            ValueError: for an unknown setting; the message lists the known ones.
        """
        if strategy.get("type") != "darts":
            return cls()
        given = {name: value for name, value in strategy.items() if name != "type"}
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise unknown_name("setting of darts", name, known)
        return cls(**given)


def run_darts(
    config: Config, supernet: Path, work_dir: Path, *, times: BlockTimes | None = None, resume: bool = False
) -> ConnectionScheme:
    """Fine-tune a supernet with relaxed gates and derive the scheme from them; writes ``darts.json`` into ``work_dir``.

    The weights are trained on the training images of the config, the alphas on its validation images, with the same
    batch size. No validation accuracy is measured, since the gates are trained on those images.

    Args:
        config: search config: a supernet's, with a ``search`` section. It is not modified.
        supernet: the supernet's checkpoint.
        work_dir: folder for logs, checkpoints and records.
        times: costs of connections, for a penalty on latency; if None, all connections cost the same.
        resume: continue after the last finished epoch, if there is one. The result is the same as without the
            interruption; more ``epochs`` than before extend the run.

    Raises:
        FileExistsError: if ``work_dir`` holds a run and ``resume`` is not set.
        ValueError: for unknown settings, a checkpoint or times of another network, a run in ``work_dir`` with other
            settings, or several processes.
    """
    if get_world_size() > 1:
        raise ValueError(f"darts trains in one process, not in {get_world_size()}; start it without --launcher")
    config = copy.deepcopy(config)
    settings = DartsSettings.read(config.search.strategy)
    checkpoint = WeightsFile(supernet)
    check_same_network(checkpoint, config)
    config.model.update(
        type="RelaxedClassifier",
        # The hash prevents resuming with a supernet that was trained again.
        supernet={"checkpoint": str(supernet), "weights": weights_hash(read_state_dict(checkpoint))},
        penalty=settings.penalty,
        costs=list(times.connections) if times else None,
    )
    weights = config.optim_wrapper
    weights.optimizer.lr = settings.lr
    adam = {"type": "Adam", "lr": settings.alpha_lr, "betas": (0.5, 0.999), "weight_decay": 1e-3}  # as in DARTS
    config.optim_wrapper = {
        "constructor": "AlternatingOptimizers",
        "weights": weights,
        "alphas": {"type": weights.get("type", "OptimWrapper"), "optimizer": adam},
    }
    config.param_scheduler = []
    config.train_cfg.max_epochs = settings.epochs
    validation = copy.deepcopy(config.val_dataloader)
    validation.batch_size = config.train_dataloader.batch_size
    validation.sampler.shuffle = True
    config.default_hooks.scheme = {"type": "GateHook", "dataloader": validation}  # in place of random schemes
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    run_training(config, work_dir, resume=resume)
    return ConnectionScheme.parse(read_record(work_dir / RECORD)["scheme"])


@MODELS.register_module()
class RelaxedClassifier(ImageClassifier):
    """A classifier with ``g_l = sigmoid(alpha_l)`` for Eqn 4's ``a_l``: block ``l`` adds ``f + g_l (M(f) - f)``.

    The state of a stage, which only DIA has, is relaxed likewise: ``s + g_l (s' - s)``, from 0 at the stage's start. An
    unconnected block does not change it, so the network with all gates 0 or 1 is exactly the scheme's.
    ``with_cp`` of the backbone has no effect here.

    Args:
        backbone, num_classes: see :class:`ImageClassifier`; the backbone needs a module for every connection.
        supernet: ``dict(checkpoint=...)``, the source of all initial weights; the alphas start at 0.
        penalty: weight of the expected cost ``sum_l g_l t_l / sum_l t_l``, in ``[0, 1]``, in the loss of the alphas.
        costs: ``t_l``, one per block: seconds that connecting it takes. If None, all are equal, and the expected cost
            is the expected share of connections.
        options: options of :class:`ImageClassifier`.

    Raises:
        ValueError: if the backbone lacks attention modules, or there is not one cost per block.
    """

    def __init__(
        self,
        backbone: Any,
        num_classes: int,
        *,
        supernet: Mapping[str, str] | None = None,
        penalty: float = 0.0,
        costs: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, num_classes, **options)
        self.backbone.set_scheme("full")
        blocks = sum(self.backbone.stage_blocks)
        if costs is not None and (len(costs) != blocks or min(costs) < 0 or not sum(costs)):
            raise ValueError(f"costs must be {blocks} non-negative times, one per block, not all 0; got {list(costs)}")
        self.supernet = supernet
        self.penalty = penalty
        self.alphas = nn.Parameter(torch.zeros(blocks))
        relative = torch.ones(blocks) if costs is None else torch.tensor(costs)
        self.register_buffer("costs", relative / relative.sum(), persistent=False)
        self.costs: Tensor

    @property
    def gates(self) -> Tensor:
        """``(m,)``, in ``[0, 1]``; initially 1/2."""
        return self.alphas.sigmoid()

    @property
    def scheme(self) -> ConnectionScheme:
        """The scheme that connects the blocks with a gate above the threshold."""
        bits = (self.gates > THRESHOLD).int()
        return ConnectionScheme(self.backbone.stage_blocks, tuple(bits.tolist()))

    def init_weights(self) -> None:
        """Load the supernet's weights.

        Raises:
            ValueError: if the checkpoint does not contain all of them.
        """
        if self.supernet is None:
            super().init_weights()
            return
        for prefix, module in (("backbone.", self.backbone), ("fc.", self.fc)):
            load_weights(module, self.supernet["checkpoint"], prefix, strict=True)

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Tensor | dict[str, Tensor]:
        """Classify normalized images ``(N, C, H, W)`` with the current gates.

        Returns:
            Logits ``(N, num_classes)`` in mode ``tensor``, the cross-entropy with ``labels`` ``(N,)`` in mode ``loss``.

        Raises:
            ValueError: for mode ``predict``; use a network with the resulting scheme for predictions.
        """
        if mode not in ("tensor", "loss"):
            raise unknown_name("mode of a relaxed network", mode, ("tensor", "loss"))
        gates = iter(self.gates)

        def step(place: Place, x: Tensor, state: State) -> tuple[Tensor, State]:
            k, i, block = place
            residual, shortcut = block.branches(x)
            attention = self.backbone.attention_at(k, i)
            assert attention is not None  # the backbone is fully connected
            residual, state = attention(residual, state, next(gates))
            return join(block.drop(residual), shortcut), state

        (x,) = walk(self.backbone.stages(), self.backbone.forward_stem(self.prepare(inputs)), step)
        logits = self.head(x)
        if mode == "tensor":
            return logits
        if labels is None:
            raise ValueError(f"mode={mode!r} needs labels")
        return {"loss": F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)}

    def train_step(self, data: Mapping[str, Tensor], optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Take one step of the weights on a training batch; the alphas are unchanged."""
        return super().train_step(data, optim_wrapper["weights"])

    def alpha_step(self, data: Mapping[str, Tensor], optim_wrapper: OptimWrapperDict) -> Tensor:
        """Take one step of the alphas on a validation batch and return the loss before it; weights and buffers are
        unchanged.

        Batch norms use batch statistics, as in DARTS, so a gate gains nothing from a rescaling that the next norm
        undoes. Their running statistics are updated by training images only.
        """
        alphas = optim_wrapper["alphas"]
        with alphas.optim_context(self), _statistics_kept(self):
            loss = self(**self.data_preprocessor(data, True), mode="loss")["loss"]
        loss = loss + self.penalty * self.gates @ self.costs
        alphas.zero_grad()  # the weights' step also accumulated gradients here
        alphas.backward(loss, inputs=[self.alphas])
        alphas.step()
        return loss.detach()


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class AlternatingOptimizers:
    """Build a :class:`RelaxedClassifier`'s two optimizers: ``weights``, for all its modules, and ``alphas``.

    Args:
        optim_wrapper_cfg: an OpenMMLab optimizer config for each of the two.
        paramwise_cfg: not used; ``optim_wrapper_cfg['weights']`` may have one.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: None = None) -> None:
        self.configs = optim_wrapper_cfg

    def __call__(self, model: RelaxedClassifier) -> OptimWrapperDict:
        parts = {"weights": nn.ModuleDict(model.named_children()), "alphas": nn.ParameterList([model.alphas])}
        wrappers: dict[str, OptimWrapper] = {
            name: build_optim_wrapper(part, self.configs[name]) for name, part in parts.items()
        }
        return OptimWrapperDict(**wrappers)


@HOOKS.register_module()
class GateHook(Hook):
    """Step the alphas before each step of the weights, and write ``darts.json`` at the end.

    Validation images are reshuffled in each pass, and each epoch starts a new pass, so the batch is a function of
    seed, epoch and iteration. The gates of past epochs are kept in the checkpoints.

    Args:
        dataloader: config of the data loader for the validation images.
    """

    KEY = "gates"

    def __init__(self, dataloader: Mapping[str, Any]) -> None:
        self.dataloader = dataloader

    def before_train(self, runner: Runner) -> None:
        self._loader = Runner.build_dataloader(self.dataloader, seed=runner.seed)
        self._trained = False

    def before_train_epoch(self, runner: Runner) -> None:
        self._batches = self._passes(runner.epoch * -(-len(runner.train_dataloader) // len(self._loader)))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        loss = runner.model.alpha_step(next(self._batches), runner.optim_wrapper)
        runner.message_hub.update_scalar("train/validation_loss", loss)

    def after_train_epoch(self, runner: Runner) -> None:
        self._trained = True
        gates = runner.model.gates.tolist()
        runner.message_hub.update_info(self.KEY, [*runner.message_hub.runtime_info.get(self.KEY, []), gates])
        runner.logger.info(
            f"scheme from gates: {runner.model.scheme}; gates: {' '.join(f'{gate:.2f}' for gate in gates)}"
        )

    def after_train(self, runner: Runner) -> None:
        path = Path(runner.work_dir) / RECORD
        if not self._trained and path.exists():
            return  # resumed after its end: the record exists
        scheme = runner.model.scheme
        write_record(
            path,
            kind="darts",
            config=config_name(runner.cfg),
            supernet=runner.model.supernet["checkpoint"],
            weights=runner.model.supernet["weights"],
            seed=runner.seed,
            settings=asdict(DartsSettings.read(runner.cfg.search.strategy)),
            costs=runner.model.costs.tolist(),
            scheme=str(scheme),
            connections=scheme.connections,
            alphas=runner.model.alphas.tolist(),
            gates=runner.message_hub.get_info(self.KEY),
        )

    def _passes(self, first: int) -> Iterator[dict[str, Tensor]]:
        for number in count(first):
            self._loader.sampler.set_epoch(number)
            yield from self._loader


class GivenScheme(Strategy):
    """Propose one given scheme and return it, to score and record the result of a trainer such as DARTS."""

    rule = "mode"

    def __init__(self, scheme: ConnectionScheme) -> None:
        super().__init__(scheme.stages, evaluations=1)
        self.scheme = scheme
        self.asked = False

    def ask(self) -> list[ConnectionScheme]:
        return [] if self.asked else [self.scheme]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.asked = True

    def mode(self) -> ConnectionScheme:
        return self.scheme


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Keep batch norms in training mode from updating their running statistics."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
