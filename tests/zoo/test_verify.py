import json
import re

import pytest
import yaml

from zoo.index import Index
from zoo.verify import verify


@pytest.fixture
def entry(root):
    """Read the entry with attention again."""
    return lambda: next(e for e in Index(root).entries.values() if e.name.variant)


def change(root, edit):
    path = root / "metafiles" / "resnet20_digits.yml"
    content = yaml.safe_load(path.read_text())
    edit(next(model for model in content["Models"] if model["Name"].startswith("ean")))
    path.write_text(yaml.safe_dump(content))


def test_a_good_model_is_good_and_its_accuracy_comes_out_again(entry):
    verdict = verify(entry(), metrics=True)
    assert verdict.good, verdict.problems
    assert verdict.measured == pytest.approx(entry().metrics, abs=0.01)


def test_without_asking_nothing_is_measured(entry):
    assert verify(entry()).measured is None


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:-1] + bytes([c[-1] ^ 1])])
def test_an_altered_file_is_found(entry, damage):
    path = entry().packaged_file
    path.write_bytes(damage(path.read_bytes()))
    assert any("the SHA-256 of" in problem for problem in verify(entry()).problems)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda m: m["Metadata"].update({"Parameters": 5}), r"parameters, its entry says 5"),
        (
            lambda m: m["Metadata"].update({"Scheme": "111-111-111"}),
            r"have different schemes: 100-010-001, 111-111-111",
        ),
        (lambda m: m["Metadata"].update({"Seed": 7}), r"Seed is 7 in its entry, 0 in its training record"),
        (
            lambda m: m["Results"][0]["Metrics"].update({"Top 1 Accuracy": 99.9}),
            r"its entry says .*99.9.*, its test record",
        ),
        (lambda m: m["Network"].update({"num_classes": 11}), r"its network and its file differ in fc.weight"),
        (lambda m: m.update({"Size": 5}), r"bytes, its entry says 5"),
    ],
)
def test_an_entry_that_does_not_hold_is_found(root, entry, edit, problem):
    change(root, edit)
    problems = verify(entry()).problems
    assert any(re.search(problem, text) for text in problems), problems


def test_figures_that_do_not_come_out_again_are_found(root, entry):
    """Entry and record agree, but the file differs."""
    change(root, lambda m: m["Results"][0]["Metrics"].update({"Top 1 Accuracy": 99.0}))
    path = entry().records / "test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": {"accuracy/top1": 99.0}}))
    assert verify(entry()).good
    (problem,) = verify(entry(), metrics=True).problems
    assert "Top 1 Accuracy is" in problem
    assert "its card says 99.000" in problem


def test_a_file_that_is_not_here_is_no_problem_but_is_said(entry):
    entry().packaged_file.unlink()
    verdict = verify(entry(), metrics=True)
    assert verdict.good
    assert "`ean zoo download ean_resnet20_se.digits` fetches it" in verdict.note


def test_missing_records_are_a_problem(entry):
    (entry().records / "test.json").unlink()
    assert any("its records cannot be read" in problem for problem in verify(entry()).problems)


def test_data_that_are_not_at_hand_are_said(root, entry, monkeypatch, tmp_path):
    change(root, lambda m: m.update({"Config": "configs/classification/resnet20_se_cifar100.py"}))
    monkeypatch.setenv("EAN_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("EAN_OFFLINE", "1")
    verdict = verify(entry(), metrics=True)
    assert verdict.good
    assert "not measured: CIFAR-100 is missing or incomplete in" in verdict.note
    assert "EAN_OFFLINE forbids" in verdict.note
