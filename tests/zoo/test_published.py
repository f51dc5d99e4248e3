"""Every published model against its file, its records and, where the data are at hand, its accuracy."""

import pytest

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


@pytest.mark.parametrize("name", ENTRIES)
def test_a_models_accuracy_comes_out_again(name, request):
    if name.endswith("cifar100"):
        request.getfixturevalue("cifar_root")
    verdict = verify(ENTRIES[name], metrics=True)
    assert verdict.good, verdict.problems
    assert verdict.measured, verdict.note


def test_no_file_is_without_an_entry_and_all_together_stay_small():
    files = list((PACKAGED / "weights").glob("*.safetensors"))
    assert {file.name for file in files} == {entry.file for entry in ENTRIES.values()}
    assert {path.name for path in (PACKAGED / "records").iterdir()} == set(ENTRIES)
    assert sum(file.stat().st_size for file in files) < 40e6
