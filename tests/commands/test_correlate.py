import csv
import json
import shutil

import pytest
from PIL import Image
from scipy import stats

from ean_core import ConnectionScheme
from ean_core.search.correlate import sample_schemes
from tasks.cli import main

CONFIG = "search_resnet20_se_digits"
SMALL = ("search.finalists.images=100",)


def words(supernet, work_dir, schemes=3, *more, options=()):
    given = [*SMALL, f"search.scores={work_dir.parent / 'scores'}", *options]
    command = ["search", "correlate", CONFIG, "--supernet", supernet, "--work-dir", work_dir, "--schemes", schemes]
    return [str(word) for word in (*command, *more, "--cfg-options", *given)]


@pytest.fixture(scope="module")
def correlated(digits_supernet, tmp_path_factory):
    """The folder of three schemes trained stand-alone for one epoch."""
    folder = tmp_path_factory.mktemp("correlated") / "run"
    with pytest.raises(SystemExit) as ended:
        main([*words(digits_supernet, folder, 3, "--epochs", 1)])
    assert ended.value.code == 0
    return folder


@pytest.fixture
def again(correlated, tmp_path):
    shutil.copytree(correlated.parent, tmp_path / "copy")
    return tmp_path / "copy" / "run"


def checkpoints(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("epoch_*.pth")}


def test_each_scheme_is_trained_alone_and_set_against_the_supernets_scores(correlated, digits_supernet):
    record = json.loads((correlated / "correlation.json").read_text())
    rows = record["schemes"]
    assert [row["scheme"] for row in rows] == [str(scheme) for scheme in sample_schemes((3, 3, 3), 3, 0)]
    for row in rows:
        run = json.loads((correlated / row["scheme"] / "record.json").read_text())
        assert run["settings"]["model"]["backbone"]["scheme"] == row["scheme"]
        assert "scheme" not in run["settings"]["default_hooks"]  # no random schemes
        assert (run["epochs"], run["validation"]["accuracy/top1"]) == (1, row["alone"])
        assert row["connections"] == ConnectionScheme.parse(row["scheme"]).connections
        assert row["supernet"] != row["recalibrated"]
    assert (record["kind"], record["config"], record["epochs"]) == ("correlation", CONFIG, 1)
    for name in ("supernet", "recalibrated"):
        expected = stats.spearmanr([row[name] for row in rows], [row["alone"] for row in rows]).statistic
        assert record["correlations"][name]["spearman"] == pytest.approx(expected)
    table = list(csv.DictReader((correlated / "correlation.csv").open()))
    assert [{name: float(row[name]) for name in ("alone", "supernet", "recalibrated")} for row in table] == [
        {name: row[name] for name in ("alone", "supernet", "recalibrated")} for row in rows
    ]
    with Image.open(correlated / "correlation.png") as image:
        assert image.size[0] > 500


def test_what_is_trained_is_not_trained_again(again, digits_supernet, ean):
    before = checkpoints(again)
    record = json.loads((again / "correlation.json").read_text())
    code, out = ean(*words(digits_supernet, again, 3, "--epochs", 1, "--resume"))
    assert code == 0
    assert out.startswith(f"correlate {CONFIG}: ResNet-20 SE, a supernet of 9 blocks, ")
    code, quiet = ean(*words(digits_supernet, again, 3, "--epochs", 1, "--resume", "--quiet"))
    assert (code, quiet.splitlines()) == (0, out.splitlines()[-3:])
    assert checkpoints(again) == before
    assert json.loads((again / "correlation.json").read_text())["schemes"] == record["schemes"]
    assert out.count("over 3 schemes") == 2
    assert "supernet: Pearson " in out


def test_one_that_was_interrupted_is_trained_and_gives_what_it_gave(again, digits_supernet, ean):
    record = json.loads((again / "correlation.json").read_text())
    lost = record["schemes"][1]["scheme"]
    for path in [*(again / lost).glob("epoch_*"), again / lost / "record.json"]:
        path.unlink()
    kept = checkpoints(again)
    assert len(kept) == 2
    assert ean(*words(digits_supernet, again, 3, "--epochs", 1, "--resume"))[0] == 0
    assert kept.items() < checkpoints(again).items()
    assert json.loads((again / "correlation.json").read_text())["schemes"] == record["schemes"]


def test_runs_that_are_there_are_not_overwritten(again, digits_supernet, ean):
    before = checkpoints(again)
    code, _ = ean(*words(digits_supernet, again, 3, "--epochs", 1))
    assert code.startswith("ean search correlate: ")
    assert "add --resume" in code
    assert checkpoints(again) == before


def test_runs_of_other_epochs_are_not_taken_for_these(again, digits_supernet, ean):
    """They are trained further or refused; a record never claims epochs that a run did not have."""
    code, _ = ean(*words(digits_supernet, again, 3, "--epochs", 2, "--resume"))
    record = json.loads((again / "correlation.json").read_text())
    trained = {json.loads(path.read_text())["epochs"] for path in again.glob("*/record.json")}
    assert code != 0 or trained == {2}
    assert trained == {record["epochs"]}


def test_runs_of_other_settings_are_not_taken_for_these(again, digits_supernet, ean):
    options = ("optim_wrapper.optimizer.lr=0.05",)
    code, _ = ean(*words(digits_supernet, again, 3, "--epochs", 1, "--resume", options=options))
    assert code != 0
    assert "optim_wrapper.optimizer.lr is 0.2 there, 0.05 here" in code


@pytest.mark.parametrize(("flag", "value"), [("--schemes", 2), ("--epochs", 0)])
def test_too_few_are_a_usage_error(digits_supernet, tmp_path, ean, flag, value):
    command = ["search", "correlate", CONFIG, "--supernet", digits_supernet, "--work-dir", tmp_path, flag, value]
    assert ean(*command)[0] == 2
    assert list(tmp_path.iterdir()) == []
