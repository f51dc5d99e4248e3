"""The parts of mmsegmentation used here, imported in one place, with an install hint if they are missing."""

try:
    import mmseg.models  # noqa: F401  # registers its heads and losses
    from mmcv.transforms import BaseTransform
    from mmseg.datasets import PascalVOCDataset
    from mmseg.evaluation import IoUMetric
    from mmseg.models import EncoderDecoder
    from mmseg.registry import DATASETS, MODELS, TRANSFORMS
    from mmseg.structures import SegDataSample
except (ImportError, AssertionError) as error:  # the latter: an incompatible mmcv
    raise ImportError(
        f"segmentation needs mmsegmentation 1.2 with mmcv or mmcv-lite below 2.2: {error}. `pip install "
        '"ean-zoo[seg,mmcv-lite]"` installs them; omit mmcv-lite if the full mmcv is installed'
    ) from error

__all__ = [
    "DATASETS",
    "MODELS",
    "TRANSFORMS",
    "BaseTransform",
    "EncoderDecoder",
    "IoUMetric",
    "PascalVOCDataset",
    "SegDataSample",
]

#: mmsegmentation's registry scope.
SCOPE = "mmseg"
