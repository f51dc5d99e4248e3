"""Check every published model against its file, its records and, if the data are available, its accuracy."""

import pytest

from ean_core.data import data_root
from tasks.crowd_counting.annotations import find_shanghaitech
from tasks.crowd_counting.prepare import prepare
from tasks.segmentation.prepare import prepare as prepare_voc
from tasks.segmentation.voc import find_voc
from zoo.index import PACKAGED, Index
from zoo.verify import verify

ENTRIES = {str(name): entry for name, entry in Index(PACKAGED).entries.items()}


def test_there_are_models():
    assert {"resnet20.digits", "full_resnet20_se.digits", "ean_resnet20_se.digits"} <= ENTRIES.keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_a_model_is_what_its_entry_says(name):
    verdict = verify(ENTRIES[name])
    assert verdict.good, verdict.problems
    assert verdict.file == ENTRIES[name].packaged_file


@pytest.fixture(scope="module")
def prepared_voc(tmp_path_factory):
    """EAN_DATA with the VOC sample prepared, if the real data are available."""
    root = data_root() / "VOCdevkit"
    if not root.is_dir():
        pytest.skip("VOC is not in EAN_DATA")
    folder = tmp_path_factory.mktemp("data")
    prepare_voc(find_voc(root), root, folder / "segmentation/voc2012", workers=2)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """EAN_DATA with ShanghaiTech B prepared, if the real data are available."""
    part = data_root() / "ShanghaiTech" / "part_B"
    if not (part / "train_data").is_dir():
        pytest.skip("ShanghaiTech B is not in EAN_DATA")
    folder = tmp_path_factory.mktemp("data")
    prepare(find_shanghaitech(part), part, folder / "crowd/shanghaitech", workers=2)
    return folder


def _measured(name):
    """One network per data set and attention in every run; the others, of the same code, in the slow ones."""
    again = not name.startswith("ean_") and not name.endswith("digits")
    return pytest.param(name, marks=pytest.mark.slow) if again else name


@pytest.mark.parametrize("name", [_measured(name) for name in ENTRIES])
def test_a_models_accuracy_comes_out_again(name, request, monkeypatch):
    if name.endswith("cifar100"):
        request.getfixturevalue("cifar_root")
    if name.endswith("shanghaitech_b"):
        monkeypatch.setenv("EAN_DATA", str(request.getfixturevalue("prepared")))
    if name.endswith("voc2012"):
        monkeypatch.setenv("EAN_DATA", str(request.getfixturevalue("prepared_voc")))
    verdict = verify(ENTRIES[name], metrics=True)
    assert verdict.good, verdict.problems
    assert verdict.measured, verdict.note


def test_no_file_is_without_an_entry_and_all_together_stay_small():
    files = list((PACKAGED / "weights").glob("*.safetensors"))
    assert {file.name for file in files} == {entry.file for entry in ENTRIES.values()}
    assert {path.name for path in (PACKAGED / "records").iterdir()} == set(ENTRIES)
    assert sum(file.stat().st_size for file in files) < 80e6
