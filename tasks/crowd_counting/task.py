"""Crowd counting in the task registry: its data sets, metrics, networks, explainer and exporter by name."""

from __future__ import annotations

from ean_core.common.tasks import Dataset, Metric, Task

#: The default counter. The search on the task chose two of its six connections; its validation error is not told apart
#: from that with all six.
MODEL = "ean_resnet18_se.shanghaitech_b"

TASK = Task(
    "Crowd Counting",
    noun="counter",
    networks=("CrowdCounter",),
    metrics=(
        Metric("count/MAE", "MAE", "people", less_is_better=True),
        Metric("count/RMSE", "RMSE", "people", less_is_better=True),
        Metric("count/NAE", "NAE", less_is_better=True),
    ),
    datasets=(
        Dataset("shanghaitech_a", "ShanghaiTech A", {"root": "shanghaitech", "part": "A"}),
        Dataset("shanghaitech_b", "ShanghaiTech B", {"root": "shanghaitech", "part": "B"}),
    ),
    explainer="tasks.crowd_counting.explain:CounterExplainer",
    exporter="tasks.crowd_counting.export:CounterFromPixels",
    scorer="tasks.crowd_counting.score:CounterScorer",
    per_image="tasks.crowd_counting.metrics:read_errors",
    predict="crowd predict",
)
