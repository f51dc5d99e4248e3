import copy
import json
import logging

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from ean_core.common.intervals import Interval
from ean_core.inference import deploy
from ean_core.weights.files import add_tensors, read_meta, save_weights
from ean_core.weights.loading import load_weights
from tasks.crowd_counting.counter import Counter, Standing
from tasks.crowd_counting.familiar import (
    COVERED,
    LEAST_IMAGES,
    LEAST_MEASURED,
    Errors,
    Familiar,
    FamiliarHook,
    Pooled,
    _distances,
    errors_of,
    measure,
    statistics_of,
    summary,
)

from .conftest import SETTINGS


def images(number, kind="like", size=(48, 64)):
    """Images of one kind: noise around a gray, or of a single color."""
    made = []
    for seed in range(number):
        draws = np.random.default_rng((seed, kind == "like"))
        base = 128 if kind == "like" else draws.integers(0, 256, 3)
        spread = 30 if kind == "like" else 0
        made.append(np.clip(base + draws.normal(0, spread, (*size, 3)), 0, 255).astype(np.uint8))
    return made


def items(pictures, heads=3):
    return [{"inputs": torch.from_numpy(each).permute(2, 0, 1), "points": torch.zeros(heads, 2)} for each in pictures]


@pytest.fixture(scope="module")
def tensors(network):
    return measure(network, items(images(30)), items(images(12)))


@pytest.fixture(scope="module")
def knowing(network, tensors):
    """The network, with what was measured."""
    copied = copy.deepcopy(network)
    copied.familiar.learn(tensors)
    return copied


def values_of(network):
    return {name: value for name, value in network.state_dict().items() if name.startswith("familiar.")}


# ---------------------------------------------------------------- pooled features


@pytest.mark.parametrize("cuts", [[60], [1, 59], [20, 25, 15]])
def test_parts_of_a_map_give_the_statistics_of_the_whole(cuts):
    features = 100 + torch.randn(1, 5, 40, 60, generator=torch.Generator().manual_seed(0))
    pooled = Pooled()
    for part in features.split(cuts, 3):
        pooled(part)
    whole = features[0].flatten(1).double()
    expected = torch.cat([whole.mean(1), whole.std(1, correction=0)])
    assert torch.allclose(pooled.features, expected, rtol=1e-6)


def test_an_image_in_tiles_is_as_strange_as_the_whole(network):
    plain = copy.deepcopy(network)
    image = torch.randn(1, 3, 200, 331, generator=torch.Generator().manual_seed(0))
    found = []
    for tile in (2048, 64):
        pooled = Pooled()
        with torch.inference_mode():
            plain.count_map(image, tile=tile, margin=128, seen=pooled)
        found.append(pooled.features)
    # The gates of its attention see tiles, so the maps are alike and not equal; the cells are the same.
    assert torch.allclose(*found, rtol=0.1, atol=0.02)


# ---------------------------------------------------------------- statistics and errors


def test_unlike_images_are_marked_and_like_ones_are_not(knowing):
    counter = Counter(knowing, device="cpu")
    like = [counter(each) for each in images(60)[30:]]
    strange = [counter(each) for each in images(30, "unlike")]
    assert sum(one.familiar for one in like) >= 27
    assert not any(one.familiar for one in strange)
    assert all((one.strangeness <= 1) == one.familiar for one in (*like, *strange))
    count, density = like[0]
    assert count == pytest.approx(density.sum(), rel=1e-5)


def test_the_limit_holds_for_new_images_of_the_same_kind_also_if_there_are_few():
    draws = np.random.default_rng(0)
    mixing = draws.normal(size=(128, 128)) / 11
    for number, most in ((30, 0.2), (400, 0.06)):
        known = draws.normal(size=(number, 128)) @ mixing
        new = draws.normal(size=(500, 128)) @ mixing
        *fitted, limit = (value.double().numpy() for value in statistics_of(known).values())
        assert (_distances(new, *fitted) > limit).mean() <= most


def test_too_few_images_give_no_statistics_and_are_not_marked(network):
    found = measure(network, items(images(LEAST_IMAGES - 1)), items(images(4)))
    assert list(found) == ["errors"]
    with pytest.raises(ValueError, match="at least 20 training images, got 19"):
        statistics_of(np.zeros((19, 4)))
    counter = copy.deepcopy(network)
    counter.familiar.learn(found)
    assert Counter(counter, device="cpu")(images(1)[0]).familiar is None


def test_channels_that_never_vary_do_not_decide():
    features = np.random.default_rng(0).normal(size=(50, 6))
    features[:, 3] = 2.0
    found = statistics_of(features)
    assert all(value.isfinite().all() for value in found.values())


def test_expected_errors_cover_their_share_and_grow_with_the_count():
    draws = np.random.default_rng(0)
    truths = draws.integers(0, 500, 200)
    counts = truths * draws.normal(1, 0.1, 200) + draws.normal(0, 3, 200)
    familiar = Familiar(64)
    familiar.learn(errors_of(counts.tolist(), truths.tolist()))
    errors = familiar.errors_known
    inside = np.abs(counts - truths) <= [max(errors.floor, errors.share * count) * (1 + 1e-5) for count in counts]
    assert inside.mean() == pytest.approx(COVERED, abs=0.01)
    assert errors.images == 200
    assert errors.mae.mean == pytest.approx(np.abs(counts - truths).mean(), rel=1e-5)
    assert errors.mae.low < errors.mae.mean < errors.mae.high
    assert 0.08 < errors.share < 0.13
    assert errors.at(400) > 2 * errors.at(100) > errors.at(0) >= 1


@pytest.mark.parametrize(("counts", "truths"), [([5.0], [5]), ([0.0, 0.0], [0, 3]), ([-0.5, 1e4, 3.0], [0, 0, 3])])
def test_few_or_exact_images_give_finite_errors(counts, truths):
    values = errors_of(counts, truths)["errors"]
    assert values.isfinite().all()
    assert (values >= 0).all()


def test_an_expected_error_is_a_whole_number_of_people():
    errors = Errors(0.11, 4.2, Interval(11.2, 7.9, 15.1), 40)
    assert [errors.at(count) for count in (0, 30, 216)] == [5, 5, 24]
    assert Errors(0.0, 0.0, Interval(0, 0, 0), LEAST_MEASURED).at(9) == 1


def test_errors_on_too_few_images_are_not_expected_on_others():
    few = Errors(0.11, 4.2, Interval(11.2, 7.9, 15.1), LEAST_MEASURED - 1)
    assert few.at(216) is None
    assert summary(errors_of([10.0, 50.0], [12, 45]), 18) == (
        "2 validation images are too few, at least 10 are needed, to know the error of a count; "
        "18 training images are too few to tell unfamiliar images, 20 are needed"
    )


def test_a_published_counter_says_its_mean_error_and_where_it_was_measured():
    counter = Counter.from_zoo("resnet20.shanghaitech_b", device="cpu")
    expected = "± covers 68% of 40 validation images of ShanghaiTech B (mean absolute error 13.5 [9.0, 18.8]"
    assert counter.reliability.startswith(expected)
    assert counter.reliability.endswith("; expect larger errors on other scenes")
    assert counter.standing.data == "ShanghaiTech B"


# ---------------------------------------------------------------- files


def test_it_survives_files_deployment_and_half_precision(knowing, tensors, tmp_path):
    path = tmp_path / "counter.safetensors"
    metadata = {"network": json.dumps(SETTINGS), "name": "resnet20.shanghaitech_b"}
    save_weights(knowing.state_dict(), path, metadata)
    torch.save({"state_dict": knowing.state_dict(), "meta": {}}, tmp_path / "counter.pth")
    for source in (path, tmp_path / "counter.pth"):
        loaded = MODELS.build(SETTINGS)
        load_weights(loaded, source, strict=True)
        assert all(torch.equal(getattr(loaded.familiar, name), value) for name, value in tensors.items())
    again = MODELS.build(SETTINGS)
    again.load_state_dict(knowing.state_dict())
    assert values_of(again).keys() == {f"familiar.{name}" for name in tensors}
    deployed = deploy(loaded.eval(), dtype=torch.bfloat16)
    assert all(value.dtype == torch.float32 for value in values_of(deployed).values())
    counter = Counter.from_checkpoint(path, device="cpu")
    assert counter.standing == Standing("ShanghaiTech B")
    assert counter.errors == knowing.familiar.errors_known
    assert "of 12 validation images of ShanghaiTech B (mean absolute error" in counter.reliability


def test_a_file_without_them_gives_a_counter_that_claims_nothing_and_no_warning(counter_file, caplog):
    with caplog.at_level(logging.WARNING):
        counter = Counter.from_checkpoint(counter_file, device="cpu")
    assert not caplog.records
    found = counter(images(1)[0])
    assert (found.familiar, found.strangeness) == (None, None)
    assert (counter.errors, counter.error_at(50)) == (None, None)
    assert counter.reliability == "the error of this counter is unknown"
    assert not [name for name in counter.network.state_dict() if "familiar" in name]


def test_weights_of_a_file_without_them_forget_those_of_before(knowing, counter_file):
    """Statistics of other weights would make false claims."""
    network = copy.deepcopy(knowing)
    load_weights(network, counter_file, strict=True)
    assert not values_of(network)
    network = copy.deepcopy(knowing)
    network.load_state_dict({name: value for name, value in knowing.state_dict().items() if "familiar" not in name})
    assert not values_of(network)


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": torch.zeros(3, 5)},
        {"limit": torch.tensor(float("nan"))},
        {"limit": torch.tensor(0.0)},
        {"variances": None},
        {"rest": torch.zeros(2)},
        {"center": torch.tensor(1.0)},
    ],
)
def test_damaged_statistics_are_ignored_with_a_warning(network, tensors, changes, caplog):
    state = {**network.state_dict(), **{f"familiar.{name}": value for name, value in {**tensors, **changes}.items()}}
    loaded = MODELS.build(SETTINGS)
    loaded.load_state_dict({name: value for name, value in state.items() if value is not None})
    assert not loaded.familiar.knows_images
    assert loaded.familiar.errors_known is not None


def test_errors_of_a_wrong_form_are_ignored(network):
    for values in (torch.zeros(5), torch.tensor([0.1, 1, 1, 1, 1, 0]), torch.tensor([-0.1, 1, 1, 1, 1, 9])):
        loaded = MODELS.build(SETTINGS)
        loaded.load_state_dict({**network.state_dict(), "familiar.errors": values})
        assert loaded.familiar.errors_known is None


def test_training_steps_forget_what_was_measured_before(knowing):
    network = copy.deepcopy(knowing).train()
    batch = {
        "inputs": torch.zeros(2, 3, 32, 32),
        "points": [torch.zeros(0, 2)] * 2,
        "density": torch.zeros(2, 1, 32, 32),
    }
    network(**batch, mode="loss")
    assert not values_of(network)
    measured = copy.deepcopy(knowing).eval()
    measured(**batch, mode="loss")  # which changes no weights
    assert values_of(measured)


def test_checkpoints_during_training_make_no_claim():
    checkpoint = {
        key: {"density.0.weight": 1, "familiar.limit": 2, "module.familiar.center": 3}
        for key in ("state_dict", "ema_state_dict")
    }
    FamiliarHook().before_save_checkpoint(None, checkpoint)
    assert [list(state) for state in checkpoint.values()] == [["density.0.weight"]] * 2


def test_tensors_are_added_to_a_checkpoint_and_nothing_else_changes(network, tensors, tmp_path):
    path = tmp_path / "best.pth"
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}}
    before = {"state_dict": network.state_dict(), "meta": {"epoch": 3}, "optimizer": optimizer}
    torch.save(before, path)
    for number in (1, 2):
        values = {f"familiar.{name}": value * number for name, value in tensors.items()}
        add_tensors(path, values, replace="familiar.")
        after = torch.load(path, weights_only=True)
        assert list(after) == list(before)
        assert read_meta(path) == {"epoch": 3}
        assert after["optimizer"] == optimizer
        assert after["state_dict"].keys() == before["state_dict"].keys() | values.keys()
        assert all(torch.equal(after["state_dict"][name], value) for name, value in values.items())
    torch.save([1], tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth is not a checkpoint"):
        add_tensors(tmp_path / "other.pth", {})
