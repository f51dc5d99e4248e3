import re

import numpy as np
import pytest
from PIL import Image

from ean_core.data.images import read_image
from tasks.crowd_counting.counter import Prediction
from tasks.crowd_counting.overlay import Heat, draw_overlay, people
from tasks.crowd_counting.webpage import Limits, count_picture, describe

from .drawn import save_crowd as save


class Fake:
    """A counter that sees a person in every 1000 pixels, or fails."""

    name = "fake"

    def __init__(self, error=None, strangeness=None):
        self.error, self.strangeness = error, strangeness

    def __call__(self, pixels):
        if self.error:
            raise self.error
        density = np.full(pixels.shape[:2], 1e-3, np.float32)
        return Prediction(float(density.sum(dtype=np.float64)), density, self.strangeness)

    def error_at(self, count):
        return None if self.strangeness is None else 7


def test_what_is_kept_of_a_large_picture_is_as_large_as_what_is_shown(tmp_path):
    path = save(tmp_path / "a.png", shape=(1500, 2000))
    counted = count_picture(Fake(), path, Limits(), opacity=0.5)
    assert counted.pixels.shape == (1200, 1600, 3)
    assert counted.shape == (1500, 2000)
    assert counted.count == pytest.approx(3000)
    whole = draw_overlay(read_image(path), counted.density, people(3000), Heat(0.5))
    assert counted.overlay == whole
    assert counted.with_opacity(0.2).overlay == draw_overlay(read_image(path), counted.density, people(3000), Heat(0.2))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.write_text("hello"), "notes.jpg cannot be read as an image: "),
        (lambda path: path.write_bytes(b""), "notes.jpg cannot be read as an image"),
        (lambda path: save(path, shape=(1001, 1000)), "1000 x 1001 are 1.0 million pixels, more than the limit of 1.0"),
        (
            lambda path: Image.new("RGB", (10, 60000)).save(path),
            "notes.jpg is too narrow for its height to be shown: 10 x 60000",
        ),
        (lambda path: None, "this image is no longer here"),
    ],
    ids=["text", "empty", "too many pixels", "too long", "deleted"],
)
def test_what_cannot_be_counted_is_refused_by_name_without_its_folder(tmp_path, make, problem):
    path = tmp_path / "notes.jpg"
    make(path)
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        count_picture(Fake(), path, Limits(megapixels=1))
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_picture_beyond_the_memory_is_refused_by_name(tmp_path, error):
    with pytest.raises(ValueError, match=r"a\.png is too large for this machine's memory: 320 x 240"):
        count_picture(Fake(error), save(tmp_path / "a.png"), Limits())


def test_other_errors_of_the_network_are_not_taken_for_the_visitors(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"):
        count_picture(Fake(RuntimeError("shapes differ")), save(tmp_path / "a.png"), Limits())


def test_counts_in_words_agree_with_their_number(tmp_path):
    counted = count_picture(Fake(), save(tmp_path / "a.png", shape=(40, 30)), Limits())
    assert ">1</span>" in describe(counted)
    assert "person in the image" in describe(counted)
    assert "unrounded" not in describe(counted)
    assert "1.2" not in describe(counted).replace(f"{counted.seconds:.2f} s", "")
    assert "±" not in describe(counted)


def test_a_familiar_image_has_an_error_and_an_unfamiliar_one_a_warning(tmp_path):
    path = save(tmp_path / "a.png", shape=(400, 500))
    familiar, strange = (count_picture(Fake(strangeness=value), path, Limits()) for value in (0.9, 1.1))
    assert "people in the image, ±\u00a07" in describe(familiar)
    assert "do not rely on this" not in describe(familiar)
    assert "±" not in describe(strange)
    assert 'role="alert">Unlike the training images of this counter: do not rely on this.<' in describe(strange)
    assert strange.overlay.height > familiar.overlay.height
    assert strange.with_opacity(0.1).overlay.height == strange.overlay.height
