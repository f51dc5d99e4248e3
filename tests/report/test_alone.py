"""Schemes trained individually, by group: Figure 4, and their treatment in the tables."""

import csv
import json
import re
import shutil
import statistics
from pathlib import Path

import pytest
from scipy.stats import ttest_ind

from ean_core.commands.report import write_report
from ean_core.common.record import read_record, write_record
from ean_core.report.search_figures import Sampling, statement
from ean_core.show.table import spread_text

from .drawn import save_groups, save_run, save_timing

COMPARISON = Path(__file__).resolve().parents[2] / "benchmarks/results/search_resnet20_se_cifar100/comparison"
RANDOM = [f"{k // 4 % 2}{k // 2 % 2}{k % 2}-011-100" for k in range(8)]
EAN, BOTH = ["010-100-000", "010-100-001"], "000-011-100"
ACCURACIES = {
    **{scheme: [64 + 0.1 * k] for k, scheme in enumerate(RANDOM[:6])},
    EAN[0]: [65.0, 66.0],
    EAN[1]: [65.8],
}


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def report(tmp_path, leave_out=None):
    more = {} if leave_out is None else {"leave_out": leave_out}
    found = write_report([tmp_path / "runs"], tmp_path / "out", **more)
    return {section.name: section for section in found}, (tmp_path / "out/README.md").read_text()


def notes(tmp_path):
    """Text beside each group in the figure; the figure's texts are a name and two lines per group, in order."""
    texts = re.findall(r">([^<>]+)</text>", (tmp_path / "out/figure4_alone.svg").read_text())
    return {
        name: f"{first} {second}" if first.endswith(":") else f"{first}; {second}"
        for name, first, second in zip(texts, texts[1:], texts[2:], strict=False)
        if name in ("random", "EAN", "GA", "HSP")
    }


def test_groups_are_drawn_with_their_counts_means_and_tests(tmp_path):
    save_groups(tmp_path / "runs/alone", ACCURACIES, EAN=[*EAN, BOTH], random=RANDOM, GA=[*EAN[:1], "111-111-110"])
    found, text = report(tmp_path)
    assert list(found) == ["figure4_alone", "records"]
    random = [ACCURACIES[scheme][0] for scheme in RANDOM[:6]]
    ean = [65.5, 65.8, ACCURACIES[BOTH][0]]  # a scheme with two seeds counts once, one in two groups counts in each
    p = ttest_ind(ean, random, equal_var=False).pvalue
    spread = [f"mean {statistics.mean(each):.2f}, sd {statistics.stdev(each):.2f}" for each in (random, ean)]
    assert notes(tmp_path) == {
        "random": f"{spread[0]}; 6 of 8 schemes",
        "EAN": f"{spread[1]}; 3 of 3 schemes, p = {p:.1g}",
        "GA": "1 of 2 schemes: too few to compare",
    }
    drawn = (tmp_path / "out/figure4_alone.svg").read_text()
    for expected in ("random", "EAN", spread[1], f"3 of 3 schemes, p = {p:.1g}", "too few to compare"):
        assert f">{expected}<" in drawn
    assert "test accuracy (%) of distinct schemes; outline: random schemes" in drawn
    lines = lines_of(tmp_path / "out/figure4_alone.csv")
    assert [line["group"] for line in lines] == ["EAN"] * 3 + ["random"] * 6 + ["GA"]
    assert list(lines[0].values()) == ["EAN", EAN[0], "65.5", "2"]
    for said in (
        "## Figure 4, networks trained alone: random and searched schemes: ResNet-20 SE, CIFAR-100\n",
        "Test accuracies of networks trained alone, one training per scheme (1 with several seeds, averaged), by "
        "`resnet20_se_cifar100` with one recipe for all: 24 epochs, measured on 10,000 test images.",
        "Schemes of `alone` trained so far: EAN 3 of 3, random 6 of 8, GA 1 of 2;",
        "180 random schemes, mean 74.29",
    ):
        assert said in text


def test_two_schemes_are_enough_for_a_group_and_two_groups_for_a_figure(tmp_path):
    accuracies = {scheme: ACCURACIES[scheme] for scheme in (*RANDOM[:2], *EAN)}
    save_groups(tmp_path / "runs/alone", accuracies, random=RANDOM, EAN=EAN)
    found, _ = report(tmp_path)
    assert notes(tmp_path)["EAN"].startswith("mean 65.65, sd 0.21; 2 of 2 schemes, p = ")
    shutil.rmtree(tmp_path / "runs/alone" / RANDOM[0])
    found, text = report(tmp_path)
    said = "3 of 10 schemes are trained alone so far (random 1 of 8, EAN 2 of 2): too few to compare groups by test"
    assert text.count(said) == 1
    assert "figure4_alone.svg" not in text
    assert found["figure4_alone"].note.startswith(said)
    assert said in (tmp_path / "out/index.html").read_text()


def test_a_list_of_which_nothing_is_trained_is_a_report(tmp_path):
    save_groups(tmp_path / "runs/alone", {}, random=RANDOM, EAN=EAN)
    found, text = report(tmp_path)
    assert list(found) == ["figure4_alone", "records"]
    assert "0 of 10 schemes are trained alone so far (random 0 of 8, EAN 0 of 2)" in text


def test_groups_without_random_ones_are_drawn_without_a_test(tmp_path):
    accuracies = {scheme: [65 + 0.1 * k] for k, scheme in enumerate([*EAN, *RANDOM[:2]])}
    save_groups(tmp_path / "runs/alone", accuracies, random=RANDOM[4:], EAN=EAN, HSP=RANDOM[:2])
    report(tmp_path)
    assert notes(tmp_path) == {
        "random": "0 of 4 schemes: too few to compare",
        "EAN": "mean 65.05, sd 0.07; 2 of 2 schemes",
        "HSP": "mean 65.25, sd 0.07; 2 of 2 schemes",
    }
    assert "outline" not in (tmp_path / "out/figure4_alone.svg").read_text()


def test_schemes_trained_elsewhere_count_by_config_and_recipe(tmp_path):
    accuracies, other = {scheme: ACCURACIES[scheme] for scheme in RANDOM[:4]}, "110-000-000"
    save_groups(tmp_path / "runs/alone", accuracies, random=RANDOM, EAN=EAN, GA=[other])
    save_run(tmp_path / "runs/config", scheme=other, accuracy=69.0, config="tuned_resnet20_se_cifar100")
    save_run(tmp_path / "runs/elsewhere", scheme=EAN[0], accuracy=66.0)
    save_run(tmp_path / "runs/longer", scheme=EAN[1], accuracy=70.0, epochs=200)
    save_run(tmp_path / "runs/rate", scheme=RANDOM[4], accuracy=71.0, lr=0.3)
    save_run(tmp_path / "runs/dia", scheme=RANDOM[5], config="resnet20_dia_cifar100", backbone={"attention": "DIA"})
    save_run(tmp_path / "runs/override", scheme=RANDOM[6], accuracy=72.0, backbone={"attention": "DIA"})
    save_run(tmp_path / "runs/org", scheme=RANDOM[7], accuracy=73.0, shared=False)
    _, text = report(tmp_path)
    assert "5 of 11 schemes are trained alone so far (random 4 of 8, EAN 1 of 2, GA 0 of 1)" in text
    save_run(tmp_path / "runs/same", scheme=EAN[1], accuracy=66.2)
    report(tmp_path)
    lines = lines_of(tmp_path / "out/figure4_alone.csv")
    assert [line["accuracy (%)"] for line in lines] == ["64.0", "64.1", "64.2", "64.3", "66.0", "66.2"]


def test_networks_trained_for_a_group_only_fill_no_other_table(tmp_path):
    source = COMPARISON.parents[1] / "campaign/search_resnet20_se.cifar100/seed_0"
    shutil.copytree(source, tmp_path / "runs/search")
    save_groups(tmp_path / "runs/alone", ACCURACIES, random=RANDOM, EAN=EAN)
    save_run(tmp_path / "runs/ean", scheme=EAN[0], seed=2, accuracy=67.0)
    save_run(tmp_path / "runs/other", scheme="110-000-000")
    save_run(tmp_path / "runs/kept" / RANDOM[7] / "seed_0", scheme=RANDOM[7])
    save_run(tmp_path / "runs/alone/notes/other", scheme="100-000-000")
    save_timing(tmp_path / "runs/time", [(scheme, "SE", "eager", 0.1) for scheme in (*EAN, RANDOM[0])])
    report(tmp_path)
    rows = [row for row in lines_of(tmp_path / "out/table1.csv") if row["source"].startswith("here")]
    schemes = {row["connections"].split()[1].strip("`"): row["seeds"] for row in rows}
    assert schemes == {EAN[0]: "3", "110-000-000": "1", "100-000-000": "1", RANDOM[7]: "1"}
    methods = [row["method"] for row in lines_of(tmp_path / "out/table2.csv") if row["source"] == "here"]
    assert methods.count("EAN as trained") == len(
        {*schemes} - {read_record(source / "search.json")["scheme"]["scheme"]}
    )
    points = [line for line in lines_of(tmp_path / "out/figure1.csv") if line["source"] == "here"]
    assert [line["scheme"] for line in points] == [EAN[0]]
    labels = {line["record"] for line in lines_of(tmp_path / "out/records.csv")}
    assert {"alone", f"alone/{RANDOM[0]}/seed_0"} <= labels


def test_table_4_takes_them_by_scheme(tmp_path):
    shutil.copytree(COMPARISON, tmp_path / "runs/comparison")
    returned = {
        name: [
            read_record(path)["scheme"]["scheme"]
            for path in sorted((tmp_path / "runs/comparison").glob(f"{name}/seed_*/search.json"))
        ]
        for name in ("random", "ga")
    }
    schemes = sorted({*returned["random"], *returned["ga"]})
    accuracies = {scheme: [60.0 + k] for k, scheme in enumerate(schemes)}
    del accuracies[next(scheme for scheme in returned["ga"] if scheme not in returned["random"])]
    save_groups(tmp_path / "runs/alone", accuracies, random=RANDOM, GA=returned["ga"])
    report(tmp_path)
    alone = {row["method"]: row["trained alone (%)"] for row in lines_of(tmp_path / "out/table4.csv")}
    assert alone["random"] == spread_text([accuracies[scheme][0] for scheme in returned["random"]], 2)
    assert alone["ga"] == ""  # one of its schemes was not trained


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"groups": {}}, "needs 'groups', missing here"),
        ({"groups": ["011-101-100"]}, "groups must have the form"),
        ({"groups": {"random": "011-101-100"}}, "groups must have the form"),
        ({"groups": {"random": ["011-10x-100"]}}, "cannot read scheme '011-10x-100'"),
        ({"groups": {"random": [3]}}, "cannot read a scheme from 3"),
        ({"groups": {"random": ["011-101-100", "01-10"]}}, "all schemes must belong to one network"),
        ({"groups": {"random": []}}, "all schemes must belong to one network"),
        ({"config": None}, "config is None, expected a name such as"),
        ({"config": "mine"}, "config is 'mine', expected a name such as"),
        ({"environment": {"cpu": "one"}}, "needs a machine in 'environment', missing here"),
        ({"kind": "schemes of another kind"}, None),
    ],
)
def test_a_list_of_another_form_is_left_out(tmp_path, change, reason):
    save_groups(tmp_path / "runs/alone", ACCURACIES, random=RANDOM, EAN=EAN)
    path = tmp_path / "runs/alone/schemes.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    left = []
    found, _ = report(tmp_path, lambda where, why: left.append((where, why)))
    assert list(found) == ["table1", "records"]
    assert [where for where, _ in left] == ([] if reason is None else [path])
    assert all(reason in why for _, why in left)
    if reason is not None:
        with pytest.raises(ValueError, match=r"schemes\.json: "):
            report(tmp_path)


def test_a_damaged_list_is_said(tmp_path):
    save_run(tmp_path / "runs/ean")
    (tmp_path / "runs/schemes.json").write_text('{"kind": "sch')
    with pytest.raises(ValueError, match=r"schemes\.json: is not a run record"):
        report(tmp_path)


def test_lists_of_two_networks_stand_side_by_side(tmp_path):
    save_groups(tmp_path / "runs/se", ACCURACIES, random=RANDOM, EAN=EAN)
    write_record(
        tmp_path / "runs/dia/schemes.json",
        kind="schemes trained alone",
        config="resnet20_dia_cifar100",
        groups={"random": RANDOM},
    )
    found, text = report(tmp_path)
    assert {"figure4_alone", "figure4_alone_2"} <= found.keys()
    assert "ResNet-20 DIA, CIFAR-100\n\n0 of 8 schemes are" in text
    assert "Schemes of `se` trained so far: random 6 of 8, EAN 2 of 2;" in text


def test_values_that_are_all_alike_are_not_tested():
    of = Sampling("", 2, {"EAN": 3})
    assert statement("EAN", [65.0, 65.0], [64.0, 65.0], of) == "mean 65.00, sd 0.00\n2 of 3 schemes"
    assert "p = " in statement("EAN", [65.0, 65.1], [64.0, 65.0], of)
