"""Registers data sets and network with mmengine, and all of mmsegmentation: for ``custom_imports`` in configs of
segmentors."""

try:
    import mmseg.models  # noqa: F401  # found by name from here on
except (ImportError, AssertionError) as error:  # the latter of an mmcv that mmsegmentation does not take
    raise ImportError(
        f"segmentation needs mmsegmentation 1.2 with mmcv, or mmcv-lite, below 2.2: {error}. `pip install "
        '"ean-zoo[seg,mmcv-lite]"` installs them; leave mmcv-lite out where the full mmcv is'
    ) from error

from . import dataset, metrics, network

__all__ = ["dataset", "metrics", "network"]
