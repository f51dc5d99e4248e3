import itertools

import pytest
import torch

from ean_core.common.seeding import generator


def draw(*key):
    return tuple(torch.rand(4, generator=generator(*key)).tolist())


def test_one_key_gives_one_stream_whatever_was_drawn_before():
    first = draw(3, 1, 4)
    torch.manual_seed(99)
    torch.rand(1000)
    assert draw(3, 1, 4) == first


def test_keys_that_differ_in_order_length_or_one_number_give_different_streams():
    keys = [key for length in (1, 2, 3) for key in itertools.product(range(4), repeat=length)]
    assert len({draw(*key) for key in keys}) == len(keys)


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    draw(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match="non-negative"):
        generator(-1)
