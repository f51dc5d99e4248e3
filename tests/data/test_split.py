from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ean_core.data import SPLITS, split_indices
from ean_core.data.split import check_split


@settings(deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 5))
def test_validation_is_the_first_images_of_each_class_and_training_the_rest(data, val_per_class, classes):
    labels = [label for label in range(classes) for _ in range(val_per_class + data.draw(st.integers(1, 5)))]
    labels = data.draw(st.permutations(labels))
    train, val = (split_indices(labels, split, val_per_class) for split in ("train", "val"))
    assert sorted(train + val) == split_indices(labels, "trainval", val_per_class) == list(range(len(labels)))
    for label in range(classes):
        members = [i for i, found in enumerate(labels) if found == label]
        assert [i for i in val if labels[i] == label] == members[:val_per_class]
        assert [i for i in train if labels[i] == label] == members[val_per_class:]


def test_the_labels_are_read_once():
    class Labels(list):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

        def __iter__(self):
            for label in super().__iter__():
                self.reads += 1
                yield label

        def index(self, *arguments):
            raise AssertionError("searched through the labels")

        count = index

    labels = Labels([i % 50 for i in range(2000)])
    assert Counter(i % 50 for i in split_indices(labels, "val", 10)) == Counter(dict.fromkeys(range(50), 10))
    assert labels.reads == 2000


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_training_images_is_refused_by_name(split):
    with pytest.raises(ValueError, match=r"class 7 has 2 images.*val_per_class=2.*lower val_per_class"):
        split_indices([3, 3, 3, 7, 7], split, val_per_class=2)


def test_an_empty_validation_set_is_refused():
    with pytest.raises(ValueError, match="val_per_class must be at least 1, got 0"):
        split_indices([0, 0], "val", val_per_class=0)


def test_the_test_images_are_no_part_of_the_training_images():
    with pytest.raises(ValueError, match=r"'test'.*choose from 'train', 'trainval', 'val'"):
        split_indices([0, 0], "test", val_per_class=1)


def test_an_unknown_split_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown split 'vall'; did you mean 'val'.*'test', 'train', 'trainval', 'val'"
    ):
        check_split("vall")
    assert [check_split(split) for split in SPLITS] == [None] * 4
