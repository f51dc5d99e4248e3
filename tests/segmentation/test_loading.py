import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from ean_core.data.images import UnreadableImageError
from tasks.segmentation.dataset import PreparedVOC
from tasks.segmentation.loading import LoadAnyImage


@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "RGB"), ("a.jpg", "L"), ("a.png", "RGB"), ("a.png", "L")])
def test_ordinary_files_give_the_pixels_that_mmcv_gives(tmp_path, name, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / name)
    results = {"img_path": str(tmp_path / name), "seg_fields": []}
    found, expected = (load.transform(dict(results)) for load in (LoadAnyImage(), LoadImageFromFile()))
    assert np.array_equal(found.pop("img"), expected.pop("img"))
    assert found == expected


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 cut")
    with pytest.raises(UnreadableImageError, match=r"a\.jpg cannot be read as an image"):
        LoadAnyImage()({"img_path": str(tmp_path / "a.jpg")})


def test_prepared_images_are_read_by_it_whatever_the_config_says(data, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    kept = {"type": "LoadImageFromFile", "to_float32": True}
    for step, kind in (({"type": "LoadImageFromFile"}, LoadAnyImage), (kept, LoadImageFromFile)):
        dataset = PreparedVOC("train", pipeline=[step])
        assert type(dataset.pipeline.transforms[0]) is kind
