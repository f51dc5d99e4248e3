"""Recipes are told apart by name."""

import csv
import json

import pytest

from ean_core.commands.report import write_report
from ean_core.report.recipes import Recipes
from ean_core.report.results import read_results

from .drawn import save_run


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def edit():
    """Adds settings to a run's record."""

    def merge(into, more):
        for name, value in more.items():
            if isinstance(value, dict):
                merge(into.setdefault(name, {}), value)
            else:
                into[name] = value

    def edited(folder, settings):
        path = folder / "record.json"
        record = json.loads(path.read_text())
        merge(record["settings"], settings)
        path.write_text(json.dumps(record))

    return edited


def named(folder):
    """Text of each network's recipe by accuracy, and the notes."""
    found = read_results([folder])
    recipes = Recipes.of(found)
    return {each.values("accuracy/top1")[0]: recipes.text(each) for each in found}, recipes.note(found)


def test_length_alone_needs_no_letter(tmp_path):
    for epochs in (1, 24):
        save_run(tmp_path / str(epochs), epochs=epochs, accuracy=epochs)
    assert named(tmp_path) == ({1: "1 epoch", 24: "24 epochs"}, "")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("model.loss.type", {"model": {"loss": {"type": "Soft"}}}),
        ("train_dataloader.dataset.crop.0", {"train_dataloader": {"dataset": {"crop": [8, 8]}}}),
        ("param_scheduler.eta_max", {"param_scheduler": {"eta_max": 0.4}}),
    ],
)
def test_what_differs_besides_is_named(tmp_path, edit, name, settings):
    save_run(tmp_path / "a", accuracy=65.0)
    save_run(tmp_path / "b", accuracy=66.0, seed=1)
    edit(tmp_path / "b", settings)
    names, note = named(tmp_path)
    assert names == {65.0: "24 epochs, recipe A", 66.0: "24 epochs, recipe B"}
    assert note.startswith("Recipes of ResNet-20 on CIFAR-100: A: ")
    assert f"`{name}` default" in note.partition("; B: ")[0]
    assert f"`{name}` " in note.partition("; B: ")[2]


def test_a_schedule_that_follows_from_the_length_is_no_other_recipe(tmp_path, edit):
    for epochs in (2, 24):
        save_run(tmp_path / str(epochs), epochs=epochs, accuracy=epochs)
        edit(tmp_path / str(epochs), {"param_scheduler": {"total_steps": epochs}})
    assert named(tmp_path) == ({2: "2 epochs", 24: "24 epochs"}, "")


def test_initial_weights_of_each_network_are_no_other_recipe_but_other_weights_of_one_are(tmp_path, edit):
    def save(folder, scheme, accuracy, weights):
        save_run(tmp_path / folder, scheme=scheme, accuracy=accuracy)
        edit(tmp_path / folder, {"model": {"backbone": {"init_cfg": {"checkpoint": weights}}}})

    save("ean", "010-100-000", 65.0, "ean.pth")
    save("plain", "000-000-000", 64.0, "plain.pth")
    assert named(tmp_path) == ({64.0: "24 epochs", 65.0: "24 epochs"}, "")
    save("other", "010-100-000", 66.0, "other.pth")
    names, _ = named(tmp_path)
    assert len({*names.values()}) == 3


def test_rows_and_notes_of_a_report_name_recipes_and_never_average_them(tmp_path):
    for seed, (accuracy, rate) in enumerate([(65.0, 0.1), (60.0, 0.3)]):
        save_run(tmp_path / f"runs/{seed}", seed=seed, accuracy=accuracy, lr=rate)
    save_run(tmp_path / "runs/short", seed=2, accuracy=30.0, epochs=2)
    write_report([tmp_path / "runs"], tmp_path / "out")
    rows = [row for row in lines_of(tmp_path / "out/table1.csv") if row["source"] == "here"]
    assert sorted((row["accuracy (%)"], row["epochs"], row["recipe"]) for row in rows) == [
        ("30.00", "2", "A"),
        ("60.00", "24", "B"),
        ("65.00", "24", "A"),
    ]
    text = (tmp_path / "out/README.md").read_text()
    assert "A: `optim_wrapper.optimizer.lr` 0.1; B: `optim_wrapper.optimizer.lr` 0.3." in text


def test_many_differences_are_counted_and_long_ones_cut(tmp_path, edit):
    save_run(tmp_path / "a", accuracy=65.0)
    save_run(tmp_path / "b", accuracy=66.0)
    edit(tmp_path / "b", {"train_dataloader": {"dataset": {f"k{k}": "`x" * 50 for k in range(9)}}})
    _, note = named(tmp_path)
    assert note.count(" and 4 more settings") == 2
    assert len(note) < 1200
    assert note.count("`") % 2 == 0
