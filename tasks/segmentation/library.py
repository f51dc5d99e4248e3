"""What is used of mmsegmentation, imported once, with a word on how to install it."""

try:
    import mmseg.models  # noqa: F401  # its heads and losses are found by name from here on
    from mmseg.datasets import PascalVOCDataset
    from mmseg.evaluation import IoUMetric
    from mmseg.models import EncoderDecoder
    from mmseg.registry import DATASETS, MODELS
    from mmseg.structures import SegDataSample
except (ImportError, AssertionError) as error:  # the latter of an mmcv that mmsegmentation does not take
    raise ImportError(
        f"segmentation needs mmsegmentation 1.2 with mmcv, or mmcv-lite, below 2.2: {error}. `pip install "
        '"ean-zoo[seg,mmcv-lite]"` installs them; leave mmcv-lite out where the full mmcv is'
    ) from error

__all__ = ["DATASETS", "MODELS", "EncoderDecoder", "IoUMetric", "PascalVOCDataset", "SegDataSample"]

#: Where its types are registered.
SCOPE = "mmseg"
