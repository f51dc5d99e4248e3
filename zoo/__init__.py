"""Pretrained EAN models: index, cards, files, and the code that downloads them. Builds on ean_core."""

from .download import DownloadError
from .index import NoWeightsError
from .models import Weights, get_model, get_weights, list_models
from .preprocessing import Preprocessing

__all__ = ["DownloadError", "NoWeightsError", "Preprocessing", "Weights", "get_model", "get_weights", "list_models"]
