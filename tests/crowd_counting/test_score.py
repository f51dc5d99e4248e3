"""Counters' schemes scored by MAE: like a validation of each scheme alone, and searched through the command."""

import json
import math
import multiprocessing
import os
import signal
from itertools import product
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import MODELS
from torch.utils.data import DataLoader

from ean_core import ConnectionScheme
from ean_core.search.evaluator import FIXED_NORMS, RecalibratedEvaluator, SupernetEvaluator, dismiss, serve
from ean_core.search.fold import measure_constants
from ean_core.search.ledger import Ledger
from ean_core.weights.files import save_weights
from tasks.cli import main
from tasks.crowd_counting.annotations import find_own
from tasks.crowd_counting.dataset import CrowdDataset, crowd_batch
from tasks.crowd_counting.drawing import draw_crowd
from tasks.crowd_counting.prepare import Kernel, prepare
from tasks.crowd_counting.score import CounterScorer

ROOT = Path(__file__).resolve().parents[2]
BACKBONE = {
    "type": "EANResNet",
    "depth": 18,
    "attention": "SE",
    "scheme": "full",
    "num_stages": 3,
    "strides": (1, 2, 1),
    "base_channels": 16,
    "stem_channels": 8,
    "norm_eval": True,
}
ALL = [ConnectionScheme((2, 2, 2), bits) for bits in product((0, 1), repeat=6)]
SIZES = [(64, 96), (72, 56), (64, 90), (40, 40), (96, 64)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """EAN_DATA with prepared images of different sizes, of which five validate."""
    root = tmp_path_factory.mktemp("data")
    lines = []
    for n in range(len(SIZES) + 6):
        size = SIZES[n % len(SIZES)]
        picture, heads = draw_crowd(4 + 3 * n, size, seed=n)
        picture.save(root / f"{n}.png")
        split = "val" if n < len(SIZES) else "train"
        lines += [f"{n}.png,{x},{y},{split}" for x, y in heads]
    (root / "points.csv").write_text("\n".join(["image,x,y,split", *lines]))
    prepare(find_own(root, root / "points.csv"), root, root / "crowd/own", Kernel(sigma=4.0))
    return root


@pytest.fixture
def images(data, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    return CrowdDataset("val", "crowd/own")


def network(seed=0, **backbone):
    """A supernet with weights and statistics far from their initial values."""
    preprocessor = {"type": "ImagePreprocessor", "mean": [120.0] * 3, "std": [60.0] * 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = MODELS.build(
            {
                "type": "CrowdCounter",
                "backbone": {**BACKBONE, **backbone},
                "head_channels": 8,
                "data_preprocessor": preprocessor,
            }
        )
        for name, tensor in made.backbone.state_dict().items():
            if tensor.dim() == 1 and "attention" not in name:
                tensor.uniform_(*((0.5, 1.5) if name.endswith(("weight", "var")) else (-0.5, 0.5)))
        for value in made.density.state_dict().values():
            value.abs_().mul_(5)
    return made.eval()


def loader(images):
    return DataLoader(images, 1, collate_fn=crowd_batch)


def validated(counter, images, scheme):
    """MAE of one scheme as in a validation."""
    counter.backbone.set_scheme(scheme)
    evaluator = Evaluator({"type": "CountMetric"})
    with torch.no_grad():
        for batch in loader(images):
            evaluator.process(data_samples=counter.val_step(batch), data_batch=batch)
    found = evaluator.evaluate(len(images))["count/MAE"]
    counter.backbone.set_scheme("full")
    return found


def test_constants_in_the_place_of_gates_score_as_a_validation(images):
    counter = network()
    measure_constants(counter, loader(images))
    chosen = [ConnectionScheme.parse(text) for text in ("c1-11-11", "cc-1c-11", "11-11-1c")]
    scores = SupernetEvaluator(counter, loader(images), "data").evaluate(chosen)
    assert scores == [validated(counter, images, scheme) for scheme in chosen]
    assert len({*scores}) == 3


@pytest.mark.parametrize("attention", ["SE", "DIA"])
def test_schemes_score_to_the_last_bit_as_a_validation_of_each(images, attention):
    counter = network(attention=attention)
    evaluator = SupernetEvaluator(counter, loader(images), "data")
    scores = evaluator.evaluate(ALL)
    assert evaluator.bodies == 63 * len(images)
    chosen = ALL[::13]
    assert [scores[ALL.index(scheme)] for scheme in chosen] == [validated(counter, images, each) for each in chosen]
    assert len(set(scores)) == 64
    counts = [each["count"] for batch in loader(images) for each in counter.val_step(batch)]
    errors = torch.tensor([abs(count - len(images[n]["points"])) for n, count in enumerate(counts)])
    assert scores[-1].standard_error == pytest.approx(float(errors.double().std() / math.sqrt(len(images))))
    assert (evaluator.metric.label, evaluator.metric.unit, evaluator.metric.less_is_better) == ("MAE", "people", True)
    assert evaluator.key["metric"]["name"] == "count/MAE"


def test_images_in_tiles_score_as_a_validation_in_tiles(images):
    counter = network()
    whole = counter.count_map
    counter.count_map = lambda image: whole(image, tile=32, margin=16)
    evaluator = SupernetEvaluator(counter, loader(images), "data")
    chosen = ALL[5::20]
    assert evaluator.evaluate(chosen) == [validated(counter, images, scheme) for scheme in chosen]
    assert evaluator.bodies > 3 * 6 * len(images)
    assert "forward" not in vars(counter.backbone)
    assert "forward" not in vars(counter.density)


def test_fixed_norms_are_not_estimated_again_and_moving_ones_are(images):
    fixed = SupernetEvaluator(network(), loader(images), "data", "bf16")
    careful = RecalibratedEvaluator(fixed, None, "calibration")
    assert careful.key == {**SupernetEvaluator(network(), (), "data", images=1).key, "calibration": FIXED_NORMS}
    assert careful.evaluate(ALL[7:9]) == SupernetEvaluator(network(), loader(images), "data").evaluate(ALL[7:9])
    moving = SupernetEvaluator(network(norm_eval=False), loader(images), "data")
    again = RecalibratedEvaluator(moving, loader(images), "calibration")
    assert again.key["calibration"] == "calibration"
    assert again.evaluate(ALL[7:9]) != moving.evaluate(ALL[7:9])


def test_the_fingerprint_tells_images_and_points(images, data):
    def fingerprint(kept=slice(None)):
        chosen = CrowdDataset("val", "crowd/own")
        chosen.entries = chosen.entries[kept]
        return CounterScorer(network(), None).fingerprint(chosen, {})

    before = fingerprint()
    assert fingerprint() == before != fingerprint(slice(1, None))
    path = images.pictures / images.entries[0]["image"]
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    changed = fingerprint()
    path.write_bytes(content)
    assert changed != before == fingerprint()


def share(rank, meeting, images, answers):
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    evaluator = SupernetEvaluator(network(), list(loader(images))[rank::2], "data", images=len(images))
    if rank:
        serve(evaluator)
        return
    scores = evaluator.evaluate(ALL[::16])
    dismiss()
    answers.put([(float(score), score.standard_error) for score in scores])


def test_two_processes_score_as_one(images, tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=share, args=(rank, tmp_path / "meeting", images, answers)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = answers.get(timeout=120)
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    alone = SupernetEvaluator(network(), loader(images), "data").evaluate(ALL[::16])
    assert found == [(float(score), score.standard_error) for score in alone]


# ---------------------------------------------------------------- the command


CONFIG = """
_base_ = {base!r}
model = dict(
    data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
    head_channels=8,
    backbone=dict(base_channels=16, stem_channels=8, attention=dict(_delete_=True, type='SE'), init_cfg=None))
train_dataloader = dict(dataset=dict(root='crowd/own', part='own'))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(root='crowd/own', part='own'))
search = dict(finalists=dict(count=3))
"""


@pytest.fixture
def command(tmp_path, images):
    config = tmp_path / "search_small.py"
    config.write_text(CONFIG.format(base=str(ROOT / "configs/search/search_resnet18_se_shanghaitech_b.py")))
    supernet = tmp_path / "supernet.safetensors"
    save_weights(network().state_dict(), supernet, {})

    def words(folder, *more):
        return ["search", str(config), "--supernet", str(supernet), "--work-dir", str(tmp_path / folder), *more]

    return words


def test_a_search_returns_the_scheme_of_least_error_and_says_so_in_people(
    command, ean, images, ledger_lines, tmp_path, monkeypatch
):
    status, out = ean(*command("whole"))
    assert not status, out
    key, *lines = ledger_lines(tmp_path / "whole/ledger.jsonl")
    assert key["metric"] == {
        "name": "count/MAE",
        "title": "MAE",
        "unit": "people",
        "less_is_better": True,
        "short": "",
    }
    assert key["reward"] == {"MAE": 1.0, "sparsity": 0.5, "latency": 0.0, "table": None}
    assert not any("accuracy" in line for line in lines)
    asked = [line for line in lines if isinstance(line["step"], int)]
    assert len(asked) == 64
    for line in asked:
        sparsity = ConnectionScheme.parse(line["scheme"]).sparsity
        assert line["reward"] == pytest.approx(0.5 * sparsity - line["MAE"])
    best = max(asked, key=lambda line: line["reward"])
    assert best["MAE"] == validated(network(), images, best["scheme"])
    record = json.loads((tmp_path / "whole/search.json").read_text())
    assert record["scheme"]["scheme"] == record["best_seen"]["scheme"] == best["scheme"]
    assert record["norms"] == FIXED_NORMS
    errors = [each["MAE"] for each in record["front"]]  # more connections, less error
    assert errors == sorted(errors, reverse=True)
    scores = {line["scheme"]: line["MAE"] for line in asked}
    for name, scheme in (("full", "11-11-11"), ("none", "00-00-00")):
        if scheme != best["scheme"]:
            found = record["differences"][name]
            assert found["value"] == pytest.approx(best["MAE"] - scores[scheme])
            assert found["standard_error"] > 0
            assert found["interval"] is None
            assert f"difference from {name} on the same images: {found['value']:+.2f} ± " in out
    assert f"MAE {best['MAE']:.2f} ± {best['standard_error']:.2f} people" in out
    assert "accuracy" not in out
    assert "re-estimating" not in out
    assert (tmp_path / "whole/front.png").exists()
    status, shown = ean("watch", tmp_path / "whole", "--once")
    assert f"MAE {best['MAE']:.2f} ± " in shown

    append = Ledger.append

    def kill(ledger, *written):
        append(ledger, *written)
        if written[0].get("step") == "finalists":
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", kill)
        process = multiprocessing.get_context("fork").Process(target=main, args=(command("killed"),))
        process.start()
        process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "killed/search.json").exists()
    status, again = ean(*command("killed", "--resume"))
    assert not status, again
    assert ledger_lines(tmp_path / "killed/ledger.jsonl") == [key, *lines]
    assert json.loads((tmp_path / "killed/search.json").read_text())["differences"] == record["differences"]


def test_weights_of_the_reward_are_named_like_the_metric(command, ean):
    status, _ = ean(*command("wrong", "--cfg-options", "search.reward.accuracy=1"))
    assert "unknown weight of the reward 'accuracy'" in status
    assert "'MAE'" in status


def test_darts_is_for_classifiers(command, ean):
    status, _ = ean(*command("darts", "--strategy", "darts"))
    assert "darts trains classifiers only" in status
