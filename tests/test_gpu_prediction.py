"""What benchmarks/gpu_prediction.py counts; its assumptions are not tested, for nothing was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ean_core.backbone import EANResNetCIFAR
from ean_core.inference.cost import count_bytes, count_macs
from ean_core.inference.deploy import deploy

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # for what the script imports from its neighbours, too
try:
    import campaign
    import gpu_prediction as prediction
finally:
    sys.path.remove(str(BENCHMARKS))

COMMITTED = prediction.RESULTS / "gpu_prediction.json"


def listed(network, images, **options):
    with prediction.Counter(**options) as counter:
        network(images)
    return counter.operators


def test_operators_of_a_small_network_are_those_worked_out_by_hand():
    with FakeTensorMode():
        norm, linear = nn.BatchNorm2d(4), nn.Linear(256, 5)
        network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), norm, nn.ReLU(), nn.Flatten(), linear)
        operators = listed(network, torch.zeros(2, 3, 8, 8))
    map_ = 2 * 4 * 8 * 8
    assert [(each.name, each.kernels, each.bytes, each.flops) for each in operators] == [
        ("convolution", 1, 4 * (2 * 3 * 64 + 4 * 3 * 9 + map_), 2 * map_ * 3 * 9),
        ("add_", 1, 8 + 8, 0),  # how many batches the norm has seen
        ("_native_batch_norm_legit", 2, 4 * (map_ + 4 * 4 + map_ + 2 * 4), 0),
        ("relu", 1, 4 * (map_ + map_), 0),
        ("addmm", 1, 4 * (5 + map_ + 256 * 5 + 2 * 5), 2 * 2 * 256 * 5),
    ]
    assert prediction.totals(operators) == {"kernels": 6, "bytes": 4016 + 16 + 4192 + 4096 + 7228, "flops": 32768}
    assert prediction.totals(prediction.fused(operators)) == {"kernels": 4, "bytes": 4016 + 4192 + 7228, "flops": 32768}


def test_a_sum_that_rides_on_its_neighbour_still_reads_its_other_operand():
    (operator,) = listed(lambda x: x + torch.ones(()).expand(10, 10).detach(), torch.zeros(10, 10))[1:]
    assert (operator.name, operator.bytes) == ("add", 1200)
    assert prediction.totals(prediction.fused([operator])) == {"kernels": 0, "bytes": 400, "flops": 0}


def test_conversions_of_weights_do_not_ride():
    weight = torch.zeros(4, 3)
    (kept,) = listed(lambda x: weight.bfloat16(), weight, weights=frozenset([weight.shape]))
    (free,) = listed(lambda x: weight.bfloat16(), weight)
    assert not kept.pointwise
    assert free.pointwise


def test_a_time_is_the_longest_of_bytes_operations_and_launches_summed_and_at_least_the_hosts():
    reached = prediction.CARDS["H200"] * prediction.BANDWIDTH_SHARE
    operators = [
        prediction.Operator("reads", 1, int(1e-3 * reached), 1),
        prediction.Operator("computes", 1, 1, int(2e-3 * 1e12)),
        prediction.Operator("is short", 2, 1, 1),
    ]
    expected = 3e-3 + 2 * prediction.SHORTEST
    assert prediction.seconds(operators, "H200", 1e12) == pytest.approx(expected)
    assert prediction.seconds(operators, "H200", 1e12, host=0.5) == 0.5


@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
@pytest.mark.parametrize("made", [lambda network: network, deploy])
def test_bytes_and_operations_are_those_of_timing_records(attention, made):
    network, images = made(EANResNetCIFAR(164, attention, scheme="full").eval()), torch.zeros(2, 3, 16, 16)
    macs, moved = count_macs(network, images), count_bytes(network, images)
    operators = prediction.count_pass(network, FakeTensorMode(), 2, 16, torch.float32)
    assert prediction.totals(operators)["flops"] // 2 // 2 == macs
    assert prediction.totals(operators)["bytes"] // 2 == moved


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_connection_of_a_deployed_network_adds_the_kernels_of_its_gate(dtype):
    def kernels(scheme, attention):
        network = deploy(EANResNetCIFAR(164, attention, scheme=scheme), dtype=dtype)
        operators = prediction.count_pass(network, FakeTensorMode(), 2, 16, dtype)
        on_gpu = prediction.as_deployed_on_gpu(operators, None if scheme == "none" else attention)
        return prediction.totals(on_gpu)["kernels"]

    vanilla = kernels("none", "SE")
    # Stem and bodies: convolution, bias, ReLU; last ones alone; shortcuts: convolution, bias.
    assert vanilla == 3 + 54 * (2 * 3 + 1) + 3 * 2
    for attention, each in prediction.GATE_KERNELS.items():
        assert kernels("full", attention) == vanilla + 54 * each, attention


def test_a_supernet_counts_more_than_a_vanilla_network_and_what_is_committed():
    committed = json.loads(COMMITTED.read_text())["results"]["training"]
    by_name = {}
    for training in prediction.trainings(20):
        if training.network in ("vanilla", "SE supernet"):
            rows = by_name[training.network] = prediction.predict_training(training)
            assert rows == [row for row in committed if (row["depth"], row["network"]) == (20, training.network)]
    for vanilla, supernet in zip(by_name["vanilla"], by_name["SE supernet"], strict=True):
        assert vanilla["kernels"] < supernet["kernels"]
        assert vanilla["bytes"] < supernet["bytes"]
    for plain, compiled in by_name.values():
        assert plain["bytes"] > compiled["bytes"]
        assert plain["kernels"] > compiled["kernels"]


def test_the_committed_page_is_made_of_the_committed_record_and_says_what_it_is():
    results = json.loads(COMMITTED.read_text())["results"]
    page = prediction.page(results, [prediction.Piece(**piece) for piece in results["pieces"]])
    assert page == COMMITTED.with_suffix(".md").read_text()
    assert page.splitlines()[2].startswith("**No figure of a GPU exists yet. Everything below is predicted**")


@pytest.mark.slow
def test_the_script_gives_the_committed_record(tmp_path):
    command = [sys.executable, BENCHMARKS / "gpu_prediction.py", "--out", tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    made = json.loads((tmp_path / COMMITTED.name).read_text())
    assert made["kind"] == "prediction of GPU times"
    assert made["results"] == json.loads(COMMITTED.read_text())["results"]


def test_the_pieces_are_those_of_the_campaign():
    opened = campaign.open_campaign(small=False, gpu=True)
    steps = opened.steps
    assert sum(isinstance(step, campaign.Alone) for step in steps) == prediction.ALONE
    named = {piece["name"] for piece in json.loads(COMMITTED.read_text())["results"]["pieces"]}
    assert {step.name for step in steps if not isinstance(step, campaign.Alone)} <= named
    commands = {step.name: " ".join(map(str, step.commands(opened))) for step in steps}
    assert f"evaluations={prediction.EVALUATIONS}" in commands["search_resnet164_se.cifar100/seed_0"]
    _, seeds, evaluations = prediction.COMPARED
    assert f"--evaluations {evaluations} --seeds {seeds}" in commands["compare_resnet164_se.cifar100/seed_0"]
