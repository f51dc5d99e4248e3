import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapperDict
from torch import nn

from ean_core import ConnectionScheme, EANResNetCIFAR, ImageClassifier
from ean_core.common.config import load_config
from ean_core.inference.latency import BlockTimes
from ean_core.runs.training import run_training
from ean_core.search.darts import AlternatingOptimizers, DartsSettings, GateHook, RelaxedClassifier, run_darts
from ean_core.search.evaluator import weights_hash
from ean_core.weights.files import read_state_dict

STAGES = (3, 3, 3)
CLASSES = 5
SMALL = ["model.backbone.base_channels=4"]
ATTENTION = ["SE", "SGE", "DIA"]


def relaxed(attention="SE", seed=0, *, shared=True, **options):
    """A small network with random weights and statistics, and attention with a large effect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = EANResNetCIFAR(20, attention, scheme="full", in_channels=1, base_channels=4, shared=shared)
        preprocessor = {"type": "ImagePreprocessor", "mean": [120.0], "std": [60.0]}
        model = RelaxedClassifier(backbone, CLASSES, data_preprocessor=preprocessor, **options)
        for name, tensor in model.state_dict().items():
            if "attention" in name:
                tensor.mul_(3).add_(torch.randn_like(tensor))
            elif tensor.dim() == 1 and name not in ("alphas", "fc.bias"):
                tensor.uniform_(*((0.5, 1.5) if name.endswith(("weight", "var")) else (-0.5, 0.5)))
    return model


def optimizers(model, lr=0.1, alpha_lr=0.1, wrapper="OptimWrapper"):
    sgd = {"type": "SGD", "lr": lr, "momentum": 0.9, "weight_decay": 0.1}
    adam = {"type": "Adam", "lr": alpha_lr, "weight_decay": 1e-3}
    configs = {"weights": {"type": wrapper, "optimizer": sgd}, "alphas": {"type": wrapper, "optimizer": adam}}
    return AlternatingOptimizers(Config(configs)._cfg_dict)(model)


def batch(n=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randint(256, (n, 1, 8, 8), generator=draw, dtype=torch.uint8)
    return {"inputs": inputs, "labels": torch.randint(CLASSES, (n,), generator=draw)}


def connect(model, scheme):
    """Gates of 0 and 1."""
    with torch.no_grad():
        model.alphas.copy_(200.0 * (2 * torch.tensor(scheme.bits) - 1))


def as_scheme(model, scheme, inputs):
    """Logits of the plain network with that scheme and the same weights."""
    model.backbone.set_scheme(scheme)
    logits = ImageClassifier.forward(model, inputs)
    model.backbone.set_scheme("full")
    return logits


def search_config(*options, attention="se", **strategy):
    config = load_config(f"search_resnet20_{attention}_digits", [*SMALL, *options])
    config.search.strategy = {"type": "darts", **strategy}
    return config


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("supernet")
    return run_training(load_config("supernet_resnet20_se_digits", [*SMALL, "train_cfg.max_epochs=2"]), folder)


@pytest.fixture(scope="module")
def finished(supernet, tmp_path_factory):
    """A search of two epochs, and the scheme that it returned."""
    folder = tmp_path_factory.mktemp("darts")
    return folder, run_darts(search_config(epochs=2), supernet, folder)


# ---------------------------------------------------------------- the relaxed network


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("attention", ATTENTION)
def test_gates_of_0_and_1_are_a_scheme(attention, shared):
    model = relaxed(attention, shared=shared).eval()
    inputs = model.data_preprocessor(batch())["inputs"]
    draw = torch.Generator().manual_seed(1)
    seen = []
    for scheme in ["full", "none", "010-001-100", *(ConnectionScheme.random(STAGES, 0.5, draw) for _ in range(5))]:
        scheme = ConnectionScheme.parse(scheme, STAGES)
        connect(model, scheme)
        assert model.scheme == scheme
        with torch.no_grad():
            logits = model(inputs)
            assert torch.equal(logits, as_scheme(model, scheme, inputs))
        seen.append(logits)
    assert len({tuple(logits.flatten().tolist()) for logits in seen}) == len(seen), "the attention changes nothing"


def test_new_gates_are_half_open():
    model = relaxed()
    assert model.gates.tolist() == [0.5] * 9
    assert str(model.scheme) == "000-000-000"


@pytest.mark.parametrize("attention", ATTENTION)
def test_gradients_of_the_alphas(attention):
    """Each alpha has one, and it is the slope of the loss."""
    model = relaxed(attention).double().eval()
    data = model.data_preprocessor(batch())
    inputs, labels = data["inputs"].double(), data["labels"]

    def loss():
        return nn.functional.cross_entropy(model(inputs), labels)

    loss().backward()
    with torch.no_grad():
        for i, gradient in enumerate(model.alphas.grad.tolist()):
            model.alphas[i] += 1e-4
            above = loss()
            model.alphas[i] -= 2e-4
            slope = (above - loss()).item() / 2e-4
            model.alphas[i] += 1e-4
            assert gradient != 0
            assert gradient == pytest.approx(slope, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("wrapper", ["OptimWrapper", "Bf16OptimWrapper"])
def test_each_step_moves_its_own(attention, wrapper):
    model = relaxed(attention).train()
    wrappers = optimizers(model, wrapper=wrapper)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def moved():
        return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}

    first = model.alpha_step(batch(), wrappers)
    assert first.isfinite()
    assert moved() == {"alphas"}
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name != "alphas")
    before["alphas"] = model.alphas.detach().clone()
    losses = model.train_step(batch(seed=1), wrappers)
    assert losses["loss"].isfinite()
    assert moved() == before.keys() - {"alphas"}
    # neither the gradients nor the momentum of one step reach the other
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.alpha_step(batch(seed=2), wrappers)
    assert moved() == {"alphas"}
    assert all(norm.track_running_stats for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


def test_weights_keep_the_options_of_one_optimizer():
    model = relaxed()
    bias_free = {"custom_keys": {"backbone.conv1": {"decay_mult": 0.0}}}
    sgd = {"type": "SGD", "lr": 0.1, "weight_decay": 0.1}
    configs = {"weights": {"optimizer": sgd, "paramwise_cfg": bias_free}, "alphas": {"optimizer": {"type": "Adam"}}}
    wrappers = AlternatingOptimizers(Config(configs)._cfg_dict)(model)
    assert isinstance(wrappers, OptimWrapperDict)
    decay = {id(p): group["weight_decay"] for group in wrappers["weights"].param_groups for p in group["params"]}
    assert decay[id(model.backbone.conv1.weight)] == 0
    assert decay[id(model.fc.weight)] == 0.1
    assert id(model.alphas) not in decay


def test_alphas_find_the_scheme_that_made_the_labels():
    """Labels from a network with attention on three blocks; attention on the others only does harm."""
    model = relaxed(shared=False, seed=3).train()
    scheme = ConnectionScheme.parse("100-010-001")
    data = batch(64)
    with torch.no_grad():
        model.fc.weight.mul_(20)
        data["labels"] = as_scheme(model, scheme, model.data_preprocessor(data)["inputs"]).argmax(1)
    wrappers = optimizers(model, alpha_lr=0.2)
    losses = [model.alpha_step(data, wrappers).item() for _ in range(60)]
    assert model.scheme == scheme
    assert losses[-1] < 0.5 * losses[0]


def test_the_penalty_is_the_expected_cost():
    costs = [3.0, 1, 1, 2, 1, 1, 4, 1, 0]

    def gradient(**options):
        model = relaxed(**options).train()
        model.alpha_step(batch(), optimizers(model))
        return model.alphas.grad

    plain = gradient()
    weighed = torch.tensor(costs) / sum(costs)
    assert torch.allclose(gradient(penalty=2.0, costs=costs) - plain, 2.0 / 4 * weighed, atol=1e-6)
    assert torch.allclose(gradient(penalty=2.0) - plain, torch.full((9,), 2.0 / 4 / 9), atol=1e-6)


@pytest.mark.parametrize("costs", [[1.0] * 8, [0.0] * 9, [-1.0] + [1.0] * 8])
def test_costs_that_are_none(costs):
    with pytest.raises(ValueError, match=r"costs must be 9 non-negative times, one per block, not all 0; got"):
        relaxed(costs=costs)


def test_a_relaxed_network_needs_all_modules_and_predicts_nothing():
    with pytest.raises(ValueError, match="scheme='full'"):
        RelaxedClassifier(EANResNetCIFAR(20, scheme="100-000-100"), CLASSES)
    with pytest.raises(ValueError, match="unknown mode of a relaxed network 'predict'"):
        relaxed()(torch.zeros(1, 1, 8, 8), mode="predict")
    with pytest.raises(ValueError, match="needs labels"):
        relaxed()(torch.zeros(1, 1, 8, 8), mode="loss")


# ---------------------------------------------------------------- the run


def test_a_run_ends_in_a_scheme_and_a_record(finished, supernet):
    folder, scheme = finished
    record = json.loads((folder / "darts.json").read_text())
    alphas = read_state_dict(folder / "epoch_2.pth")["alphas"]
    assert record["kind"] == "darts"
    assert record["supernet"] == str(supernet)
    assert record["weights"] == weights_hash(read_state_dict(supernet))
    assert record["settings"] == {"epochs": 2, "lr": 0.01, "alpha_lr": 0.01, "penalty": 0.0}
    assert record["alphas"] == alphas.tolist()
    assert record["gates"][-1] == alphas.sigmoid().tolist()
    assert len(record["gates"]) == 2
    assert record["scheme"] == str(scheme)
    assert scheme.bits == tuple(int(alpha > 0) for alpha in alphas)
    assert record["connections"] == scheme.connections
    training = json.loads((folder / "record.json").read_text())
    loader = training["settings"]["default_hooks"]["scheme"]["dataloader"]
    assert (loader["batch_size"], loader["sampler"]["shuffle"], loader["dataset"]["split"]) == (64, True, "val")
    assert training["validation"] is None or not training["validation"]


def test_the_run_begins_with_the_supernets_weights(supernet, tmp_path):
    run_darts(search_config(epochs=1, lr=0.0), supernet, tmp_path)
    before, after = read_state_dict(supernet), read_state_dict(tmp_path / "epoch_1.pth")
    assert after.keys() - before.keys() == {"alphas"}
    trained = [name for name in before if not name.endswith(("mean", "var", "tracked"))]
    assert all(torch.equal(after[name], before[name]) for name in trained)


def test_an_interrupted_run_ends_in_the_same_alphas(finished, supernet, tmp_path, monkeypatch):
    whole, scheme = finished
    step, calls = RelaxedClassifier.alpha_step, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == 20:  # in the second epoch
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(RelaxedClassifier, "alpha_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_darts(search_config(epochs=2), supernet, tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / "darts.json").exists()
    with pytest.raises(FileExistsError, match="--resume"):
        run_darts(search_config(epochs=2), supernet, tmp_path)
    assert run_darts(search_config(epochs=2), supernet, tmp_path, resume=True) == scheme

    records = [json.loads((folder / "darts.json").read_text()) for folder in (whole, tmp_path)]
    assert records[0]["alphas"] == records[1]["alphas"]
    assert records[0]["gates"] == records[1]["gates"]
    states = [torch.load(folder / "epoch_2.pth", weights_only=True) for folder in (whole, tmp_path)]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name
    moments = [state["optimizer"]["alphas"]["state"][0] for state in states]
    assert torch.equal(moments[0]["exp_avg_sq"], moments[1]["exp_avg_sq"])


def test_resuming_a_finished_run_leaves_its_record(finished, supernet):
    folder, scheme = finished
    before = (folder / "darts.json").read_bytes()
    assert run_darts(search_config(epochs=2), supernet, folder, resume=True) == scheme
    assert (folder / "darts.json").read_bytes() == before


def test_a_run_is_not_resumed_under_other_settings(finished, supernet):
    folder, _ = finished
    for strategy, named in [
        ({"penalty": 1.0}, "model.penalty is 0.0 there, 1.0 here"),
        ({"alpha_lr": 0.5}, "optim_wrapper.alphas.optimizer.lr is 0.01 there, 0.5 here"),
        ({"lr": 0.5}, "optim_wrapper.weights.optimizer.lr is 0.01 there, 0.5 here"),
    ]:
        with pytest.raises(ValueError, match=re.escape(named)):
            run_darts(search_config(epochs=2, **strategy), supernet, folder, resume=True)
    with pytest.raises(ValueError, match=r"model.supernet.weights is '\w+' there, '\w+' here"):
        run_darts(search_config(epochs=2), supernet.with_name("epoch_1.pth"), folder, resume=True)


def test_a_strong_penalty_closes_all_gates(supernet, tmp_path):
    times = BlockTimes(STAGES, 1.0, (1.0,) * 9, (1.0, 2.0, 3.0) * 3, (1.0,) * 9)
    config = search_config("optim_wrapper.type=Bf16OptimWrapper", epochs=1, penalty=1000)
    assert str(run_darts(config, supernet, tmp_path, times=times)) == "000-000-000"
    record = json.loads((tmp_path / "darts.json").read_text())
    assert max(record["gates"][-1]) < 0.47
    assert record["costs"] == pytest.approx([1 / 18, 2 / 18, 3 / 18] * 3)


def test_the_config_is_left_as_it_is(supernet, tmp_path):
    config = search_config(epochs=1)
    before = config.pretty_text
    run_darts(config, supernet, tmp_path)
    assert config.pretty_text == before


def test_another_networks_checkpoint_is_refused(supernet, tmp_path):
    with pytest.raises(ValueError, match=r"backbone.attention is 'SE' there, 'DIA' here"):
        run_darts(search_config(attention="dia"), supernet, tmp_path)


def test_validation_batches_follow_from_seed_and_epoch():
    loader = {**search_config().val_dataloader, "batch_size": 150}
    loader["sampler"] = {"type": "EpochSampler", "shuffle": True}

    class Runner:
        seed, epoch, train_dataloader = 0, 0, range(4)  # 4 iterations, and passes of 3 batches

    def labels(epoch, n):
        hook = GateHook(loader)
        hook.before_train(Runner)
        Runner.epoch = epoch
        hook.before_train_epoch(Runner)
        return [next(hook._batches)["labels"] for _ in range(n)]

    first, again, second = labels(0, 4), labels(0, 4), labels(1, 4)
    assert [len(part) for part in first] == [150, 150, 100, 150]
    assert torch.equal(torch.cat(first[:3]).bincount(), torch.full((10,), 40))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[3])
    assert not any(torch.equal(second[0], part) for part in first)


# ---------------------------------------------------------------- settings


def test_settings():
    assert DartsSettings.read({"type": "darts", "epochs": 3, "penalty": 1}) == DartsSettings(3, 0.01, 0.01, 1)
    assert DartsSettings.read({"type": "ean", "evaluations": 900}) == DartsSettings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "unknown setting of darts 'epoch'; did you mean 'epochs'? Choose from"),
        ({"evaluations": 3}, "unknown setting of darts 'evaluations'"),
        ({"epochs": 0}, "epochs of darts must be an integer of at least 1, got 0"),
        ({"epochs": 2.5}, "got 2.5; for example epochs=10"),
        ({"lr": -1}, "lr of darts must be a finite number of at least 0, got -1"),
        ({"alpha_lr": "high"}, "alpha_lr of darts must be a finite number of at least 0, got 'high'"),
        ({"penalty": float("nan")}, "penalty of darts must be a finite number of at least 0, got nan"),
    ],
)
def test_wrong_settings_say_what_to_type(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DartsSettings.read({"type": "darts", **options})
