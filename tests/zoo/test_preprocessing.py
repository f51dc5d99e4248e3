import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from zoo.preprocessing import Preprocessing

PLAIN = {"mean": (10.0, 20.0, 30.0), "std": (2.0, 4.0, 5.0)}


def picture(width, height, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_a_picture_of_the_right_size_is_normalised_only():
    image = picture(32, 32)
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() - torch.tensor([10, 20, 30])[:, None, None]
    got = Preprocessing(**PLAIN, size=32)(image)
    assert torch.allclose(got, expected / torch.tensor([2, 4, 5])[:, None, None])
    assert got.dtype == torch.float32


def test_the_usual_crop_of_imagenet_equals_that_of_the_test_images():
    image = picture(300, 200)
    expected = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])(image)
    got = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=224, resize=256)(image)
    assert torch.equal(got, expected.float())


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_any_mode_gives_the_networks_channels(mode):
    assert Preprocessing(**PLAIN, size=16)(picture(40, 20, mode)).shape == (3, 16, 16)
    assert Preprocessing(mean=(0.0,), std=(1.0,), size=8)(picture(40, 20, mode)).shape == (1, 8, 8)


def test_without_a_size_pictures_stay_as_large_as_they_are():
    assert Preprocessing(**PLAIN)(picture(41, 23)).shape == (3, 23, 41)


def test_tensors_are_taken_one_by_one_and_in_batches():
    batch = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    preprocess = Preprocessing(**PLAIN, size=32)
    both = preprocess(batch)
    assert both.shape == (2, 3, 32, 32)
    assert torch.equal(both[1], preprocess(batch[1]))


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)]
)
def test_other_tensors_are_refused(tensor):
    with pytest.raises(
        ValueError, match=r"expected a PIL image or uint8 \(C, H, W\) or \(N, C, H, W\) with C=3, got torch"
    ):
        Preprocessing(**PLAIN)(tensor)


def test_files_and_arrays_are_taken_as_images_are(tmp_path):
    image = picture(40, 30)
    image.save(tmp_path / "a.png")
    preprocess = Preprocessing(**PLAIN, size=16)
    for form in (tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(image)):
        assert torch.equal(preprocess(form), preprocess(image))


@pytest.mark.parametrize("given", [None, np.zeros((8, 8, 3), np.float32), np.zeros((3, 8, 8), np.uint8)])
def test_what_is_no_image_is_refused(given):
    with pytest.raises(ValueError, match=r"expected .*, got "):
        Preprocessing(**PLAIN)(given)
