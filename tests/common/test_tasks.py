"""The registry of tasks: alone, with the installed packages, and with a task of another package."""

import subprocess
import sys

import pytest

from ean_core.common import tasks
from ean_core.common.config import packaged_configs, parse_name
from ean_core.common.tasks import (
    Dataset,
    Metric,
    Task,
    dataset_of,
    find_dataset,
    find_metric,
    known_datasets,
    known_tasks,
    register_task,
    task_of_dataset,
    task_of_network,
)

DEPTHS = Task(
    "Depth Estimation",
    noun="depth estimator",
    networks=("DepthEstimator",),
    metrics=(Metric("depth/rel", "AbsRel", less_is_better=True),),
    datasets=(Dataset("nyu", "NYU Depth v2", {"type": "NYU", "data_root": "nyu_v2"}),),
)


ALONE = """
from ean_core.common import tasks
every = tasks.entry_points
tasks.entry_points = lambda **wanted: [] if wanted == {"group": "ean.tasks"} else every(**wanted)
from ean_core.common.tasks import find_metric, known_datasets, task_of_network
from ean_core.common.config import parse_name
print(*known_datasets(), find_metric("accuracy/top1").unit, task_of_network("ImageClassifier").noun)
assert parse_name("resnet20_se_cifar100") and not parse_name("resnet20_se_voc2012")
assert not {"tasks", "zoo"} & sys.modules.keys()
"""
INSTALLED = """
from ean_core.common.tasks import known_datasets
assert "tasks" not in sys.modules
print(*known_datasets())
heavy = ("mmseg", "mmcv", "tasks.trained", "tasks.crowd_counting.network", "tasks.segmentation.network")
assert not [name for name in heavy if name in sys.modules]
"""
# The import takes seconds: it is done once, and each code runs in a fork of the process that did it.
FORKS = """
import os, sys
import ean_core.common.tasks
for code in sys.argv[1:]:
    if not (child := os.fork()):
        exec(code)
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
"""


@pytest.fixture(scope="module")
def printed():
    """Run each code in a fresh process and return its output."""
    command = [sys.executable, "-c", FORKS, ALONE, INSTALLED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone, installed = map(str.split, done.stdout.splitlines())
    return {ALONE: alone, INSTALLED: installed}


@pytest.fixture
def registered(monkeypatch):
    known_tasks()
    monkeypatch.setattr(tasks, "_TASKS", {**tasks._TASKS})
    register_task(DEPTHS)


def test_the_core_alone_knows_classification(printed):
    assert printed[ALONE] == ["cifar100", "imagenet", "digits", "%", "classifier"]


def test_names_of_installed_tasks_resolve_without_what_computes_with_them(printed):
    expected = ["cifar100", "imagenet", "digits", "shanghaitech_a", "shanghaitech_b"]
    assert printed[INSTALLED] == [*expected, "voc2012", "voc2012aug", "ade20k", "cityscapes"]


def test_packaged_configs_end_in_data_sets():
    ends = tuple(f"_{key}" for key in known_datasets())
    others = {name for name in packaged_configs() if not name.endswith(ends)}
    assert others == {"resnet18_se_crowd", "resnet20_se_crowd"}  # for a custom folder


@pytest.mark.parametrize(("key", "near"), [("cifar10", "'cifar100'"), ("voc12", "'voc2012'")])
def test_an_unknown_data_set_gives_the_nearest(key, near):
    with pytest.raises(ValueError, match=f"unknown data set {key!r}; did you mean .*{near}"):
        find_dataset(key)
    with pytest.raises(ValueError, match="did you mean"):
        task_of_dataset(key)


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({"type": "CIFAR100", "root": "anywhere"}, "CIFAR-100"),
        ({"type": "PreparedVOC", "root": "x"}, "Pascal VOC 2012"),
        ({"type": "CrowdDataset", "root": "crowd/shanghaitech", "part": "B"}, "ShanghaiTech B"),
        ({"type": "CrowdDataset", "root": "crowd/shanghaitech"}, None),
        ({"type": "CrowdDataset", "root": "crowd/mine", "part": "B"}, None),
    ],
)
def test_a_data_set_is_recognised_by_its_settings(settings, title):
    found = dataset_of(settings)
    assert (found and found.title) == title


def test_directions_and_units_of_our_metrics():
    better = {metric.name: "less" if metric.less_is_better else "more" for t in known_tasks() for metric in t.metrics}
    assert {name for name, direction in better.items() if direction == "less"} == {
        "count/MAE",
        "count/RMSE",
        "count/NAE",
    }
    assert find_metric("MAE") is find_metric("count/MAE")
    assert [find_metric(name).unit for name in ("mIoU", "count/MAE", "Top 5 Accuracy")] == ["%", "people", "%"]


def test_metrics_of_other_libraries_are_guessed():
    assert find_metric("coco/bbox_mAP") == Metric("coco/bbox_mAP", "coco/bbox_mAP")
    assert find_metric("depth/RMSE").less_is_better
    assert find_metric("accuracy/top3").unit == "%"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"foo": 1}, "unexpected keyword argument 'foo'"),
        ({"name": "count/MAE"}, "missing 1 required positional argument: 'title'"),
        ("MAE", "must be a mapping"),
        (None, "must be a mapping"),
        ({"name": "count/MAE", "title": ["MAE"], "less_is_better": 1}, "title, less_is_better of another type"),
    ],
)
def test_an_entry_of_a_record_that_is_not_a_metric_is_refused(entry, reason):
    with pytest.raises(ValueError, match=f"is not a metric: .*{reason}"):
        Metric.of({"metric": entry})


def test_networks_belong_to_tasks():
    assert [task_of_network(name).noun for name in ("CrowdCounter", "Segmentor", "EncoderDecoder")] == [
        "counter",
        "segmentor",
        "segmentor",
    ]
    assert task_of_network("FasterRCNN") is None
    assert task_of_network(None) is None


def test_a_task_of_another_package_is_known_by_all_its_names(registered):
    assert task_of_dataset("nyu") is task_of_network("DepthEstimator") is DEPTHS
    assert find_metric("AbsRel").less_is_better
    assert dataset_of({"type": "NYU", "data_root": "/data/nyu_v2"}).title == "NYU Depth v2"
    assert parse_name("resnet50_se_nyu").dataset == "nyu"
    assert list(known_datasets())[-1] == "nyu"


def test_a_data_set_belongs_to_one_task(registered):
    other = Task("Other", "other", (), DEPTHS.metrics, (Dataset("nyu", "NYU"),))
    with pytest.raises(ValueError, match="data sets nyu of Other already belong to Depth Estimation"):
        register_task(other)
    register_task(DEPTHS)  # again, as a reloaded module does
