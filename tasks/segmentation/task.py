"""Semantic segmentation in the task registry: its data sets, metrics, networks, explainer and exporter by name."""

from __future__ import annotations

from ean_core.common.tasks import Dataset, Metric, Task

#: The default segmentor.
MODEL = "ean_resnet20_se.voc2012"

TASK = Task(
    "Semantic Segmentation",
    noun="segmentor",
    networks=("Segmentor", "EncoderDecoder"),
    metrics=(Metric("mIoU", "mIoU", "%"), Metric("mAcc", "mAcc", "%"), Metric("aAcc", "aAcc", "%")),
    datasets=(
        Dataset("voc2012", "Pascal VOC 2012", {"type": "PreparedVOC"}),
        Dataset("voc2012aug", "Pascal VOC 2012 with SBD"),
        Dataset("ade20k", "ADE20K"),
        Dataset("cityscapes", "Cityscapes"),
    ),
    explainer="tasks.segmentation.explain:SegmentorExplainer",
    exporter="tasks.segmentation.export:SegmentorFromPixels",
    scorer="tasks.segmentation.score:SegmentorScorer",
    predict="seg predict",
)
