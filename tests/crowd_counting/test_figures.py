import numpy as np
import pytest
from PIL import Image

from ean_core.common.record import write_record
from ean_core.runs.folder import Run
from tasks.crowd_counting.annotations import find_shanghaitech
from tasks.crowd_counting.counter import Counter
from tasks.crowd_counting.dataset import CrowdDataset
from tasks.crowd_counting.figures import learning_curve, naive_error, prediction_figure, spread_over_counts
from tasks.crowd_counting.network import CrowdCounter
from tasks.crowd_counting.prepare import prepare

from .drawn import write_part

RECORD = {
    "validations": [
        {"epoch": epoch, "count/MAE": mae, "count/RMSE": 2 * mae, "count/NAE": 0.1}
        for epoch, mae in ((2, 9.0), (4, 3.0), (6, 5.0))
    ],
    "best": {"checkpoint": "best_count_MAE_epoch_4.pth", "epoch": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_part(root, images=(20, 3))
    prepare(find_shanghaitech(root), root, root / "prepared")
    return root / "prepared"


@pytest.mark.parametrize("naive", [None, 20.0])
def test_a_learning_curve_is_drawn_with_and_without_the_answer_of_the_mean(tmp_path, naive):
    write_record(tmp_path / "record.json", kind="training", epochs=6, **RECORD)
    learning_curve(Run(tmp_path), tmp_path / "a.svg", naive)
    text = (tmp_path / "a.svg").read_text()
    assert "chosen: 3.0" in text
    assert ("always predicting the training mean: 20.0" in text) == (naive is not None)
    learning_curve(Run(tmp_path), tmp_path / "b.svg", naive)
    assert (tmp_path / "b.svg").read_text() == text


def test_a_learning_curve_of_a_run_that_selected_nothing_marks_its_last_checkpoint(tmp_path):
    write_record(tmp_path / "record.json", kind="training", epochs=6, validations=RECORD["validations"])
    learning_curve(Run(tmp_path), tmp_path / "a.svg")
    assert "last: 5.0" in (tmp_path / "a.svg").read_text()


def test_the_answer_of_the_mean_is_measured_on_other_images(folder):
    training, measured = CrowdDataset("train", folder), CrowdDataset("test", folder)
    mean = np.mean([len(training[n]["points"]) for n in range(len(training))])
    truths = [len(measured[n]["points"]) for n in range(len(measured))]
    assert truths == [3, 6, 9]
    assert naive_error(training, measured) == pytest.approx(np.mean(np.abs(np.array(truths) - mean)))


@pytest.mark.parametrize(
    ("counts", "number", "places"), [([5, 1, 3], 2, [1, 0]), ([5, 1, 3], 6, [1, 2, 0]), ([7], 6, [0])]
)
def test_shown_are_the_fewest_the_most_and_what_lies_between(counts, number, places):
    assert spread_over_counts(counts, number) == places


def test_predictions_are_drawn_beside_the_truth(folder, tmp_path):
    counter = Counter(
        CrowdCounter(
            {"type": "EANResNetCIFAR", "depth": 20, "scheme": "none", "stem_stride": 2},
            data_preprocessor={"type": "ImagePreprocessor", "mean": [128.0] * 3, "std": [64.0] * 3},
        )
    )
    dataset = CrowdDataset("trainval", folder)
    chosen = prediction_figure(counter, dataset, tmp_path / "predictions.png", number=3)
    assert [dataset.entries[n]["heads"] for n in chosen] == [3, 33, 60]
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.size == (1040, 816)
