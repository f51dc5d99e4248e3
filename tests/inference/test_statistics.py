"""Gates of a network, block by block."""

import csv

import pytest
import torch

from ean_core import ConnectionScheme, EANResNet, EANResNetCIFAR, ImageClassifier
from ean_core.attention.se import SE
from ean_core.attention.sge import SGE
from ean_core.common.record import read_record
from ean_core.inference.statistics import GateMoments, GateStatistics, gate_statistics, watched_gates
from ean_core.report.gates import block_names, gates_figure
from ean_core.windows import windows_of

SCHEME = "010-110-001"


def classifier(attention, scheme=SCHEME, **options):
    torch.manual_seed(0)
    backbone = EANResNetCIFAR(20, attention, scheme=scheme, **options)
    for name, value in backbone.state_dict().items():
        if "attention" in name:  # SGE's weights are 0 before training, its gates alike
            value.normal_(0, 0.5)
    return ImageClassifier(backbone, 10, {"type": "ImagePreprocessor", "mean": [0.0] * 3, "std": [64.0] * 3}).eval()


def batches(number=3):
    draw = torch.Generator().manual_seed(1)
    return [
        {
            "inputs": torch.randint(256, (4, 3, 32, 32), generator=draw, dtype=torch.uint8),
            "labels": torch.zeros(4, dtype=torch.int64),
        }
        for _ in range(number)
    ]


@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
def test_statistics_are_those_of_all_gates_together(attention):
    model = classifier(attention)
    gates = {}
    with torch.inference_mode(), watched_gates(model.backbone, lambda n, gate: gates.setdefault(n, []).append(gate)):
        for batch in batches():
            model.test_step(batch)
    found = gate_statistics(model, batches())
    assert list(found) == sorted(gates) == [1, 3, 4, 8]
    for number, own in found.items():
        whole = torch.cat(gates[number]).double()  # (N, C) or (N, C, H, W)
        channels = whole.transpose(0, 1).flatten(1)
        assert own.mean == pytest.approx(whole.mean().item(), rel=1e-9)
        assert own.between_channels == pytest.approx(channels.mean(1).std(unbiased=False).item(), rel=1e-9)
        assert own.between_images == pytest.approx(channels.var(1, unbiased=False).mean().sqrt().item(), rel=1e-6)
        parts = own.between_channels**2 + own.between_images**2
        assert parts == pytest.approx(whole.var(unbiased=False).item(), rel=1e-6)


def test_a_gate_is_handed_over_with_its_block_although_blocks_share_a_module():
    network = classifier("SE", "111-000-000").backbone
    seen = []
    with torch.inference_mode(), watched_gates(network, lambda number, gate: seen.append((number, gate))):
        network(torch.randn(2, 3, 32, 32))
    assert [number for number, _ in seen] == [0, 1, 2]
    assert len({gate.sum().item() for _, gate in seen}) == 3


def test_a_network_is_left_as_it_was():
    network = classifier("DIA").backbone
    images = torch.randn(2, 3, 32, 32)
    before = network(images)[-1]
    with watched_gates(network, lambda *_: None):
        assert torch.equal(network(images)[-1], before)
    with pytest.raises(ZeroDivisionError), watched_gates(network, lambda *_: 1 / 0):
        network(images)
    assert torch.equal(network(images)[-1], before)
    assert "recalibrate" not in vars(network.attention_at(0, 1))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
def test_a_gate_includes_the_factor_of_identity_start(attention):
    own = {"type": attention, "identity_start": True}
    plain, scaled = (gate_statistics(classifier(cfg), batches()) for cfg in (attention, own))
    first = min(plain)  # later ones have other inputs
    gain = classifier(own).backbone.attention_at(0, 1).gain
    assert gain > 1
    for name in ("mean", "between_channels", "between_images"):
        assert getattr(scaled[first], name) == pytest.approx(gain * getattr(plain[first], name), rel=1e-5)


@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
@pytest.mark.parametrize("window", [(16, 20), (32, 32)])
def test_the_windows_of_an_image_give_it_one_gate(attention, window):
    network = classifier({"type": attention, "window": window}, "010-000-000").backbone
    module = network.attention_at(0, 1)
    seen, calls = [], []
    handle = module.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output[0])))
    with torch.inference_mode(), watched_gates(network, lambda number, gate: seen.append((number, gate))):
        network(torch.randn(2, 3, 32, 32))
    handle.remove()
    ((number, gate),), ((residual, output),) = seen, calls
    assert number == 1
    if attention == "SGE":  # a gate per position
        assert gate.shape[::2] == (2, 32)
        assert torch.equal(SGE.recalibrate(module, residual, gate), output)
        return
    assert gate.shape == residual.shape[:2]
    each = [module.process(module.extract(part.of(residual)), None)[0] for part in windows_of((32, 32), window)]
    assert torch.allclose(gate, torch.stack(each).mean(0), rtol=1e-5)


def test_modules_of_ones_own_a_block_are_watched_too():
    network = EANResNet(18, "SE", scheme="full", shared=False, base_channels=16).eval()
    seen = []
    with torch.inference_mode(), watched_gates(network, lambda number, _: seen.append(number)):
        network(torch.randn(1, 3, 64, 64))
    assert seen == list(range(8))


def test_constant_gates_are_found_constant(monkeypatch):
    model = classifier("SE")
    monkeypatch.setattr(SE, "process", lambda self, extracted, state: (torch.full_like(extracted, 0.7), None))
    for own in gate_statistics(model, batches()).values():
        assert (own.mean, own.between_channels) == pytest.approx((0.7, 0.0), abs=1e-6)
        assert own.nearly_constant
    assert not GateStatistics(0.5, 0.0, 0.03).nearly_constant
    assert GateStatistics(0.5, 0.3, 0.02).nearly_constant


def test_what_has_no_gates_is_refused():
    with pytest.raises(ValueError, match=r"scheme '000-000-000' connects no block"):
        gate_statistics(classifier("SE", "none"), batches())
    with pytest.raises(ValueError, match="cannot compute gate statistics: the data set is empty"):
        GateMoments().statistics()


def test_the_figure_shows_each_block_once(tmp_path):
    blocks = [{"block": name, "mean": 0.5, "between_channels": 0.1, "between_images": 0.05} for name in ("1.2", "2.1")]
    record = {"scheme": "010-1", "attention": "SE", "images": 1234, "blocks": blocks}
    gates_figure(record, tmp_path / "gates.svg")
    text = (tmp_path / "gates.svg").read_text()
    for name in block_names(ConnectionScheme.parse("010-1")):
        assert f">{name}<" in text
    assert ">SE, 1,234 images<" in text
    other = {**record, "blocks": [{**blocks[0], "between_images": 0.06}, blocks[1]]}
    gates_figure(other, tmp_path / "other.svg")
    assert (tmp_path / "other.svg").read_text() != text


def test_the_command(ean, tmp_path):
    config = "resnet20_se_digits"
    options = ["--cfg-options", f"model.backbone.scheme={SCHEME}", "train_cfg.max_epochs=1"]
    run = tmp_path / "run"
    assert ean("train", config, "--work-dir", run, *options)[0] == 0
    status, printed = ean("gates", config, run, *options)  # the folder stands for its checkpoint
    assert status == 0, status
    assert "3.3" in printed
    record = read_record(run / "gates.json")
    assert (record["scheme"], record["checkpoint"], record["images"]) == (SCHEME, "epoch_1.pth", 400)
    with (run / "gates.csv").open(newline="") as file:
        assert [line["block"] for line in csv.DictReader(file)] == ["1.2", "2.1", "2.2", "3.3"]
    assert (run / "gates.png").stat().st_size > 5000
    message, _ = ean("gates", config, run, "--cfg-options", "model.backbone.scheme=full", "train_cfg.max_epochs=1")
    assert "was trained with other settings: model.backbone.scheme is '010-110-001' there, 'full' here" in message
