"""A scheme by gradient descent: one relaxed gate a block, trained in turns with the weights.

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
from ean_core.backbone import Place, join, walk
from ean_core.classifier import ImageClassifier
from ean_core.common.config import config_name
from ean_core.common.errors import unknown_name
from ean_core.common.record import read_record, write_record
from ean_core.inference.latency import BlockTimes
from ean_core.runs.folder import check_same_network
from ean_core.runs.training import run_training
from ean_core.scheme import ConnectionScheme
from ean_core.weights.files import WeightsFile, read_state_dict
from ean_core.weights.loading import load_weights

from .evaluator import weights_hash
from .strategy import Evaluation, Strategy

#: A block whose gate is above this is connected in the end.
THRESHOLD = 0.5
#: The file of what was found, beside those of the run.
RECORD = "darts.json"


@dataclass(frozen=True)
class DartsSettings:
    """What ``search.strategy`` of a config may say beside ``type='darts'``.

    Args:
        epochs: over the training images; in each iteration one step of the weights and one of the alphas.
        lr: of the weights, which come trained: low, and constant, because they follow the gates to the end. The
            optimiser is otherwise the supernet's. 0 keeps the weights.
        alpha_lr: of the alphas (Adam). A step moves an alpha by about that much where its gradients agree: with 0.01,
            the 300 iterations of an epoch of CIFAR-100 can take a gate from 1/2 to 0.95. DARTS takes 3e-4, for its
            50 epochs from scratch.
        penalty: weight of the expected cost in the loss of the alphas, see :class:`RelaxedClassifier`.

    Raises:
        ValueError: for a value out of its range.
    """

    epochs: int = 10
    lr: float = 0.01
    alpha_lr: float = 0.01
    penalty: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"epochs of darts is a whole number from 1 on, got {self.epochs!r}; for example epochs=10")
        for name in ("lr", "alpha_lr", "penalty"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"{name} of darts is a number from 0 on, got {value!r}; for example {name}=0.01")

    @classmethod
    def read(cls, strategy: Mapping[str, Any]) -> DartsSettings:
        """The settings in ``dict(type='darts', ...)``; the default ones for a strategy of another type.

        Raises:
            ValueError: for a setting that there is not, naming those there are.
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
    """Fine-tune a supernet with relaxed gates and read the scheme off them; writes ``darts.json`` beside the run.

    The weights take their steps on the training images of the config, the alphas on its validation images, in batches
    as large as those of training. An accuracy on the validation images would be one on what the gates were trained on;
    none is measured.

    Args:
        config: of a search: a supernet's, with ``search``. It is left as it is.
        supernet: the supernet's checkpoint.
        work_dir: where logs, checkpoints and records go.
        times: what connections cost where a penalty is to weigh latency; without, all cost alike.
        resume: continue after the last finished epoch, if there is one. The run ends in the alphas of one that was not
            interrupted; more ``epochs`` than before prolong it.

    Raises:
        FileExistsError: if ``work_dir`` holds a run and ``resume`` is not set.
        ValueError: for settings that are not of darts, a checkpoint of another network, times of another network, or
            a run in ``work_dir`` under other settings; and where several processes were started.
    """
    if get_world_size() > 1:
        raise ValueError(f"darts trains in one process, not in {get_world_size()}; start it without --launcher")
    config = copy.deepcopy(config)
    settings = DartsSettings.read(config.search.strategy)
    checkpoint = WeightsFile(supernet)
    check_same_network(checkpoint, config)
    config.model.update(
        type="RelaxedClassifier",
        # The hash refuses to resume on a supernet that was trained again.
        supernet={"checkpoint": str(supernet), "weights": weights_hash(read_state_dict(checkpoint))},
        penalty=settings.penalty,
        costs=list(times.connections) if times else None,
    )
    weights = config.optim_wrapper
    weights.optimizer.lr = settings.lr
    adam = {"type": "Adam", "lr": settings.alpha_lr, "betas": (0.5, 0.999), "weight_decay": 1e-3}  # those of DARTS
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

    The state of a stage, which only DIA has, advances in the same measure: ``s + g_l (s' - s)``, from 0 at the stage's
    start. An unconnected block does not move it, so that the network with all gates 0 or 1 is exactly the scheme's.
    ``with_cp`` of the backbone has no effect here.

    Args:
        backbone, num_classes: see :class:`ImageClassifier`; the backbone needs a module for every connection.
        supernet: ``dict(checkpoint=...)``, which all weights come from when a run begins; the alphas begin at 0.
        penalty: weight of the expected cost ``sum_l g_l t_l / sum_l t_l``, in ``[0, 1]``, in the loss of the alphas.
        costs: ``t_l``, one a block: seconds that connecting it takes. If None all are equal, and the expected cost
            is the expected share of connections.
        options: of :class:`ImageClassifier`.

    Raises:
        ValueError: if the backbone lacks attention modules, or there is not one cost a block.
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
            raise ValueError(f"costs are {blocks} times, one a block, not all 0; got {list(costs)}")
        self.supernet = supernet
        self.penalty = penalty
        self.alphas = nn.Parameter(torch.zeros(blocks))
        relative = torch.ones(blocks) if costs is None else torch.tensor(costs)
        self.register_buffer("costs", relative / relative.sum(), persistent=False)
        self.costs: Tensor

    @property
    def gates(self) -> Tensor:
        """``(m,)``, in ``[0, 1]``; 1/2 at the beginning."""
        return self.alphas.sigmoid()

    @property
    def scheme(self) -> ConnectionScheme:
        """The blocks whose gate is above the threshold."""
        bits = (self.gates > THRESHOLD).int()
        return ConnectionScheme(self.backbone.stage_blocks, tuple(bits.tolist()))

    def init_weights(self) -> None:
        """Take over the supernet's weights.

        Raises:
            ValueError: if the checkpoint does not hold all of them.
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
        """Classify normalised images ``(N, C, H, W)`` through the gates.

        Returns:
            Logits ``(N, num_classes)`` in mode ``tensor``, the cross-entropy with ``labels`` ``(N,)`` in mode ``loss``.

        Raises:
            ValueError: for mode ``predict``: predictions are those of a network with the scheme found.
        """
        if mode not in ("tensor", "loss"):
            raise unknown_name("mode of a relaxed network", mode, ("tensor", "loss"))
        gates = iter(self.gates)

        def step(place: Place, x: Tensor, state: State) -> tuple[Tensor, State]:
            k, i, block = place
            residual, shortcut = block(x)
            attention = self.backbone.attention_at(k, i)
            assert attention is not None  # the backbone is fully connected
            residual, state = attention(residual, state, next(gates))
            return join(residual, shortcut), state

        (x,) = walk(self.backbone.stages(), self.backbone.forward_stem(self.prepare(inputs)), step)
        logits = self.head(x)
        if mode == "tensor":
            return logits
        if labels is None:
            raise ValueError(f"mode={mode!r} needs labels")
        return {"loss": F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)}

    def train_step(self, data: Mapping[str, Tensor], optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step of the weights on a training batch; the alphas stay."""
        return super().train_step(data, optim_wrapper["weights"])

    def alpha_step(self, data: Mapping[str, Tensor], optim_wrapper: OptimWrapperDict) -> Tensor:
        """One step of the alphas on a validation batch, and the loss before it; weights and buffers stay.

        Batch norms normalise by the batch, as in DARTS: a gate that only rescales what the next norm undoes then gains
        nothing. Their running statistics are left to the training images.
        """
        alphas = optim_wrapper["alphas"]
        with alphas.optim_context(self), _statistics_kept(self):
            loss = self(**self.data_preprocessor(data, True), mode="loss")["loss"]
        loss = loss + self.penalty * self.gates @ self.costs
        alphas.zero_grad()  # the step of the weights left gradients here
        alphas.backward(loss, inputs=[self.alphas])
        alphas.step()
        return loss.detach()


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class AlternatingOptimizers:
    """Builds a :class:`RelaxedClassifier`'s two optimisers: ``weights``, of all its modules, and ``alphas``.

    Args:
        optim_wrapper_cfg: a config for each of the two, as OpenMMLab writes it for one.
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
    """Steps the alphas in front of each step of the weights, and writes ``darts.json`` at the end.

    The validation images come in a new order in each pass, and an epoch begins with a new pass; so the batch is a
    function of seed, epoch and iteration. The gates of past epochs are kept in the checkpoints.

    Args:
        dataloader: config of the validation images' loader.
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
        runner.logger.info(f"gates say {runner.model.scheme}: {' '.join(f'{gate:.2f}' for gate in gates)}")

    def after_train(self, runner: Runner) -> None:
        path = Path(runner.work_dir) / RECORD
        if not self._trained and path.exists():
            return  # resumed after its end: the record is there
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
    """Asks for one scheme, and returns it: how the scheme that a trainer ended in is scored and written down."""

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
    """Batch norms in training mode leave their running statistics alone inside."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
