"""One bit per image in a record."""

import numpy as np
import pytest

from ean_core.common.bits import pack_bits, unpack_bits
from zoo.scrub import find_secrets, scrub


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 10_000])
def test_bits_come_back_whatever_their_number(count):
    flags = np.random.default_rng(count).random(count) < 0.65
    text = pack_bits(flags)
    assert len(text) == 2 * -(-count // 8)
    assert unpack_bits(text, count) == flags.tolist()


@pytest.mark.parametrize(("text", "count"), [("ff", 9), ("ffff", 8), ("01", 7), ("xy", 8), ("f", 4)])
def test_bits_of_another_number_of_images_are_refused(text, count):
    with pytest.raises(ValueError, match="hexadecimal"):
        unpack_bits(text, count)


def test_publishing_leaves_bits_as_they_are():
    for seed in range(20):
        text = pack_bits(np.random.default_rng(seed).random(10_000) < 0.65)
        assert scrub(text) == text
        assert not [*find_secrets({"correct": {"bits": text}})]
