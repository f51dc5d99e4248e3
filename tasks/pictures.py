"""Write images atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from ean_core.common.writing import replacing


def save_picture(picture: Image.Image, path: Path, **options: Any) -> None:
    """Write an image atomically, in the format given by the suffix.

    Args:
        picture: to write.
        path: file to write; its folder is created.
        options: Pillow's options for this format.

    Raises:
        OSError: if it cannot be written.
    """
    with replacing(path) as partial:
        try:
            picture.save(partial, format=Image.registered_extensions()[path.suffix], **options)
        except OSError as error:
            if error.errno is None:  # raised by Pillow's encoders
                raise OSError(f"{path} cannot be written: {error}") from error
            raise
