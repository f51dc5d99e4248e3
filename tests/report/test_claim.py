"""The paper's claim, checked on networks trained here."""

import shutil

import numpy as np
import pytest

from ean_core.commands.report import write_report
from ean_core.report.claim import difference, faster, find_claims, transferred_text, verdict
from ean_core.report.results import read_results

from .drawn import save_run, save_timing

FULL, EAN, PLAIN = "111-111-111", "010-100-000", "000-000-000"


def save_three(folder, accuracies, **more):
    for scheme, values in zip((PLAIN, FULL, EAN), accuracies, strict=True):
        for seed, accuracy in enumerate(values):
            save_run(folder / f"{scheme}_{seed}", scheme=scheme, seed=seed, accuracy=accuracy, **more)


def save_times(folder, ean, full):
    rows = [
        (scheme, "SE", form, increment)
        for form in ("eager", "deployed")
        for scheme, increment in ((PLAIN, 0.0), (EAN, ean), (FULL, full))
    ]
    save_timing(folder / "time", rows)


def test_each_pair_has_its_difference_the_papers_and_the_times_over_vanilla(tmp_path):
    save_three(tmp_path, ([65.0], [65.5], [65.6]))
    save_times(tmp_path, 0.05, 0.2)
    (claim,) = find_claims(read_results([tmp_path]))
    rows = list(claim.rows())
    assert [(row["compared"], row["accuracy (points)"].split()[0], row["paper (points)"]) for row in rows] == [
        ("EAN against Share-full", "+0.10", "+0.84"),
        ("EAN against vanilla", "+0.60", "+2.64"),
        ("Share-full against vanilla", "+0.50", "+1.80"),
    ]
    assert [row["eager (%)"] for row in rows] == ["", "+5.0 (+4.0 to +6.0)", "+20.0 (+19.0 to +21.0)"]
    assert {row["EAN"] for row in rows} == {f"`{EAN}`"}
    assert {row["epochs"] for row in rows} == {"24"}
    assert [row["timed in"][:1] for row in rows] == ["", "†", "†"]
    assert {row["interval of"] for row in rows} == {"the test images"}
    assert claim.in_short() == (
        f"SE `{EAN}`, ResNet-20 on CIFAR-100, 24 epochs (trainings: vanilla 1, Share-full 1, EAN 1): the paper's "
        "difference lies outside our interval for EAN against vanilla; the paper's difference is neither confirmed nor "
        "excluded for EAN against Share-full and Share-full against vanilla. The claim about time holds."
    )


def test_differences_that_several_seeds_agree_on_are_seen(tmp_path):
    save_three(tmp_path, ([74.28, 74.30], [76.08, 76.10], [76.92, 76.94]))
    (claim,) = find_claims(read_results([tmp_path]))
    pairs = "EAN against Share-full, EAN against vanilla and Share-full against vanilla"
    counts = "(trainings: vanilla 2, Share-full 2, EAN 2)"
    assert f"{counts}: the paper's difference is also seen here for {pairs}." in claim.in_short()
    assert "The claim about time is not confirmed." in claim.in_short()  # nothing was timed
    assert {row["interval of"] for row in claim.rows()} == {"2 and 2 seeds"}
    assert {row["verdict"] for row in claim.rows()} == {"better"}


def test_networks_of_another_recipe_attention_or_data_set_are_not_compared(tmp_path):
    save_run(tmp_path / "ean")
    save_run(tmp_path / "longer", scheme=FULL, epochs=200)
    save_run(tmp_path / "dia", scheme=FULL, config="resnet20_dia_cifar100", backbone={"attention": "DIA"})
    assert find_claims(read_results([tmp_path])) == []
    save_run(tmp_path / "plain", scheme=PLAIN, accuracy=64.0)
    (claim,) = find_claims(read_results([tmp_path]))
    assert [row["compared"] for row in claim.rows()] == ["EAN against vanilla"]
    assert claim.in_short().endswith("CIFAR-100, 24 epochs: not all three networks are trained yet.")
    for path in ("ean", "longer", "dia", "plain"):
        shutil.rmtree(tmp_path / path)
    save_three(tmp_path, ([97.0], [97.5], [98.0]), config="resnet20_se_digits")  # not in the paper
    assert find_claims(read_results([tmp_path])) == []


def test_time_is_saved_where_the_intervals_lie_apart_in_each_form(tmp_path):
    save_three(tmp_path, ([65.0], [65.5], [65.6]))
    for ean, full, expected in ((0.05, 0.2, True), (0.05, 0.06, False), (0.2, 0.05, False)):
        save_times(tmp_path, ean, full)
        _, share_full, searched = read_results([tmp_path])
        assert faster(searched, share_full) is expected
    save_timing(tmp_path / "time", [(EAN, "SE", "eager", 0.1), (FULL, "SE", "eager", 0.9)], rounds=4)  # no intervals
    _, share_full, searched = read_results([tmp_path])
    assert faster(searched, share_full) is False


def test_transferred_networks_are_listed_best_first(tmp_path):
    for scheme, error in ((PLAIN, 11.0), (FULL, 14.0), (EAN, 13.0)):
        folder = tmp_path / scheme
        save_run(folder, scheme=scheme, config="resnet20_se_shanghaitech_b", metrics={"count/MAE": error})
    assert transferred_text(read_results([tmp_path])) == (
        "Transfer to other tasks, best first. "
        "ShanghaiTech B, MAE, one training each: vanilla 11.00, EAN SE 13.00, Share-full SE 14.00."
    )
    save_run(tmp_path / EAN, scheme=EAN, config="resnet20_se_shanghaitech_b", metrics={"count/MAE": 13.0}, lr=0.3)
    assert "vanilla (24 epochs, recipe A) 11.00, EAN SE (24 epochs, recipe B) 13.00," in transferred_text(
        read_results([tmp_path])
    )
    shutil.rmtree(tmp_path / PLAIN)
    shutil.rmtree(tmp_path / FULL)
    assert transferred_text(read_results([tmp_path])) == ""


def test_the_report_has_the_claim_with_a_paragraph_for_each_attention(tmp_path):
    save_three(tmp_path / "runs", ([65.0], [65.5], [65.6]))
    write_report([tmp_path / "runs"], tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert "\n## The paper's claim\n\n| network | compared |" in text
    assert f"\n\nSE `{EAN}`, ResNet-20 on CIFAR-100, 24 epochs (trainings: vanilla 1, Share-full 1, EAN 1): " in text
    assert (tmp_path / "out/index.html").read_text().count('<p class="note">SE <span class="scheme">') == 1


def test_a_verdict_says_what_its_interval_allows(tmp_path):
    for seed, (ours, theirs) in enumerate([(66.0, 65.0), (66.1, 65.1), (66.05, 64.9)]):
        save_run(tmp_path / f"ean{seed}", seed=seed, accuracy=ours)
        save_run(tmp_path / f"full{seed}", seed=seed, accuracy=theirs, scheme=FULL)
    full, ean = read_results([tmp_path])
    assert verdict(ean, full) == "better"
    assert verdict(full, ean) == "worse"
    shutil.rmtree(tmp_path / "ean1")
    shutil.rmtree(tmp_path / "ean2")
    full, ean = read_results([tmp_path])
    assert (
        verdict(ean, full) == "no significant difference"
    )  # one seed against three: the error from 10,000 images is 0.5 points
    save_run(tmp_path / "ean0", accuracy=70.0)
    full, ean = read_results([tmp_path])
    assert verdict(ean, full) == "undecided"  # another training might differ


def test_values_that_are_all_alike_have_the_interval_of_the_images():
    assert difference([65.0, 65.0], [65.0, 65.0], 0.5) == pytest.approx((0, -1.386, 1.386), abs=1e-3)


def test_a_difference_is_as_wide_as_chance_makes_it():
    # 1,000 pairs of samples with equal means: about 950 intervals contain 0.
    draws = np.random.default_rng(0).normal(size=(1000, 2, 4))
    held = [low <= 0 <= high for first, second in draws for _, low, high in [difference(first, second, 1)]]
    assert 930 <= sum(held) <= 970
    single = [low <= 0 <= high for pair in draws[:, :, :1] for _, low, high in [difference(*pair, 1)]]
    assert 930 <= sum(single) <= 970
