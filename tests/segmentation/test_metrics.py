import csv

import numpy as np
import pytest
import torch

from tasks.segmentation.metrics import ClassIoU


def measure(metric, predicted, truth):
    data = lambda labels: {"data": torch.from_numpy(labels)[None]}  # noqa: E731
    samples = [{"pred_sem_seg": data(p), "gt_sem_seg": data(t)} for p, t in zip(predicted, truth, strict=True)]
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_metrics_and_table_are_those_of_a_plain_count(tmp_path):
    draw = np.random.default_rng(0)
    classes = ("a", "b", "c", "d")
    truth = draw.choice([0, 1, 2, 255], (3, 8, 9)).astype(np.int64)
    predicted = draw.integers(0, 3, (3, 8, 9))
    metric = ClassIoU(csv=str(tmp_path / "classes.csv"))
    metric.dataset_meta = {"classes": classes}
    found = measure(metric, predicted, truth)
    counted = truth != 255
    ious, accuracies = [], []
    for k in range(3):
        p, t = (predicted == k) & counted, truth == k
        ious.append(100 * (p & t).sum() / (p | t).sum())
        accuracies.append(100 * (p & t).sum() / t.sum())
    expected = {
        "mIoU": np.mean(ious),
        "mAcc": np.mean(accuracies),
        "aAcc": 100 * (predicted == truth)[counted].mean(),
    }
    assert found == pytest.approx(expected, abs=0.006)  # which mmsegmentation rounds
    lines = list(csv.DictReader((tmp_path / "classes.csv").open()))
    assert [line["class"] for line in lines] == list(classes)
    assert [float(line["IoU"]) for line in lines[:3]] == pytest.approx(ious, abs=0.006)
    assert [float(line["accuracy"]) for line in lines[:3]] == pytest.approx(accuracies, abs=0.006)
    assert [int(line["annotated"]) for line in lines[:3]] == [(truth == k).sum() for k in range(3)]
    assert (lines[3]["IoU"], lines[3]["predicted"]) == ("", "0")
