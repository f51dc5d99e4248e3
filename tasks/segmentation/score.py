"""Score schemes of a segmentor by its mIoU, for ``ean search``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from numpy.typing import NDArray
from torch import Tensor, nn

from ean_core.search.scorer import SumScorer

from .library import EncoderDecoder, IoUMetric


class SegmentorScorer(SumScorer):
    """Scores segmentors by mIoU; a row is an image's intersection and union of each class, in pixels.

    mIoU is the mean over the classes that occur, of the sums over all images. Unlike mmsegmentation's metric it is not
    rounded. Labels of the head's ``ignore_index`` are left out.
    """

    network: EncoderDecoder

    def fingerprint(self, dataset: Any, settings: Mapping[str, Any]) -> str:
        """Hash images and masks, the pipeline that reads them, and the settings of the test."""
        inner = getattr(dataset, "dataset", dataset)
        pipeline = settings.get("pipeline") or (settings.get("dataset") or {}).get("pipeline")
        how = json.dumps([pipeline, dict(self.network.test_cfg)], default=str, sort_keys=True)
        digest = hashlib.sha256(how.encode())
        for n in range(len(inner)):
            info = inner.get_data_info(n)
            for name in ("img_path", "seg_map_path"):
                digest.update(Path(info[name]).read_bytes())
        return digest.hexdigest()

    @property
    def first(self) -> nn.Module | None:
        head = self.network.decode_head
        plain = isinstance(head, BaseDecodeHead) and type(head).predict is BaseDecodeHead.predict
        return head if plain and not self.network.with_neck else None

    def early(self, maps: tuple[Tensor, ...]) -> Any:
        return maps if self.first is None else self.network.decode_head(maps)

    def rows(self, data: Mapping[str, Any]) -> Tensor:
        head = self.network.decode_head
        found = []
        for sample in self.network(**data, mode="predict"):
            labels = sample.gt_sem_seg.data.squeeze()
            predicted = sample.pred_sem_seg.data.squeeze().to(labels)
            both, either, *_ = IoUMetric.intersect_and_union(predicted, labels, head.num_classes, head.ignore_index)
            found.append(torch.cat([both, either]))
            del sample.pred_sem_seg, sample.seg_logits  # samples are kept for other schemes
        return torch.stack(found)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        both, either = np.split(sums, 2, axis=-1)
        shares = np.divide(both, either, out=np.full_like(both, np.nan), where=either > 0)
        return np.asarray(100 * np.nanmean(shares, -1))
