"""What the GPU will take, predicted from counted operations and bytes: nothing here has been measured.

    python benchmarks/gpu_prediction.py [--out DIR]

Counts every operator of training iterations and of forward passes on tensors that have shapes and no values
(FakeTensorMode), at full size, in about two minutes on two idle cores, and turns the counts into times of an H100 and
an H200 by the assumptions that stand at the top of this file and of the page. Writes gpu_prediction.json and
gpu_prediction.md in DIR, benchmarks/results by default.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import torch
from campaign_steps import Alone, Comparison, Correlation, Network, Search, Step, Supernet, gpu_plan, plan
from gpu_inference import ATTENTIONS, GOALS, PARTS, networks
from gpu_training import NETWORKS as TRAINED
from gpu_training import ROUNDS as TRAINING_ROUNDS
from gpu_training import STEPS as TRAINING_STEPS
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ean_core.attention import attention_class
from ean_core.config import load_config
from ean_core.inference.comparison import Form, candidates, random_images, variants
from ean_core.inference.ops import plain_operators
from ean_core.record import significant, write_record, write_text
from ean_core.recorded import RECORDED
from ean_core.report.table import in_percent, markdown_table
from ean_core.supernet import find_backbone

NAME = "gpu_prediction"
RESULTS = Path(__file__).parent / "results"

# ------------------------------------------------------------------------------------------------ what is assumed

#: Bytes a second of the memory, from NVIDIA's datasheets of H100 SXM5 80 GB and H200 SXM 141 GB.
CARDS = {"H100": 3.35e12, "H200": 4.8e12}
#: Dense operations a second of both cards, from the same datasheets: bf16 and fp16 1,979 with sparsity, TF32 989.
HALF_RATE, TF32_RATE, FP32_RATE = 990e12, 495e12, 67e12
#: Shares of them that kernels reach: assumed; narrow convolutions reach less of the tensor cores.
BANDWIDTH_SHARE, TENSOR_SHARE, FP32_SHARE = 0.7, 0.3, 0.5
#: Seconds of the shortest kernel in a CUDA graph, with the gap behind it: assumed.
SHORTEST = 2.5e-6
#: Seconds of the host an iteration of captured training (a batch, the optimizer, a replay): assumed.
HOST = 1.5e-3
#: Seconds of the host to launch one kernel outside of a graph: assumed.
LAUNCH = 5e-6
#: Seconds to build and tune the networks of a part of gpu_inference.py: assumed.
BUILDING = 90
#: Seconds before the first iteration of a command, and more where blocks are compiled: assumed.
START, COMPILING = 30, 60
#: Kernels of an operator that has more than one: gradients of input and weight; statistics and what they are used for.
KERNELS = {"convolution_backward": 2, "_native_batch_norm_legit": 2, "native_batch_norm_backward": 2}

#: Kernels of a connected block's gate, by its module: its pooling, those of ean_core/inference/kernels.py, and four
#: products for SGE; the first block of a stage has one less of DIA's.
GATE_KERNELS = {"SE": 2, "DIA": 3, "SGE": 6}

#: Training images of CIFAR-100: all of them, and less the validation images of a search (both of the data set).
IMAGES, SUPERNET_IMAGES, VALIDATION_IMAGES = 50_000, 40_000, 10_000
#: Warm-up rounds at most and measured ones of a part of gpu_inference.py; processes at once; seconds of a piece.
ROUNDS, JOBS, PIECE = 30 + 60, 6, 480
#: Images that a search scores at once, by depth: of the config, and of the campaign; and in which precision.
SEARCHES = {20: (500, torch.float32), 164: (2500, torch.bfloat16)}
#: Schemes that `campaign.py --gpu` trains alone, and evaluations and share of a forward pass of a local search.
ALONE, EVALUATIONS, SHARED = 46, 3000, 0.5
#: Strategies, seeds and evaluations of its comparison.
COMPARED = (6, 2, 300)
#: Minutes of a 164-epoch training on an H200.
TRAINING_GOAL = 6
#: Of the fully fused fp16 ResNet-50's bytes, what attention adds where gates commute, as worked out by hand.
FACTS = {"SE Share-full": 0.05, "DIA Share-full": 0.05, "SGE Share-full": 0.10, "SE EAN": 0.02}

ASSUMPTIONS = f"""\
| what | value | from |
|---|---|---|
| memory bandwidth | {CARDS["H100"] / 1e12:g} (H100 SXM), {CARDS["H200"] / 1e12:g} TB/s (H200) | NVIDIA's datasheets |
| share of it that kernels reach | {BANDWIDTH_SHARE:g} | assumed |
| dense bf16 and fp16 | {HALF_RATE / 1e12:g} TFLOP/s, both cards | NVIDIA's datasheets |
| dense TF32, which fp32 inference uses | {TF32_RATE / 1e12:g} TFLOP/s, both cards | NVIDIA's datasheets |
| share of both that kernels reach | {TENSOR_SHARE:g} | assumed |
| fp32, searches of ResNet-20 | {FP32_RATE / 1e12:g} TFLOP/s, of which {FP32_SHARE:g} | datasheet; share assumed |
| shortest kernel in a CUDA graph | {1e6 * SHORTEST:g} µs | assumed |
| host, an iteration of captured training | {1e3 * HOST:g} ms, beside the GPU's work | assumed |
| host, launching a kernel outside of a graph | {1e6 * LAUNCH:g} µs | assumed |
| a command before its first iteration | {START} s, with compiled blocks {START + COMPILING} s | assumed |
| a part of `gpu_inference.py` before it measures | {BUILDING} s | assumed |
| kernels of one operator | 1; batch norms in training and gradients of convolutions 2 | how libraries do it |
| kernels of a gate in a deployed network | SE 2, DIA 3, SGE 6 | counted in `kernels.py` |
| a convolution with a bias, but a block's last one | a pass over its output more | PyTorch on cuDNN |
| a second read of a map by a batch norm or a gradient | free, out of the L2 cache | assumed |
| augmentation, validation, checkpoints | nothing | left out |
"""

# ------------------------------------------------------------------------------------------------ counting

#: Operators that move nothing: memory without values, and a view that does not say so.
NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}
#: Operators that work value by value beside those that PyTorch tags so.
POINTWISE = {"_to_copy", "copy_", "masked_fill_", "zeros_like", "ones_like", "zeros", "fill_", "zero_"}


@dataclass(frozen=True)
class Operator:
    """One operator of a pass.

    Args:
        name: PyTorch's, without ``aten``.
        kernels: that do it.
        bytes: read and written.
        flops: of convolutions and matrix products, a multiplication and an addition being two.
        pointwise: whether it can be done by a neighbour's kernel.
        further: bytes that it reads beside its largest operand, which are left when a neighbour does it.
        bias_pass: bytes of adding a convolution's bias, where that is a pass of its own.
    """

    name: str
    kernels: int
    bytes: int
    flops: int
    pointwise: bool = False
    further: int = 0
    bias_pass: int = 0


class Counter(TorchDispatchMode):
    """Lists the operators of what runs inside; of bytes and operations it says what ``ean_core.inference.cost`` says.

    Args:
        weights: shapes of parameters, whose conversions stand between library calls and have no neighbour to ride on.
    """

    def __init__(self, weights: frozenset[torch.Size] = frozenset()) -> None:
        super().__init__()
        self.weights = weights
        self.operators: list[Operator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace != "aten":  # questions about devices, marks for profilers
            return func(*args, **kwargs)
        if func._overloadpacket not in flop_registry:  # in inference mode, operators come in one piece
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if not _moves_nothing(func):
            self._add(func, args, kwargs, result)
        return result

    def _add(self, func: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        name = func._schema.name.removeprefix("aten::")
        read = _tensors((args, {key: value for key, value in kwargs.items() if key != "out"}))
        # What writes to lists of tensors returns nothing; the first list is the one written to.
        written = _tensors(result) or _tensors(args[:1])
        if not written:
            return
        sizes = [_bytes(tensor) for tensor in read]
        flops = flop_registry.get(func._overloadpacket)
        of_weights = name == "_to_copy" and read[0].shape in self.weights
        self.operators.append(
            Operator(
                name,
                kernels=KERNELS.get(name, 1),
                bytes=sum(sizes) + sum(map(_bytes, written)),
                flops=flops(*args, **kwargs, out_val=result) if flops else 0,
                pointwise=(torch.Tag.pointwise in func.tags or name in POINTWISE) and not of_weights,
                further=sum(sizes) - max(sizes, default=0),
                bias_pass=2 * _bytes(written[0]) if name == "convolution" and args[2] is not None else 0,
            )
        )


def _moves_nothing(func: Any) -> bool:
    views = any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)
    return views or func._schema.name.removeprefix("aten::") in NOTHING


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def fused(operators: Sequence[Operator]) -> list[Operator]:
    """What is left if neighbours do all that is done value by value: of that, only its further operands are read.

    The least there can be. Scaling a map by a gate that depends on all of it, which no kernel that makes the map can
    do, is taken to be as free as the rest.
    """
    return [_riding(each) if each.pointwise else each for each in operators]


def _riding(operator: Operator) -> Operator:
    return replace(operator, kernels=0, bytes=operator.further)


def as_deployed_on_gpu(operators: Sequence[Operator], attention: str | None) -> list[Operator]:
    """What a GPU does of a deployed network's operators, as a CPU lists them.

    Gates have their own kernels; scale, shortcut, ReLU and bias ride on a block's last convolution. The ReLU of the
    other convolutions is a pass of its own, and so is the bias that deployment has folded into them.

    Args:
        operators: of a forward pass.
        attention: name of its module; None for a network without.
    """
    convolution_or_pooling = ("convolution", "max_pool2d_with_indices")
    # The conversion of a factor to the type of the maps may stand between a convolution and its addition.
    seen = [each for each in operators if each.name != "_to_copy"]
    found: list[Operator] = []
    gate = 0  # kernels that the gate at hand still has
    for before, each, after in zip((None, *seen[:-1]), seen, (*seen[1:], None), strict=True):
        if each.name == "convolution":
            gate = GATE_KERNELS[attention] if attention else 0
            found.append(each)
            if each.bias_pass and not (after and after.name in ("add_", "addcmul")):
                found.append(Operator("bias", 1, each.bias_pass, 0))
        elif each.pointwise:
            own = each.name == "relu_" and before is not None and before.name in convolution_or_pooling
            found.append(each if own else _riding(each))
        elif each.name in convolution_or_pooling or not attention:
            found.append(each)
        else:
            # A reduction without a kernel of its own reads again what another one of the gate's kernels has.
            rides = not gate and each.name in ("mean", "sum")
            found.append(replace(each, kernels=min(each.kernels, gate), bytes=0 if rides else each.bytes))
            gate = max(0, gate - each.kernels)
    return found


def seconds(operators: Sequence[Operator], card: str, rate: float, host: float = 0.0) -> float:
    """Predicted time of operators that run one after the other.

    Args:
        operators: all of them.
        card: one of :data:`CARDS`.
        rate: operations a second that are reached.
        host: seconds that the host takes beside the GPU.
    """
    bandwidth = CARDS[card] * BANDWIDTH_SHARE
    return max(host, sum(max(op.bytes / bandwidth, op.flops / rate, op.kernels * SHORTEST) for op in operators))


def totals(operators: Sequence[Operator]) -> dict[str, int]:
    """Kernels, bytes and operations."""
    return {key: sum(getattr(each, key) for each in operators) for key in ("kernels", "bytes", "flops")}


def without_values(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The model itself, its parameters and buffers replaced by ones that have shapes only."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                tensors[name] = None if tensor is None else mode.from_tensor(tensor)
    return model


# ------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True)
class Training:
    """A network to train.

    Args:
        depth: of the network.
        config: by name.
        network: what a table calls it.
        scheme, shared: of its backbone.
        supernet: whether its scheme is data.
    """

    depth: int
    config: str
    network: str
    scheme: str
    shared: bool = True
    supernet: bool = False

    @property
    def iterations(self) -> int:
        """Of the whole training."""
        config = load_config(f"supernet_{self.config}" if self.supernet else self.config)
        images = SUPERNET_IMAGES if self.supernet else IMAGES
        return config.train_cfg.max_epochs * math.ceil(images / config.train_dataloader.batch_size)


def trainings(depth: int) -> list[Training]:
    """All networks of a depth on CIFAR-100 that the campaign trains, and its supernets."""
    found = [Training(depth, f"resnet{depth}_se_cifar100", "vanilla", "none")]
    for name in ATTENTIONS:
        config, attention = f"resnet{depth}_{name}_cifar100", name.upper()
        if ("cifar", depth, attention) in RECORDED:
            found.append(Training(depth, config, f"{attention} EAN", "ean"))
        found.append(Training(depth, config, f"{attention} Share-full", "full"))
        if not attention_class(attention).recurrent:
            found.append(Training(depth, config, f"{attention} Org-full", "full", shared=False))
        found.append(Training(depth, config, f"{attention} supernet", "full", supernet=True))
    return found


def count_training(training: Training) -> list[Operator]:
    """The operators of one training iteration under bf16 autocast, from the images to the updated weights."""
    config: Config = load_config(training.config)
    config.model.backbone.update(scheme=training.scheme, shared=training.shared)
    model = MODELS.build(config.model).train()
    weights = frozenset(parameter.shape for parameter in model.parameters())
    with FakeTensorMode() as mode:
        without_values(model, mode)
        if training.supernet:
            find_backbone(model).scheme_as_data()
        return count_iteration(model, config.train_dataloader.batch_size, weights)


def count_iteration(model: Any, batch: int, weights: frozenset[torch.Size] = frozenset()) -> list[Operator]:
    """The operators of one training iteration of a classifier of 32x32 images; inside of a FakeTensorMode."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, foreach=True)
    for parameter in model.parameters():  # as after the first iteration
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    data = {"inputs": torch.zeros(batch, 3, 32, 32, dtype=torch.uint8), "labels": torch.zeros(batch, dtype=torch.long)}
    with Counter(weights) as counter:
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(**model.data_preprocessor(data, True), mode="loss")
        losses["loss"].backward()
        optimizer.step()
    return counter.operators


def predict_training(training: Training) -> list[dict[str, Any]]:
    """A row for each form of a network."""
    operators = count_training(training)
    rows = []
    for form, kept in {"captured": operators, "captured, compiled blocks": fused(operators)}.items():
        gpu = {card: seconds(kept, card, HALF_RATE * TENSOR_SHARE) for card in CARDS}
        times = {card: max(HOST, time) for card, time in gpu.items()}
        rows.append(
            {
                "depth": training.depth,
                "network": training.network,
                "form": form,
                **totals(kept),
                "iterations": training.iterations,
                "gpu_s": {card: significant(time) for card, time in gpu.items()},
                "iteration_s": {card: significant(time) for card, time in times.items()},
                "minutes": {card: significant(time * training.iterations / 60) for card, time in times.items()},
            }
        )
    return rows


# ------------------------------------------------------------------------------------------------ inference

BATCH = 50
#: Operators of a forward pass, by network and form.
Counted = dict[tuple[str, str], list[Operator]]
FORMS = ("eager", "deployed", "captured")


def count_pass(network: nn.Module, mode: FakeTensorMode, batch: int, size: int, dtype: torch.dtype) -> list[Operator]:
    """The operators of a forward pass of a network, whose values are lost by this."""
    without_values(network, mode)
    with mode, torch.inference_mode(), plain_operators():
        images = random_images(batch, (3, size), dtype, "cpu")
        with Counter() as counter:
            network(images)
    return counter.operators


def count_inference(pattern: str) -> dict[str, Counted]:
    """Forward passes of all networks of a pattern of configs, by the name of their type."""
    found: dict[str, Counted] = {}
    made = networks(pattern, some=False)
    for _, size, dtype in (part for part in PARTS.values() if part[0] == pattern):
        if str(dtype) not in found:
            compared = candidates(made, [Form.eager, Form.deployed], dtype=dtype)
            passes = [count_pass(each.network, FakeTensorMode(), BATCH, size, dtype) for each in compared]
            names = [each.name.rsplit(", ", 1) for each in compared]
            found[str(dtype)] = {(name, form): each for (name, form), each in zip(names, passes, strict=True)}
    return found


def predict_part(counted: Counted, dtype: torch.dtype) -> list[dict[str, Any]]:
    """A row for each network of a part and each form; increments compare with the vanilla network of the same form."""
    rate = TENSOR_SHARE * (TF32_RATE if dtype == torch.float32 else HALF_RATE)
    rows: list[dict[str, Any]] = []
    for form in FORMS:
        source = "eager" if form == "eager" else "deployed"
        for name in (network for network, made in counted if made == source):
            operators = counted[name, source]
            attention = None if name == "vanilla" else name.split()[0]
            kept = operators if form == "eager" else as_deployed_on_gpu(operators, attention)
            host = 0 if form == "captured" else LAUNCH * totals(kept)["kernels"]
            rows.append(
                {
                    "network": name,
                    "form": form,
                    "kernels": totals(kept)["kernels"],
                    "macs": totals(operators)["flops"] // 2,
                    "bytes": totals(operators)["bytes"],
                    "bytes_on_gpu": totals(kept)["bytes"],
                    "fused_bytes": totals(fused(operators))["bytes"],
                    "seconds": {card: significant(seconds(kept, card, rate, host)) for card in CARDS},
                }
            )
    vanilla = {row["form"]: row for row in rows if row["network"] == "vanilla"}
    for row in rows:
        base = vanilla[row["form"]]
        row["increment"] = {card: significant(row["seconds"][card] / base["seconds"][card] - 1) for card in CARDS}
        row["more_bytes"] = significant((row["bytes_on_gpu"] - base["bytes_on_gpu"]) / base["fused_bytes"])
    return rows


def predict_inference(counted: Mapping[str, Mapping[str, Counted]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each part of gpu_inference.py, from what :func:`count_inference` says of each pattern of configs."""
    found = {}
    for part, (pattern, _, dtype) in PARTS.items():
        made = counted[pattern][str(dtype)]
        some = {"vanilla", "SE Share-full", "SE EAN"} if part == "compiled" else {name for name, _ in made}
        found[part] = predict_part({each: operators for each, operators in made.items() if each[0] in some}, dtype)
    return found


def search_passes(depth: int, batch: int, dtype: torch.dtype) -> dict[str, float]:
    """Seconds of scoring one network on the validation images, by card; its kernels are launched one by one."""
    full = next(each for each in variants(load_config(f"resnet{depth}_se_cifar100")) if each.connection == "Share-full")
    operators = count_pass(full.network.to(dtype), FakeTensorMode(), batch, 32, dtype)
    rate = FP32_RATE * FP32_SHARE if dtype == torch.float32 else HALF_RATE * TENSOR_SHARE
    host = LAUNCH * totals(operators)["kernels"]
    batches = VALIDATION_IMAGES / batch
    return {card: batches * seconds(operators, card, rate, host) for card in CARDS}


# ------------------------------------------------------------------------------------------------ pieces


@dataclass(frozen=True)
class Piece:
    """Something to run on the GPU.

    Args:
        name: what.
        command: which.
        minutes: predicted, by card; None where it is not.
        resumes: how it goes on after a stop.
        start: seconds of each piece in which nothing of it gets done.
        note: what the prediction is of.
    """

    name: str
    command: str
    minutes: Mapping[str, float] | None
    resumes: str
    start: float = 0
    note: str = ""

    def pieces(self, card: str) -> int | None:
        """Calls of eight minutes that it takes."""
        return None if self.minutes is None else max(1, math.ceil(60 * self.minutes[card] / (PIECE - self.start)))


RUN = "python benchmarks/campaign.py run"
FROM_EPOCH = "the same command, from the last finished epoch"
FROM_LEDGER = "the same command, from the last line of the ledger"


def in_minutes(by_card: Callable[[str], float]) -> dict[str, float]:
    return {card: significant(by_card(card) / 60) for card in CARDS}


def inference_pieces(inference: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Piece]:
    """Each part of gpu_inference.py."""
    for part, rows in inference.items():
        compiles = part == "compiled"
        yield Piece(
            f"inference, {part}",
            f"python benchmarks/gpu_inference.py --part {part}",
            in_minutes(lambda card, rows=rows: BUILDING + ROUNDS * sum(row["seconds"][card] for row in rows)),  # type: ignore[misc]
            "not within a part: it begins anew; parts that are done are kept",
            note="compilation is not predicted" if compiles else f"{len(rows)} networks in {ROUNDS} rounds",
        )


def training_row(training: Sequence[Mapping[str, Any]], step: Step) -> tuple[Mapping[str, Any], str]:
    """What is predicted of a step's training in the form in which the campaign trains it, and what stood in for it."""
    if isinstance(step, Supernet):
        name = f"{step.attention.upper()} supernet"
    elif isinstance(step, Network):
        kind = {"full": "Share-full", "org": "Org-full", "ean": "EAN", "best": "EAN"}.get(step.model.variant, "")
        name = f"{step.model.attention.upper()} {kind}" if step.model.attention else "vanilla"
    else:
        name = f"{step.attention.upper()} Share-full"
    depth = step.model.depth if isinstance(step, Network) else step.depth
    compiles = depth == 164 and isinstance(step, (Supernet, Network))
    form = "captured, compiled blocks" if compiles else "captured"
    rows = {row["network"]: row for row in training if row["depth"] == depth and row["form"] == form}
    if name in rows:
        return rows[name], ""
    instead = name.replace("EAN", "Share-full")
    return rows[instead], f"taken for {instead}, which has more connections"


def resnet20_queue(training: Sequence[Mapping[str, Any]], forward: Mapping[str, float]) -> Piece:
    """The campaign without --gpu: its classifiers, supernets and exhaustive searches, six at once."""
    steps = [step for step in plan() if isinstance(step, (Supernet, Network, Search))]
    chosen = [step for step in steps if not isinstance(step, Network) or step.model.task == "Image Classification"]
    trained = [step for step in chosen if not isinstance(step, Search)]
    # A scheme's prefix is scored once: 2^9 - 1 bodies of blocks in the place of nine a scheme.
    search = {card: time * (2**9 - 1) / 9 for card, time in forward.items()}
    return Piece(
        "ResNet-20 queue",
        f"{RUN} --jobs {JOBS} --minutes 8",
        in_minutes(
            lambda card: (
                sum(shared_gpu(training, step, card) for step in trained)
                + search[card] * (len(chosen) - len(trained))
                + START * len(chosen) / JOBS
            )
        ),
        FROM_EPOCH,
        start=START,
        note=f"{len(trained)} trainings and {len(chosen) - len(trained)} searches if nothing is done yet; tests, "
        "times, correlations, counters and segmentors are not predicted",
    )


def shared_gpu(training: Sequence[Mapping[str, Any]], step: Step, card: str) -> float:
    """Seconds of the GPU, or of one of six processes, that a training takes where six share the GPU."""
    row, _ = training_row(training, step)
    return max(row["gpu_s"][card], HOST / JOBS) * row["iterations"]


def resnet164_piece(step: Step, training: Sequence[Mapping[str, Any]], forward: Mapping[str, float]) -> Piece:
    """A step of gpu_plan."""
    command = f"{RUN} --gpu --minutes 8"
    if isinstance(step, (Supernet, Network)) and (isinstance(step, Supernet) or step.model.depth == 164):
        row, note = training_row(training, step)
        return Piece(step.name, command, row["minutes"], FROM_EPOCH, START + COMPILING, note)
    if isinstance(step, Search):
        note = f"{EVALUATIONS} evaluations in bf16 at {SHARED:g} of a Share-full SE pass each; finalists are left out"
        minutes = in_minutes(lambda card: EVALUATIONS * SHARED * forward[card])
        return Piece(step.name, command, minutes, FROM_LEDGER, START, note)
    if isinstance(step, Comparison):
        strategies, seeds, evaluations = COMPARED
        note = (
            f"at most: {strategies} strategies with {seeds} seeds of {evaluations} evaluations in bf16 at a whole pass "
            "each; HSP has a few only"
        )
        minutes = in_minutes(lambda card: math.prod(COMPARED) * forward[card])
        return Piece(step.name, command, minutes, FROM_LEDGER, START, note)
    if isinstance(step, Correlation):
        share = 12 * 20 * SUPERNET_IMAGES / (164 * IMAGES)  # schemes, epochs and images against a whole training
        whole, _ = training_row(training, step)
        minutes = {card: significant(value * share) for card, value in whole["minutes"].items()}
        note = "at most: 12 schemes for 20 epochs, taken for Share-full, not compiled"
        return Piece(step.name, command, minutes, "the same command, from the last finished network", START, note)
    return Piece(step.name, command, None, "the same command")


def timed_training(training: Sequence[Mapping[str, Any]]) -> Piece:
    """gpu_training.py: rounds, one of them to warm up, of plain, captured and compiled iterations."""
    rows = {(row["depth"], row["network"], row["form"]): row for row in training}
    iterations = (TRAINING_ROUNDS + 1) * TRAINING_STEPS

    def of(name: str, card: str) -> float:
        depth, network = name.removeprefix("resnet").split(" ", 1)
        network = network.replace("Share-full SE", "SE Share-full")
        captured, compiled = (rows[int(depth), network, f"captured{more}"] for more in ("", ", compiled blocks"))
        plain = max(captured["gpu_s"][card], LAUNCH * captured["kernels"])
        each = plain + captured["iteration_s"][card] + compiled["iteration_s"][card]
        return COMPILING + iterations * each

    return Piece(
        "training iterations",
        "python benchmarks/gpu_training.py",
        in_minutes(lambda card: START + sum(of(name, card) for name in TRAINED)),
        "networks that are measured are kept",
        START + COMPILING,
        f"{len(TRAINED)} networks in three ways; launching plain operators is taken as the host's whole work",
    )


def pieces(
    training: Sequence[Mapping[str, Any]], inference: Mapping[str, Any], forward: Mapping[int, Mapping[str, float]]
) -> list[Piece]:
    """All that is to be run on the GPU, first one first."""
    alone = Alone("se", "cifar100", "full")
    seconds_alone = {card: ALONE * (shared_gpu(training, alone, card) + START / JOBS) for card in CARDS}
    return [
        *inference_pieces(inference),
        timed_training(training),
        resnet20_queue(training, forward[20]),
        Piece(
            "schemes trained alone",
            f"{RUN} --gpu --jobs {JOBS} --minutes 8",
            in_minutes(seconds_alone.__getitem__),
            FROM_EPOCH,
            START,
            f"{ALONE} trainings, taken for SE Share-full; tests are not predicted",
        ),
        *(resnet164_piece(step, training, forward[164]) for step in gpu_plan({})),
    ]


# ------------------------------------------------------------------------------------------------ the page

INTRODUCTION = """\
# What the GPU will take: predictions

**No figure of a GPU exists yet. Everything below is predicted**, by `python benchmarks/gpu_prediction.py`, from counted
operations and bytes under the assumptions listed here; no time of the paper is used. A prediction that the first
measurement contradicts is wrong, not the measurement.

Time of a pass: the sum over its kernels of the longest of bytes / reachable bandwidth, operations / reachable rate and
the shortest kernel; and at least the host's time.

{assumptions}
Bytes are those that operators read and write, each by itself, as timing records count them; maps that stay in the L2
cache (50 MB; a map of ResNet-164 at batch 128 has 17 MB at most) would make memory look faster than assumed.
"""

TRAINING = """
## Training

One iteration on CIFAR-100 at batch 128 under bf16 autocast: forward, cross-entropy, backward, SGD with momentum.

- *captured*: every operator is a kernel.
- *captured, compiled blocks* (*compiled* in the table): what works value by value (ReLU, sums, scaling by gates,
  conversions of maps) rides on its neighbours, and only its further operands are still read; convolutions, matrix
  products, batch norms, reductions and conversions of weights stay. This is the least there can be: it takes the
  scaling by a gate for free, which in truth needs a pass of its own, so that what attention adds is underrated here.

Two values are of H100 / H200; minutes are of the whole training.

{table}

Goal: a 164-epoch training in under {goal} minutes on an H200. {verdict}
"""

INFERENCE = """
## Inference

A forward pass at batch {batch}, 224 pixels (ResNet-50) or 32 (ResNet-164). Increments are over the vanilla network of
the same form.

- *eager*: each operator is a kernel that the host launches.
- *deployed*: the deployed graph as a CPU lists it, for Triton's kernels cannot be counted here, with what those kernels
  do in one: gates; scale, shortcut, ReLU and bias in the last convolution of a block, which is taken to be the faster
  way everywhere. ReLU and bias of all other convolutions are passes of their own. The host launches each kernel.
- *captured*: the same in a CUDA graph.

*MB* are bytes an image of every operator by itself, as `inference_gpu.json` will have them. *More bytes* are those of a
deployed network beyond the vanilla one's, as a share of a vanilla network in which all that works value by value is
free, and in brackets what was worked out so by hand for fp16 ResNet-50; SGE's hold the similarities between its kernels
and the products that give them, each image's vectors in fp32. Two values are of H100 / H200.
"""

PIECES = """
## Pieces

What is to be run, each command stopping within eight minutes; *calls* is how often it is given.

{table}
"""


@dataclass(frozen=True)
class Line:
    """A row of a table, by column."""

    words: ClassVar[tuple[str, ...]] = ()

    texts: Mapping[str, str]

    @property
    def titles(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def cells(self) -> dict[str, str]:
        return dict(self.texts)


def table(lines: Sequence[Mapping[str, str]]) -> str:
    return markdown_table([Line(each) for each in lines])


def both(values: Mapping[str, float], show: Callable[[float], str]) -> str:
    """A value of each card, H100 first."""
    return " / ".join(show(values[card]) for card in CARDS)


def training_lines(training: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    for plain, compiled in zip(training[::2], training[1::2], strict=True):
        line = {
            "network": f"ResNet-{plain['depth']} {plain['network']}",
            "iterations": f"{plain['iterations']:,}",
            "TFLOP": f"{plain['flops'] / 1e12:.3f}",
        }
        for row, form in ((plain, "captured"), (compiled, "compiled")):
            line[f"{form}: kernels"] = f"{row['kernels']:,}"
            line["GB" if form == "captured" else "GB, compiled"] = f"{row['bytes'] / 1e9:.2f}"
            line[f"ms, {form}"] = both(row["iteration_s"], lambda time: f"{1e3 * time:.2f}")
            line[f"minutes, {form}"] = both(row["minutes"], lambda minutes: f"{minutes:.1f}")
        yield line


def verdict(training: Sequence[Mapping[str, Any]]) -> str:
    """Which trainings of ResNet-164 are predicted to reach the goal."""
    rows = [row for row in training if row["depth"] == 164 and "supernet" not in row["network"]]
    texts = []
    for form in dict.fromkeys(row["form"] for row in rows):
        minutes = {row["network"]: row["minutes"]["H200"] for row in rows if row["form"] == form}
        meet = [name for name, value in minutes.items() if value < TRAINING_GOAL]
        reached = f"reached by {', '.join(meet)}" if meet else "not reached by any network"
        texts.append(f"*{form}*: {reached} ({min(minutes.values()):.1f} to {max(minutes.values()):.1f} minutes)")
    return f"Predicted, {'; '.join(texts)}."


def inference_lines(part: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """A line for each network, its forms beside each other."""
    by_form = {form: {row["network"]: row for row in rows if row["form"] == form} for form in FORMS}
    for name, eager in by_form["eager"].items():
        deployed = by_form["deployed"][name]
        facts = FACTS.get(name) if part == "resnet50-float16" else None
        line = {
            "network": name,
            "GMACs": f"{eager['macs'] / BATCH / 1e9:.3f}",
            "MB, eager": f"{eager['bytes'] / BATCH / 1e6:.1f}",
            "MB, deployed": f"{deployed['bytes'] / BATCH / 1e6:.1f}",
            "more bytes (%)": in_percent(deployed["more_bytes"], None) + (f" ({100 * facts:.0f})" if facts else ""),
        }
        for form in FORMS:
            row = by_form[form][name]
            if form != "captured":
                line[f"{form}: kernels"] = f"{row['kernels']:,}"
            line[f"ms, {form}"] = both(row["seconds"], lambda time: f"{1e3 * time:.2f}")
            line[f"increment (%), {form}"] = both(row["increment"], lambda value: in_percent(value, None))
        goal = GOALS.get(name)
        if goal is not None:
            meets = {form: max(by_form[form][name]["increment"].values()) <= goal for form in ("deployed", "captured")}
            met = " and ".join(form for form, met in meets.items() if met)
            line["goal (%)"] = f"{100 * goal:.0f}, {f'met {met}' if met else 'missed'}"
        else:
            line["goal (%)"] = ""
        yield line


def piece_lines(all_pieces: Sequence[Piece]) -> Iterator[dict[str, str]]:
    for piece in all_pieces:
        minutes = piece.minutes
        start = piece.start / 60
        unders = [minutes is not None and minutes[card] + start < PIECE / 60 for card in CARDS]
        yield {
            "what": piece.name,
            "command": f"`{piece.command}`",
            **{f"{card} (min)": f"{minutes[card]:.1f}" if minutes else "not predicted" for card in CARDS},
            "under 8 min": "" if not minutes else "yes" if all(unders) else "no" if not any(unders) else "H200 only",
            **{f"{card} calls": str(piece.pieces(card) or "") for card in CARDS},
            "goes on by": piece.resumes,
            "note": piece.note,
        }


def page(results: Mapping[str, Any], all_pieces: Sequence[Piece]) -> str:
    """The Markdown page."""
    training = results["training"]
    text = INTRODUCTION.format(assumptions=ASSUMPTIONS)
    text += TRAINING.format(table=table(list(training_lines(training))), goal=TRAINING_GOAL, verdict=verdict(training))
    text += INFERENCE.format(batch=BATCH)
    shown: dict[str, Any] = {}
    for part, rows in results["inference"].items():
        same = next((other for other, its in shown.items() if all(row in its for row in rows)), None)
        lines = table(list(inference_lines(part, rows))) if same is None else f"By these counts, as {same}."
        shown[part] = rows
        text += f"\n### {part}\n\n{lines}\n"
    return text + PIECES.format(table=table(list(piece_lines(all_pieces))))


def count_all() -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Predictions of training and inference, counted in several processes."""
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1), get_context("spawn"), begin_worker) as pool:
        patterns = dict.fromkeys(pattern for pattern, _, _ in PARTS.values())
        counted = {pattern: pool.submit(count_inference, pattern) for pattern in patterns}
        rows = pool.map(predict_training, [*trainings(20), *trainings(164)])
        inference = predict_inference({pattern: future.result() for pattern, future in counted.items()})
        return [row for each in rows for row in each], inference


def begin_worker() -> None:
    """Prepare a process that counts: the cores are taken by processes, and what is imported is no garbage."""
    torch.set_num_threads(1)
    gc.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the two files")
    out = parser.parse_args().out
    training, inference = count_all()
    forward = {depth: search_passes(depth, *how) for depth, how in SEARCHES.items()}
    all_pieces = pieces(training, inference, forward)
    results = {
        "training": training,
        "inference": inference,
        "search_pass_s": {
            str(depth): {card: significant(time) for card, time in times.items()} for depth, times in forward.items()
        },
        "pieces": [asdict(piece) for piece in all_pieces],
    }
    write_record(out / f"{NAME}.json", kind="prediction of GPU times", results=results)
    write_text(out / f"{NAME}.md", page(results, all_pieces))
    print(f"predicted, not measured: {out / f'{NAME}.md'}")


if __name__ == "__main__":
    main()
