"""Captured iterations: on a CPU with a recorder that runs the passes again, on a GPU with CUDA graphs."""

import copy
import json

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPERS
from torch import nn

from ean_core import ConnectionScheme, EANResNetCIFAR
from ean_core.attention import ATTENTION, attention_class
from ean_core.common.config import load_config
from ean_core.runs.capture import CapturedStep, CaptureHook, use_capture
from ean_core.runs.training import build_runner, run_training
from ean_core.weights.files import read_state_dict

ATTENTIONS = sorted(ATTENTION.module_dict)
STAGES = (3, 3, 3)


def module(name, channels=16):
    """Random weights, even where training starts from constants."""
    made = attention_class(name)(channels, **attention_class(name).cifar_options["basic"])
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


# ---------------------------------------------------------------- a connection that is a number


@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_connection_of_one_is_one_and_of_zero_is_none(name):
    attention, residual = module(name), torch.randn(2, 16, 4, 4)
    plain, state = attention(residual)
    whole, whole_state = attention(residual, None, torch.tensor(1.0))
    assert torch.equal(plain, whole)
    assert (state is None) == (whole_state is None)
    left, kept = attention(residual, state, torch.tensor(0.0))
    assert torch.equal(left, residual)
    for before, advanced, after in zip(state or (), whole_state or (), kept or (), strict=True):
        assert torch.equal(before, advanced)
        assert torch.equal(before, after)
    _, at_start = attention(residual, None, torch.tensor(0.0))
    assert all(not part.any() for part in at_start or ())


@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_connection_between_mixes_as_in_equation_4(name):
    attention, residual, share = module(name), torch.randn(2, 16, 4, 4), torch.tensor(0.3, requires_grad=True)
    mixed, _ = attention(residual, None, share)
    assert torch.allclose(mixed, 0.3 * attention(residual)[0] + 0.7 * residual, atol=1e-6)
    mixed.sum().backward()
    assert share.grad.isfinite()
    assert share.grad != 0


# ---------------------------------------------------------------- a scheme that is data


def gradients(network, x):
    network.zero_grad(set_to_none=True)
    out = network(x)[-1]
    out.square().mean().backward()
    return out, {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("with_cp", [False, True])
@pytest.mark.parametrize(("name", "shared"), [*((name, True) for name in ATTENTIONS), ("SE", False)])
def test_a_scheme_that_is_data_gives_what_the_scheme_gives(name, shared, with_cp):
    network = EANResNetCIFAR(20, name, scheme="full", base_channels=16, shared=shared, with_cp=with_cp)
    for module in network.attentions().values():
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
    other = copy.deepcopy(network)
    other.scheme_as_data()
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    for scheme in ("none", "full", "000-101-010", "110-000-001"):
        network.set_scheme(scheme)
        other.set_scheme(scheme)
        expected, wanted = gradients(network, x)
        found, given = gradients(other, x)
        assert torch.equal(found, expected)
        idle = {name for name, parameter in other.named_parameters() if parameter in other.idle_parameters()}
        assert idle == {name for name, gradient in wanted.items() if gradient is None}
        for key, gradient in given.items():
            assert torch.equal(gradient, torch.zeros_like(gradient) if key in idle else wanted[key]), key
    other.scheme_as_data(False)
    other.set_scheme("none")
    assert (
        gradients(other, x)[1][
            "layer1.attention.fc1.weight"
            if shared and name == "SE"
            else next(key for key in wanted if ".attention." in key)
        ]
        is None
    )


def test_a_scheme_can_be_data_where_every_block_has_a_module():
    network = EANResNetCIFAR(20, "SE", scheme="100-000-111")
    with pytest.raises(ValueError, match=r"no module for layer2\.attention; build the network with scheme='full'"):
        network.scheme_as_data()


def test_one_compiled_code_serves_all_schemes_that_are_data():
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    graphs, network = CompileCounter(), EANResNetCIFAR(20, "DIA", scheme="full")
    network.compile_blocks(backend=graphs, fullgraph=True)
    network.scheme_as_data()
    x = torch.randn(2, 3, 8, 8)
    gradients(network, x)
    compiled = graphs.frame_count
    assert compiled > 0
    draw = torch.Generator().manual_seed(0)
    for _ in range(4):
        network.set_scheme(ConnectionScheme.random(STAGES, generator=draw))
        gradients(network, x)
    assert graphs.frame_count == compiled


# ---------------------------------------------------------------- captured training


class Again:
    """Stand-in for a CUDA graph: repeats the passes and writes their results to the same memory."""

    def __init__(self, model):
        self.model = model
        self.recorded = 0

    def __call__(self, passes):
        self.recorded += 1
        for _ in range(2):
            losses = passes()
        kept = {parameter: parameter.grad for parameter in self.model.parameters() if parameter.grad is not None}
        for value in (*losses.values(), *kept.values()):
            value.fill_(torch.nan)  # a recording has computed nothing yet

        def replay():
            for name, value in passes().items():
                losses[name].copy_(value)
            for parameter, place in kept.items():
                place.copy_(parameter.grad)
                parameter.grad = None

        return losses, replay


class OnCPU(CaptureHook):
    """As on a GPU, except for the recorder."""

    made: list[CapturedStep] = []

    def step(self, model):
        self.made.append(CapturedStep(model, Again(model), interval=3))
        return self.made[-1]


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setitem(HOOKS.module_dict, "CaptureHook", OnCPU)
    monkeypatch.setattr(OnCPU, "made", [])


@pytest.mark.parametrize(
    ("name", "wrapper"),  # steps of each module with each wrapper are compared below
    [
        ("supernet_resnet20_se_digits", "OptimWrapper"),
        ("supernet_resnet20_dia_digits", "Bf16OptimWrapper"),
        ("resnet20_sge_digits", "OptimWrapper"),
    ],
)
def test_captured_training_ends_in_the_tensors_of_plain_training(tmp_path, on_cpu, name, wrapper):
    options = ["train_cfg.max_epochs=2", f"optim_wrapper.type={wrapper}", "optim_wrapper.clip_grad.max_norm=5"]
    plain = read_state_dict(run_training(load_config(name, options), tmp_path / "plain"))
    config = load_config(name, options)
    use_capture(config)
    captured = read_state_dict(run_training(config, tmp_path / "captured"))
    assert plain.keys() == captured.keys()
    assert [key for key, value in plain.items() if not torch.equal(value, captured[key])] == []
    (step,) = OnCPU.made
    assert step._recorder.recorded == 2  # whole batches, and the last one of an epoch


def test_losses_are_returned_now_and_then(tmp_path, on_cpu):
    config = load_config("resnet20_se_digits", ["train_cfg.max_epochs=1"])
    use_capture(config)
    runner = build_runner(config, tmp_path)
    seen = []
    after = runner.call_hook

    def call_hook(name, **arguments):
        if name == "after_train_iter":
            seen.append(dict(arguments["outputs"]))
        after(name, **arguments)

    runner.call_hook = call_hook
    runner.train()
    assert [bool(losses) for losses in seen[:7]] == [True, False, True, False, False, True, False]
    read = [losses["loss"].item() for losses in seen if losses]
    assert len(set(read)) == len(read)
    assert read[-1] < read[0]
    assert "train_step" not in vars(runner.model)
    assert runner.model.backbone.layer1.bits is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runner: None, "this network trains on cpu"),
        (
            lambda runner: setattr(runner.optim_wrapper, "_accumulative_counts", 2),
            "got OptimWrapper with accumulative_counts=2",
        ),
        (lambda runner: setattr(runner.optim_wrapper, "loss_scaler", None), "without accumulative_counts"),
        (lambda runner: setattr(runner, "model", nn.Linear(2, 2)), "not with Linear"),
        (lambda runner: setattr(runner.model.backbone, "with_cp", True), "does not work with model.backbone.with_cp"),
        (
            lambda runner: setattr(runner, "model", MMDistributedDataParallel.__new__(MMDistributedDataParallel)),
            "single",
        ),
    ],
)
def test_what_graphs_do_not_go_with_is_refused(tmp_path, change, message):
    runner = build_runner(load_config("resnet20_se_digits"), tmp_path)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    change(runner)
    with pytest.raises(ValueError, match=message):
        CaptureHook().before_train(runner)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_the_command_line_says_that_it_needs_a_gpu(tmp_path, ean):
    message, _ = ean("train", "resnet20_se_digits", "--capture", "--work-dir", tmp_path)
    assert "--capture records iterations as CUDA graphs, but this network trains on cpu" in message


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(("wrapper", "tolerance"), [("OptimWrapper", 1e-3), ("Bf16OptimWrapper", 3e-2)])
@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize(
    ("device", "compiled"),
    [("cpu", False), pytest.param("cuda", False, marks=needs_gpu), pytest.param("cuda", True, marks=needs_gpu)],
)
def test_each_captured_step_is_the_plain_one(name, wrapper, tolerance, device, compiled):
    """Batches of two shapes in turns, whose graphs share memory, under changing schemes: loss, weights, statistics."""
    torch.manual_seed(0)
    settings = load_config(f"supernet_resnet20_{name.lower()}_digits").model
    plain, captured = (
        MODELS.build({**settings, "compile_blocks": each}).to(device).train() for each in (False, compiled)
    )
    captured.load_state_dict(plain.state_dict())
    captured.backbone.scheme_as_data()
    recorder = Again(captured) if device == "cpu" else None
    sides = []
    for model, step in ((plain, plain.train_step), (captured, CapturedStep(captured, recorder, interval=1))):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        config = {"type": wrapper, "optimizer": optimizer, "clip_grad": {"max_norm": 5}}
        sides.append((model, step, OPTIM_WRAPPERS.build(config)))
    for number, scheme in enumerate(("full", "010-100-000", "none", "111-000-101", "000-000-001", "full")):
        n = (64, 37)[number % 2]
        images = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, device=device)
        data = {"inputs": images, "labels": torch.randint(10, (n,), device=device)}
        losses = []
        captured.load_state_dict(plain.state_dict())  # what rounding makes of one step does not grow in the next
        for model, step, optim in sides:
            model.backbone.set_scheme(scheme)
            losses.append(step(data, optim_wrapper=optim)["loss"].item())
        assert losses[0] == pytest.approx(losses[1], rel=tolerance), scheme
        for (key, wanted), found in zip(plain.state_dict().items(), captured.state_dict().values(), strict=True):
            if wanted.is_floating_point():
                assert (found - wanted).norm() <= tolerance * wanted.norm().clamp_min(1e-2), (scheme, key)


@needs_gpu
def test_on_a_gpu_a_captured_run_trains_and_resumes(tmp_path):
    for epochs in (1, 3):
        config = load_config("supernet_resnet20_se_digits", [f"train_cfg.max_epochs={epochs}"])
        use_capture(config)
        run_training(config, tmp_path, resume=True)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["epochs"] == 3
    assert record["validation"]["accuracy/top1"] > 20  # ten classes
