"""Constants in the place of gates: their values, exact scores, and the choice of the cheapest scheme."""

from itertools import combinations

import numpy as np
import pytest
import torch

from ean_core import ConnectionScheme, EANResNetCIFAR, ImageClassifier
from ean_core.common.tasks import ACCURACY, Metric
from ean_core.search import SupernetEvaluator, fold
from ean_core.search.fold import Folded, Folding, measure_constants
from ean_core.search.ledger import Ledger
from ean_core.search.prefixes import count_bodies
from ean_core.search.scorer import ClassifierScorer, Difference, Score

MAE = Metric("count/MAE", "MAE", "people", less_is_better=True)


def classifier(attention="SE", scheme="full", shared=True):
    torch.manual_seed(0)
    if isinstance(attention, str):
        attention = {"type": attention, "reduction": 1}  # with a single hidden unit, gates may not move at all
    backbone = EANResNetCIFAR(20, attention, scheme=scheme, shared=shared, base_channels=4, in_channels=1)
    for name, value in backbone.state_dict().items():
        if "attention" in name:
            value.normal_(0, 0.7)
    return ImageClassifier(backbone, 5, {"type": "ImagePreprocessor", "mean": [120.0], "std": [60.0]}).eval()


def batches(number=3, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return [
        {
            "inputs": torch.randint(256, (8, 1, 8, 8), generator=draw, dtype=torch.uint8),
            "labels": torch.randint(5, (8,), generator=draw),
        }
        for _ in range(number)
    ]


# ---------------------------------------------------------------- values and scores


@pytest.mark.parametrize(("attention", "shared"), [("SE", True), ("SE", False), ("DIA", True)])
def test_constants_are_the_means_of_the_gates_over_all_images(attention, shared):
    network = classifier(attention, "110-011-101", shared)
    before = str(network.backbone.scheme)
    measure_constants(network, batches())
    assert str(network.backbone.scheme) == before
    images = torch.cat([batch["inputs"] for batch in batches()])
    x = network.backbone.forward_stem((images.float() - 120) / 60)
    with torch.no_grad():
        for k in range(3):
            state = None
            for i, block in enumerate(network.backbone.stage(k)):
                f, shortcut = block.branches(x)
                module = network.backbone.attention_at(k, i)
                if module is None:
                    assert block.constant_gate is None
                else:
                    gate, state = module.process(module.extract(f), state)
                    assert torch.allclose(block.constant_gate, gate.mean(0), atol=1e-6)
                    f = module.recalibrate(f, gate)
                x = torch.relu(f + shortcut)


def test_gates_that_are_not_one_per_channel_are_refused_before_any_image_is_read():
    network = classifier({"type": "SGE", "groups": 2}, "100-000-000")
    with pytest.raises(ValueError, match=r"the gates of SGE are not one per channel"):
        measure_constants(network, iter(()))
    assert str(network.backbone.scheme) == "100-000-000"


@pytest.mark.parametrize(("attention", "scheme"), [("SE", "full"), ("DIA", "full"), ("SE", "110-000-011")])
def test_shared_prefixes_give_schemes_with_constants_the_scores_they_have_alone(attention, scheme):
    network = classifier(attention, scheme)
    measure_constants(network, batches())
    base = network.backbone.scheme
    connected = [i for i, bit in enumerate(base.bits) if bit]
    schemes = [base.with_constants(some) for n in range(3) for some in combinations(connected[:4], n)]
    evaluator = SupernetEvaluator(network, batches(seed=2), "f")
    rows = evaluator.rows(schemes)
    assert evaluator.bodies == 3 * count_bodies(schemes)
    predictions = set()
    for scheme in schemes:
        network.backbone.set_scheme(scheme)
        with torch.no_grad():
            data = [network.data_preprocessor(batch) for batch in batches(seed=2)]
            logits = torch.cat([network(network.prepare(each["inputs"])) for each in data])
        labels = torch.cat([torch.as_tensor(each["labels"]) for each in data])
        assert np.array_equal(rows[scheme], (logits.argmax(1) == labels).numpy())
        predictions.add(tuple(logits.flatten().tolist()))
    assert len(predictions) == len(schemes)


def test_prefixes_with_constants_are_prefixes_of_their_own():
    assert count_bodies([ConnectionScheme.parse(text) for text in ("1-1", "c-1", "0-1")]) == 4


# ---------------------------------------------------------------- the choice


class Images:
    """An evaluator of 1,000 images, of which a scheme loses as many as its constants cost together."""

    metric = ACCURACY

    def __init__(self, costs):
        self.costs, self.scorer, self.asked = costs, ClassifierScorer(None, ACCURACY), []

    def rows(self, schemes):
        self.asked += schemes
        lost = {s: sum(c * bit for c, bit in zip(self.costs, s.constant_bits, strict=True)) for s in schemes}
        return {scheme: np.arange(1000) >= 100 + lost[scheme] for scheme in schemes}


def chosen(path, evaluator, base, margin=None):
    with Ledger(path / "fold.jsonl", {}) as ledger:
        return Folding(evaluator, ConnectionScheme.parse(base), ledger, margin, lambda line: None).run()


@pytest.mark.parametrize(
    ("margin", "scheme"), [(0.0, "c1-11c"), (0.5, "cc-11c"), (2.0, "cc-c1c"), (100.0, "cc-ccc"), (None, "c1-11c")]
)
def test_the_scheme_with_the_fewest_connections_within_the_margin_is_chosen(tmp_path, margin, scheme):
    evaluator = Images((0, 5, 12, 30, 0))
    front = chosen(tmp_path, evaluator, "11-111", margin)
    assert str(front[-1].scheme) == scheme
    assert [found.scheme.connections for found in front] == list(range(len(front)))
    assert all(not found.within(ACCURACY, margin) for found in front[:-1])


def test_the_best_of_equally_cheap_schemes_is_chosen(tmp_path):
    assert str(chosen(tmp_path, Images((2, 1, 50)), "11-1", 1.0)[-1].scheme) == "cc-1"
    (tmp_path / "other").mkdir()
    assert str(chosen(tmp_path / "other", Images((8, 1, 50)), "11-1", 0.85)[-1].scheme) == "1c-1"


def test_blocks_without_a_connection_stay_as_they_are(tmp_path):
    assert str(chosen(tmp_path, Images((0, 0, 0, 0)), "01-0c")[-1].scheme) == "0c-0c"


def test_many_connections_become_constant_one_by_one_late_blocks_first(tmp_path, monkeypatch):
    monkeypatch.setattr(fold, "EXACT", 3)
    evaluator = Images((0, 6, 6, 6))
    (found,) = chosen(tmp_path, evaluator, "11-11", 1.2)
    assert str(found.scheme) == "c1-cc"  # the last two cost the margin, the first one nothing
    assert [*map(str, evaluator.asked)][2:] == ["11-1c", "11-cc", "1c-cc", "c1-cc"]


def test_steps_are_said_in_words_and_schemes_counted_by_a_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fold, "CHUNK", 4)
    with Ledger(tmp_path / "fold.jsonl", {}) as ledger:
        Folding(Images((0, 5, 9)), ConnectionScheme.parse("11-1"), ledger, 0.2).run()
    assert capsys.readouterr().out.splitlines() == [
        "scoring schemes: 8/8, 0 s left",
        "no gate computed: cc-c: accuracy 88.60 %, -1.40 ± 0.37 points from the network with all gates computed, "
        "beyond the margin",
        "1 gate computed: cc-1, the best of 3 schemes: accuracy 89.50 %, -0.50 ± 0.22 points from the network with all "
        "gates computed, beyond the margin",
        "2 gates computed: c1-1, the best of 3 schemes: accuracy 90.00 %, +0.00 ± 0.00 points from the network with "
        "all gates computed, within the margin",
    ]


def test_an_interrupted_search_scores_only_what_its_ledger_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(fold, "CHUNK", 1)
    first, second = Images((9, 9, 9)), Images((9, 9, 9))
    whole = first.rows
    first.rows = lambda schemes: 1 / 0 if len(first.asked) == 3 else whole(schemes)
    with pytest.raises(ZeroDivisionError):
        chosen(tmp_path, first, "11-1", 0.0)
    front = chosen(tmp_path, second, "11-1", 0.0)
    assert not {*first.asked[1:]} & {*second.asked[1:]}
    (tmp_path / "new").mkdir()
    assert front == chosen(tmp_path / "new", Images((9, 9, 9)), "11-1", 0.0)


@pytest.mark.parametrize(
    ("metric", "value", "error", "margin", "within"),
    [
        (ACCURACY, -0.2, 0.0, None, True),
        (ACCURACY, -0.3, 0.0, None, False),
        (ACCURACY, -0.3, 0.35, None, True),
        (ACCURACY, -0.3, 0.35, 0.2, False),
        (ACCURACY, 5.0, 0.1, 0.0, True),
        (MAE, 0.3, 0.2, None, False),
        (MAE, 0.15, 0.2, None, True),
        (MAE, -3.0, 0.0, None, True),
        (MAE, 0.3, 0.0, 0.5, True),
    ],
)
def test_the_margin_is_0_2_points_or_one_standard_error_by_default(metric, value, error, margin, within):
    found = Folded(ConnectionScheme.parse("1-c"), Score(50.0, 1.0), Difference(value, error))
    assert found.within(metric, margin) is within
    assert Folded.of(found.plain()) == found
