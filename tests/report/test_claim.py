"""The paper's claim, checked on networks trained here."""

import shutil

from ean_core.commands.report import write_report
from ean_core.report.claim import faster, find_claims, transferred_text
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
    assert {row["interval of"] for row in rows} == {"10,000 images, unpaired"}
    assert {row["McNemar b, c"] for row in rows} == {"not recorded"}
    assert [row["verdict"] for row in rows] == ["not shown (margin 1.0)", "not shown", "not shown"]


def test_each_part_of_the_claim_has_a_paragraph_with_its_verdict(tmp_path):
    save_three(tmp_path, ([65.0], [65.5], [65.6]))
    save_times(tmp_path, 0.05, 0.2)
    (claim,) = find_claims(read_results([tmp_path]))
    kept, better, full, time = claim.paragraphs()
    where = "(ResNet-20 on CIFAR-100, 24 epochs)"
    assert kept == (
        f"Not shown: EAN SE `{EAN}` loses less than 1.0 point against Share-full {where}. The difference is +0.10 "
        "points (95 % interval -1.22 to +1.42; the paper: +0.84) over 10,000 images, unpaired; the images that each "
        "network got right are not recorded. Needed: `ean test` of both networks again, which records them; or 3 seeds "
        "of each (margin 0.5 points)."
    )
    assert better.startswith(
        f"Not shown: EAN SE `{EAN}` is better than vanilla {where}. The difference is +0.60 points "
    )
    assert full.startswith(f"Not shown: Share-full SE is better than vanilla {where}. The difference is +0.50 points ")
    numbers = "+5.0 (+4.0 to +6.0) against +20.0 (+19.0 to +21.0)"
    assert time == (
        f"Shown: EAN SE `{EAN}` adds less time than Share-full {where}. Increments over vanilla, in percent: "
        f"{numbers} eager; {numbers} deployed."
    )


def test_three_seeds_decide_by_their_spread(tmp_path):
    save_three(tmp_path, ([74.2, 74.3, 74.4], [76.1, 76.0, 76.2], [76.0, 76.1, 76.1]))
    (claim,) = find_claims(read_results([tmp_path]))
    rows = list(claim.rows())
    assert {row["interval of"] for row in rows} == {"3 seeds"}
    assert [row["accuracy (points)"] for row in rows] == [row["over seeds (points)"] for row in rows]
    assert rows[0]["accuracy (points)"] == "-0.03 (-0.32 to +0.25)"  # 4.3027 * 0.1155 / sqrt(3) = 0.287
    assert [row["verdict"] for row in rows] == ["shown (margin 0.5)", "shown", "shown"]
    kept, better, full, time = claim.paragraphs()
    assert kept.startswith(f"Shown: EAN SE `{EAN}` loses less than 0.5 points against Share-full (")
    assert kept.endswith("over 3 seeds; the images that each network got right are not recorded.")
    assert better.startswith(f"Shown: EAN SE `{EAN}` is better than vanilla (")
    assert full.startswith("Shown: Share-full SE is better than vanilla (")
    assert time.endswith("24 epochs). Needed: `ean time`, which times both side by side.")  # nothing was timed


def test_a_claim_that_the_networks_refute_is_contradicted(tmp_path):
    save_three(tmp_path, ([76.2, 76.3, 76.4], [76.1, 76.0, 76.2], [74.0, 74.1, 74.1]))
    save_times(tmp_path, 0.2, 0.05)
    (claim,) = find_claims(read_results([tmp_path]))
    assert [row["verdict"] for row in claim.rows()] == ["contradicted (margin 0.5)", "contradicted", "not shown"]
    assert [text.split(":")[0] for text in claim.paragraphs()] == [
        "Contradicted",
        "Contradicted",
        "Not shown",
        "Contradicted",
    ]


def test_networks_of_another_recipe_attention_or_data_set_are_not_compared(tmp_path):
    save_run(tmp_path / "ean")
    save_run(tmp_path / "longer", scheme=FULL, epochs=200)
    save_run(tmp_path / "dia", scheme=FULL, config="resnet20_dia_cifar100", backbone={"attention": "DIA"})
    assert find_claims(read_results([tmp_path])) == []
    save_run(tmp_path / "plain", scheme=PLAIN, accuracy=64.0)
    (claim,) = find_claims(read_results([tmp_path]))
    assert [row["compared"] for row in claim.rows()] == ["EAN against vanilla"]
    first, second = claim.paragraphs()
    assert first == (
        f"Not shown: EAN SE `{EAN}` against Share-full (ResNet-20 on CIFAR-100, 24 epochs); Share-full is not trained "
        "with this recipe."
    )
    assert second.startswith(f"Not shown: EAN SE `{EAN}` is better than vanilla (")


def test_data_that_the_paper_has_not_are_compared_without_its_differences(tmp_path):
    save_three(tmp_path, ([97.0], [97.5], [98.0]), config="resnet20_se_digits")
    (claim,) = find_claims(read_results([tmp_path]))
    assert {row["paper (points)"] for row in claim.rows()} == {""}
    assert not any("the paper" in text for text in claim.paragraphs())


def test_networks_that_several_eans_share_have_one_paragraph(tmp_path):
    save_three(tmp_path / "runs", ([65.0], [65.5], [65.6]))
    save_run(tmp_path / "runs/other", scheme="100-000-000")
    write_report([tmp_path / "runs"], tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert text.count("Not shown: Share-full SE is better than vanilla") == 1
    assert text.count("loses less than 1.0 point against Share-full") == 2


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
    assert f"\n\nNot shown: EAN SE `{EAN}` loses less than 1.0 point against Share-full (ResNet-20 on " in text
    page = (tmp_path / "out/index.html").read_text()
    assert page.count('<p class="note">Not shown: EAN SE <span class="scheme">') == 3  # and the time
