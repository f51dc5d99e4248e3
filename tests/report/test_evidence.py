"""Evidence on differences between networks, from their records."""

import json

import numpy as np
import pytest

from ean_core.report.evidence import Evidence
from ean_core.report.records import read_records
from ean_core.report.results import find_results, read_results

from .drawn import save_run

FULL, EAN = "111-111-111", "010-100-000"


def right(b, c, both=600, images=1000):
    """Flags of two classifiers of which b images only the first, and c images only the second got right."""
    ours, theirs = np.zeros((2, images), bool)
    ours[:b], theirs[b : b + c] = True, True
    ours[b + c : b + c + both] = theirs[b + c : b + c + both] = True
    return ours.tolist(), theirs.tolist()


def save_pair(folder, counts, **more):
    """Write one training of each network per seed, with McNemar's counts."""
    for seed, (b, c) in enumerate(counts):
        for scheme, flags in zip((EAN, FULL), right(b, c), strict=True):
            save_run(folder / f"{scheme}_{seed}", seed=seed, scheme=scheme, right=flags, **more)


def evidence(folder):
    full, ean = read_results([folder])
    return Evidence.of(ean, full)


def test_one_training_each_is_compared_image_by_image(tmp_path):
    save_pair(tmp_path, [(30, 20)])
    found = evidence(tmp_path)
    assert (found.counts_text(), found.p_text(), found.seeds_text()) == ("30, 20", "0.2", "")
    assert (found.basis, found.source, found.margin) == ("images", "1,000 images", 1.0)
    assert found.difference == pytest.approx((1.0, -0.3976, 2.3936), abs=1e-3)
    assert (found.verdict(kept=True), found.verdict(kept=False)) == ("shown", "not shown")
    assert found.numbers("EAN", "Share-full", 0.84) == (
        "The difference is +1.00 points (95 % interval -0.40 to +2.39; the paper: +0.84) over 1,000 images. Images "
        "that only EAN and only Share-full got right: 30 and 20 (p = 0.2)."
    )
    assert found.needed(kept=False) == "Needed at this difference: about 2,000 test images; or 3 seeds of each."


def test_a_difference_on_the_wrong_side_is_contradicted_or_needs_other_trainings(tmp_path):
    save_pair(tmp_path, [(20, 60)])
    found = evidence(tmp_path)
    assert found.difference == pytest.approx((-4.0, -5.74, -2.24), abs=0.01)
    assert found.verdict(kept=True) == found.verdict(kept=False) == "contradicted"
    save_pair(tmp_path, [(20, 30)])
    found = evidence(tmp_path)
    assert found.verdict(kept=True) == "not shown"
    assert found.needed(kept=True) == (
        "No number of images would show it at this difference; 3 seeds of each (margin 0.5 points) would tell whether "
        "other trainings differ."
    )


def test_two_seeds_are_compared_on_the_images_and_three_by_their_spread(tmp_path):
    save_pair(tmp_path, [(30, 20), (26, 22)])
    found = evidence(tmp_path)
    assert (found.counts_text(), found.p_text()) == ("30, 20; 26, 22", "0.2; 0.67")
    assert (found.basis, found.source, found.margin) == ("images", "1,000 images, 2 seeds", 1.0)
    assert found.seeds_text() == "+0.70 (-3.11 to +4.51)"  # 12.706 * 0.3
    save_pair(tmp_path, [(30, 20), (26, 22), (24, 16)])
    found = evidence(tmp_path)
    assert (found.basis, found.source, found.margin) == ("seeds", "3 seeds", 0.5)
    assert found.difference == pytest.approx((0.7333, -0.0256, 1.4922), abs=1e-3)  # 4.3027 * 0.3055 / sqrt(3)
    assert (found.verdict(kept=True), found.verdict(kept=False)) == ("shown", "not shown")
    assert found.needed(kept=False) == "Needed at this difference and spread: about 4 seeds of each."
    assert (
        "over 3 seeds. Images that only EAN and only Share-full got right: seed 0: 30 and 20 (p = 0.2); seed 1: "
        in (found.numbers("EAN", "Share-full", None))
    )


def test_old_records_are_compared_by_their_accuracies(tmp_path):
    save_run(tmp_path / "ean", scheme=EAN, accuracy=65.6)
    save_run(tmp_path / "full", scheme=FULL, accuracy=65.5)
    found = evidence(tmp_path)
    assert (found.counts_text(), found.p_text(), found.basis) == ("not recorded", "", "accuracies")
    assert found.source == "10,000 images, unpaired"
    assert found.difference == pytest.approx((0.1, -1.217, 1.417), abs=1e-3)
    assert found.verdict(kept=True) == "not shown"
    assert found.needed(kept=True).startswith(
        "Needed: `ean test` of both networks again, which records them; or 3 seed"
    )
    assert found.numbers("EAN", "Share-full", None).endswith(
        "over 10,000 images, unpaired; the images that each network got right are not recorded."
    )


def test_seeds_with_and_without_such_records_are_told_apart(tmp_path):
    save_pair(tmp_path, [(30, 20), (26, 22)])
    path = tmp_path / f"{EAN}_0/test.json"
    record = json.loads(path.read_text())
    del record["correct"]
    path.write_text(json.dumps(record))
    found = evidence(tmp_path)
    assert (found.counts_text(), found.p_text()) == ("not recorded; 26, 22", "0.67")
    assert found.source == "1,000 images, 1 of 2 seeds"
    assert found.difference.mean == pytest.approx(0.4)


def test_other_images_in_the_same_number_are_not_paired(tmp_path):
    ours, theirs = right(30, 20)
    save_run(tmp_path / "ean", scheme=EAN, right=ours)
    save_run(tmp_path / "full", scheme=FULL, right=theirs, labels="of others")
    assert evidence(tmp_path).basis == "accuracies"


def test_only_equal_seeds_are_paired(tmp_path):
    ours, theirs = right(30, 20)
    save_run(tmp_path / "ean", scheme=EAN, right=ours, seed=0)
    save_run(tmp_path / "full", scheme=FULL, right=theirs, seed=1)
    found = evidence(tmp_path)
    assert (found.basis, found.counts_text(), dict(found.gaps)) == ("accuracies", "not recorded", {})


@pytest.mark.parametrize("bits", ["ff", "00" * 125, 5, None])
def test_damaged_bits_are_left_out_with_their_run(tmp_path, bits):
    save_pair(tmp_path, [(30, 20)])
    path = tmp_path / f"{EAN}_0/test.json"
    record = json.loads(path.read_text())
    record["correct"]["bits"] = bits
    path.write_text(json.dumps(record))
    left = []
    (found,) = find_results(read_records([tmp_path]), lambda where, reason: left.append((where, reason)))
    assert found.connection == "Share-full"
    assert [where for where, _ in left] == [tmp_path / f"{EAN}_0"]
