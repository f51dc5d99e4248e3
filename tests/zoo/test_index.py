import re
from copy import deepcopy

import pytest
import yaml

import zoo
from zoo.index import PACKAGED, Index, NoWeightsError, by_collection, find_entry, indexes, published
from zoo.names import ModelName


def test_an_index_reads_all_its_metafiles(root):
    entries = Index(root).entries
    assert list(map(str, entries)) == ["resnet20.digits", "ean_resnet20_se.digits"]
    entry = next(iter(entries.values()))
    assert entry.packaged_file.is_file()
    assert entry.config == "resnet20_se_digits"
    assert list(by_collection(entries.values())) == ["resnet20.digits"]


def test_a_folder_without_an_index_has_no_models(tmp_path):
    assert Index(tmp_path).entries == {}
    assert Index(tmp_path).base is None


def test_models_of_ones_own_come_first(root, monkeypatch):
    ours = published()
    monkeypatch.setenv("EAN_ZOO_INDEX", str(root))
    assert [index.root for index in indexes()] == [root, PACKAGED]
    both = published()
    assert both.keys() >= ours.keys()
    assert next(entry.root for name, entry in both.items() if str(name) == "ean_resnet20_se.digits") == root


def test_a_folder_of_ones_own_without_an_index_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("EAN_ZOO_INDEX", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no model-index.yml; `ean zoo publish --to"):
        zoo.list_models()


def change(root, edit):
    path = root / "metafiles" / "resnet20_digits.yml"
    content = yaml.safe_load(path.read_text())
    edit(content)
    path.write_text(yaml.safe_dump(content))
    return lambda: Index(root).entries


def test_an_entry_that_lacks_a_field_is_named(root):
    read = change(root, lambda content: content["Models"][0].pop("SHA256"))
    with pytest.raises(ValueError, match=r"the entry of resnet20.digits in .* lacks SHA256"):
        read()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: m.update({"Weights": "../../escape.safetensors"}),
            r"expected Weights resnet20.digits-\w{8}.safetensors",
        ),
        (lambda m: m.update({"Weights": "/tmp/escape.safetensors"}), r"expected Weights"),
        (lambda m: m.update({"SHA256": "../" * 20}), r"SHA256 must be 64 hexadecimal digits"),
        (lambda m: m.update({"Size": "large"}), r"and an integer Size, got"),
        (
            lambda m: m["Network"]["backbone"].update({"type": ["os.getcwd"]}),
            r"a network may only use registered modules",
        ),
        (
            lambda m: m["Network"].update({"init_cfg": {"checkpoint": "x"}}),
            r"a network may only use registered modules",
        ),
    ],
)
def test_an_entry_cannot_lead_out_of_the_index(root, edit, message):
    read = change(root, lambda content: edit(content["Models"][0]))
    with pytest.raises(ValueError, match=message):
        read()


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update({"Network": {"type": "os.system", "command": "touch x"}}),
        lambda m: m["Network"]["backbone"].update({"type": "os.getcwd"}),
        lambda m: m.update({"Name": "../../resnet20.digits"}),
    ],
)
def test_an_entry_of_an_unknown_kind_is_left_out(root, edit):
    read = change(root, lambda content: edit(content["Models"][0]))
    assert list(map(str, read())) == ["ean_resnet20_se.digits"]


def test_an_index_imports_its_own_files_only(root):
    (root.parent / "outside.yml").write_text("Models: []\n")
    (root / "model-index.yml").write_text("Import: [../outside.yml]\n")
    with pytest.raises(ValueError, match=r"imports ../outside.yml, which is outside of its folder"):
        _ = Index(root).entries


def test_a_model_may_be_listed_once(root):
    read = change(root, lambda content: content["Models"].append(deepcopy(content["Models"][0])))
    with pytest.raises(ValueError, match=r"resnet20.digits is listed twice"):
        read()


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_metafile_is_refused(root, text):
    (root / "metafiles" / "resnet20_digits.yml").write_text(text)
    with pytest.raises(ValueError, match=r"resnet20_digits.yml (is not YAML|must contain a mapping)"):
        _ = Index(root).entries


@pytest.mark.parametrize(
    ("name", "task"),
    [("ean_resnet20_se.shanghaitech", "Crowd Counting"), ("ean_resnet20_se.cifar10", "Semantic Segmentation")],
)
def test_where_weights_of_a_task_are_needed_only_such_models_are_suggested(name, task):
    with pytest.raises(ValueError, match="there is no model") as raised:
        find_entry(name, task)
    near = re.search(r"did you mean (.*)\?", str(raised.value))
    suggested = near[1].split(" or ") if near else []
    assert suggested or task != "Crowd Counting"
    assert all(ModelName.parse(each) in published() and ModelName.parse(each).task == task for each in suggested)


def test_a_model_without_weights_is_answered_with_models_of_its_task():
    with pytest.raises(NoWeightsError, match=r"There are weights of ean_resnet18_se.shanghaitech_b"):
        find_entry("ean_resnet50_se.shanghaitech_b")
