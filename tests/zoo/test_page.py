import json
import re

import pytest
import yaml

from zoo.index import PACKAGED, Index
from zoo.page import MADE, card, figures_of, overview, pages, write_pages


def test_the_overview_has_a_row_a_model(root):
    text = overview(Index(root))
    assert "## ResNet-20 on scikit-learn digits" in text
    assert re.search(
        r"\| \[`ean_resnet20_se.digits`\]\(cards/ean_resnet20_se.digits.md\) \| !\[100-010-001\]\(strips/", text
    )
    assert "| Top 1 Accuracy | images |" in text
    assert re.search(r"\| \d\d\.\d\d \| test \|", text)
    assert "increment" not in text  # nothing was timed


def test_cards_say_data_recipe_scheme_accuracy_and_command(root):
    for entry in Index(root).entries.values():
        text = card(entry)
        training = entry.record("record")
        for fact in (str(entry.scheme), entry.sha256, training["command"], "1 epoch,", "seed 0", "400 test images"):
            assert fact in text
        assert f"{entry.metrics['Top 1 Accuracy']:.2f} ± " in text


def test_a_metric_with_an_interval_in_its_test_record_has_it_on_the_card(root):
    entry = next(iter(Index(root).entries.values()))
    path = entry.records / "test.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "intervals": {"accuracy/top1": [91, 95.5]}}))
    changed = card(Index(root).entries[entry.name])
    assert "[91.00, 95.50] (95 %) |" in changed
    del record["intervals"]
    assert changed.replace(" [91.00, 95.50] (95 %)", "") == card_of(record, path, root, entry.name)


def test_a_card_names_the_weights_that_training_started_from():
    entries = {str(name): entry for name, entry in Index(PACKAGED).entries.items()}
    assert "| initial weights | `ean://resnet20.cifar100` |" in card(entries["resnet20.shanghaitech_b"])
    assert "initial weights" not in card(entries["resnet20.cifar100"])


def card_of(record, path, root, name):
    path.write_text(json.dumps(record))
    return card(Index(root).entries[name])


def test_strangers_records_put_no_markup_on_a_card(root):
    hostile = "x` <script>1</script>\n| ![a](https://host/b.png)\u202e"
    path = root / "metafiles" / "resnet20_digits.yml"
    content = yaml.safe_load(path.read_text())
    for model in content["Models"]:
        keys = ("Training Command", "Training Resources", "Finished", "Training Data")
        model["Metadata"].update(
            dict.fromkeys(keys, hostile), **{"Training Techniques": [hostile], "Versions": {"a": hostile}}
        )
        model["Results"][0]["Metrics"][hostile] = 1.0
        row = {"Form": "eager", "Latency (ms)": 1.0, "Increment (%)": 1.0, "Interval (%)": [], "Batch Size": 50}
        row.update({"Image Size": 8, "Precision": hostile, "Device": hostile, "Command": hostile})
        model["Metadata"]["Timing"] = [row]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    index = Index(root)
    for text in (*map(card, index.entries.values()), overview(index)):
        outside = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
        assert "<script" not in outside
        assert not re.search(r"(?<!\\)\]\(https://host", outside)
        assert "\u202e" not in text
        assert not re.search(r"^\| !\[a", text, re.MULTILINE)


def time_both(root):
    path = root / "metafiles" / "resnet20_digits.yml"
    content = yaml.safe_load(path.read_text())
    for model, increment in zip(content["Models"], (0.0, 12.5), strict=True):
        row = {"Form": "eager", "Latency (ms)": 1.0, "Increment (%)": increment, "Interval (%)": [], "Batch Size": 50}
        row.update({"Image Size": 8, "Precision": "float32", "Device": "A processor, 1 thread", "Command": "ean time"})
        model["Metadata"]["Timing"] = [row]
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def test_timed_models_have_a_figure_that_is_named_by_its_data(root):
    assert figures_of(Index(root)) == {}
    time_both(root)
    (path,) = figures_of(Index(root))
    write_pages(Index(root))
    assert (root / path).read_text().startswith("<?xml")
    assert f"({path})" in (root / "README.md").read_text()
    assert "| +12.5 |" in (root / "README.md").read_text()
    text = (root / "metafiles" / "resnet20_digits.yml").read_text().replace("12.5", "13.5")
    (root / "metafiles" / "resnet20_digits.yml").write_text(text)
    (other,) = figures_of(Index(root))
    assert other != path
    write_pages(Index(root))
    assert not (root / path).exists()


def test_pages_of_models_that_are_gone_are_removed(root):
    (root / "cards" / "resnet8.digits.md").write_text("old")
    write_pages(Index(root))
    assert not (root / "cards" / "resnet8.digits.md").exists()


def test_the_pages_of_the_package_are_those_of_its_index():
    index = Index(PACKAGED)
    expected = pages(index)
    for path, text in expected.items():
        assert (PACKAGED / path).read_text(encoding="utf-8") == text, f"{path} is stale: python -m zoo.page writes it"
    there = {path.relative_to(PACKAGED).as_posix() for folder in MADE for path in (PACKAGED / folder).glob("*")}
    assert there == {path for path in expected if path != "README.md"} | figures_of(index).keys()


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(path for path in pages(Index(PACKAGED)) if path.endswith(".md"))]
)
def test_links_of_the_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", (PACKAGED / page).read_text()):
        assert (PACKAGED / page).parent.joinpath(target).exists(), target
