"""Networks with constants in the place of gates, as a report shows them."""

import json

import pytest

from ean_core.report.gate_sections import folds_section
from ean_core.report.gathered import Records

from .drawn import save_fold, save_run, save_timing

BASE, FOLDED, ALL = "010-100-000", "0c0-100-000", "0c0-c00-000"


def section(folder):
    return folds_section(Records.read([folder]))


def test_a_folded_network_is_shown_on_the_images_that_chose_and_on_others(tmp_path):
    front = [(ALL, 60.0, -5.0), (FOLDED, 64.9, -0.1)]
    save_fold(tmp_path / "fold", front, {"computed": (BASE, 66.0, 0.0), "folded": (FOLDED, 65.8, -0.2)}, margin=0.5)
    found = section(tmp_path)
    rows = [
        tuple(row[name] for name in ("result", "images", "accuracy (%) before", "after", "difference (points)"))
        for row in found.rows
    ]
    assert rows == [
        ("beyond the margin", "10,000 validation images", "65.00", "60.00", "-5.00 (-5.49 to -4.51)"),
        ("chosen", "10,000 validation images", "65.00", "64.90", "-0.10 (-0.59 to +0.39)"),
        ("folded", "5,000 test images", "66.00", "65.80", "-0.20 (-0.69 to +0.29)"),
    ]
    assert [row["constant"] for row in found.rows] == ["2 of 2", "1 of 2", "1 of 2"]
    assert {(row["network"], row["data"], row["record"]) for row in found.rows} == {
        ("ResNet-20 SE", "CIFAR-100", "fold"),
    }
    assert found.note.endswith(
        f"ResNet-20 SE `{BASE}` on CIFAR-100 (`epoch_24.pth`), margin 0.5 points: 1 of 2 gates became constant (stage "
        "1, block 2); the network differs by -0.10 points (-0.59 to +0.39) on the images that chose, and by -0.20 "
        "points (-0.69 to +0.29) on the others."
    )


def test_a_network_that_needs_all_its_gates_says_the_loss_of_the_best_constant(tmp_path):
    front = [(ALL, 60.0, -5.0), (FOLDED, 64.0, -1.0), (BASE, 65.0, 0.0)]
    save_fold(tmp_path / "fold", front, {"computed": (BASE, 66.0, 0.0)}, source={"name": "ean", "scheme": BASE})
    found = section(tmp_path)
    assert [row["result"] for row in found.rows] == [*["beyond the margin"] * 2, *["all gates computed"] * 2]
    assert found.rows[-1]["constant"] == "0 of 2"
    assert found.note.endswith(
        f"(`ean`), margin 0.2 points or one standard error of the difference, whichever is larger: none of 2 gates "
        f"became constant; the best scheme with a constant gate, `{FOLDED}`, differs by -1.00 points (-1.49 to -0.51) "
        "on the images that chose."
    )


def test_a_folded_network_has_its_own_times(tmp_path):
    reported = {"computed": (BASE, 66.0, 0.0), "folded": (FOLDED, 65.8, -0.2), "tuned": (FOLDED, 66.1, 0.1)}
    save_fold(tmp_path / "fold", [(ALL, 60.0, -5.0), (FOLDED, 64.9, -0.1)], reported)
    save_timing(tmp_path / "fold", [(FOLDED, "SE", "deployed", 0.01), (ALL, "SE", "deployed", 0.5)])
    save_timing(tmp_path / "time", [(FOLDED, "SE", "eager", 0.03), (FOLDED, "DIA", "deployed", 0.4)])
    found = section(tmp_path)
    assert [row["deployed (%)"] for row in found.rows] == ["", *["+1.0 (+0.0 to +2.0)"] * 2, ""]
    assert [row["eager (%)"] for row in found.rows] == ["", *["+3.0 (+2.0 to +4.0)"] * 2, ""]
    assert found.rows[1]["timed in"] == "eager: † time, deployed: own folder"
    assert "†: not timed in a folder of its runs" in found.note
    assert found.rows[-1]["result"] == "folded and tuned"


def test_counters_lose_people(tmp_path):
    metric = {"name": "count/MAE", "title": "MAE", "unit": "people", "less_is_better": True, "short": ""}
    front = [(FOLDED, 13.0, 0.5)]
    config = "resnet20_se_shanghaitech_b"
    save_fold(tmp_path / "fold", front, {"folded": (FOLDED, 14.0, 0.25)}, metric=metric, config=config)
    found = section(tmp_path)
    assert found.rows[0]["difference (people)"] == "+0.50 (+0.01 to +0.99)"
    assert found.rows[1]["MAE (people) before"] == "13.75"
    assert "margin one standard error of the difference: 1 of 2 gates" in found.note


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": {}}, "incomplete: scheme"),
        ({"scheme": BASE}, f"scheme {BASE} is not the last one of 'front'"),
        ({"chosen_on": {"front": []}}, f"scheme {FOLDED} is not the last one of 'front'"),
        ({"metric": 3}, "3 is not a metric"),
    ],
)
def test_a_record_of_another_form_is_left_out(tmp_path, change, reason):
    save_run(tmp_path / "run")
    save_fold(tmp_path / "fold", [(FOLDED, 64.9, -0.1)], {})
    path = tmp_path / "fold/fold.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    left = []
    records = Records.read([tmp_path], lambda where, why: left.append((where, why)))
    assert folds_section(records) is None
    ((where, why),) = left
    assert where == path
    assert why.startswith(reason) or "needs 'source'" in why
