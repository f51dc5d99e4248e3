"""Pretrained EAN models: index, cards, files, and the code that downloads them. Builds on ean_core."""

from typing import TYPE_CHECKING

from ean_core.common.lazy import contents

if TYPE_CHECKING:
    from .download import DownloadError
    from .index import NoWeightsError
    from .listing import Weights, get_weights, list_models
    from .models import get_model
    from .preprocessing import Preprocessing

__all__ = [
    "DownloadError",
    "NoWeightsError",
    "Preprocessing",
    "Weights",
    "get_model",
    "get_weights",
    "list_models",
]

__getattr__, __dir__ = contents(
    __name__,
    {
        "DownloadError": ".download",
        "NoWeightsError": ".index",
        "Weights": ".listing",
        "get_model": ".models",
        "get_weights": ".listing",
        "list_models": ".listing",
        "Preprocessing": ".preprocessing",
    },
)
