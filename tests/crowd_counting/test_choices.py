"""Defaults of options are those of the code that uses them."""

from tasks.crowd_counting.choices import FORMAT_NAMES, MEGAPIXELS, OPACITY, UPLOAD_MB
from tasks.crowd_counting.formats import FORMATS
from tasks.crowd_counting.overlay import Heat
from tasks.crowd_counting.webpage import Limits


def test_defaults_and_names_are_those_of_the_code_behind_them():
    assert tuple(FORMATS) == FORMAT_NAMES
    assert Heat().opacity == OPACITY
    assert Limits() == Limits(UPLOAD_MB, MEGAPIXELS)
