import numpy as np
import pytest

from tasks.crowd_counting.density import is_inside
from tasks.crowd_counting.drawing import draw_crowd


@pytest.mark.parametrize("size", [(480, 640), (16, 16), (900, 16), (16, 900)])
@pytest.mark.parametrize("people", [0, 1, 40])
def test_a_drawn_crowd_has_its_heads_inside_and_is_the_same_again(size, people):
    picture, heads = draw_crowd(people, size, seed=3)
    again, same = draw_crowd(people, size, seed=3)
    assert picture.size == size[::-1]
    assert heads.shape == (people, 2)
    assert is_inside(heads, size).all()
    assert np.array_equal(heads, same)
    assert picture.tobytes() == again.tobytes()


def test_heads_are_where_they_are_said_to_be():
    empty, _ = draw_crowd(0, seed=1)
    picture, heads = draw_crowd(1, seed=1)
    x, y = heads[0].astype(int)
    assert picture.getpixel((int(x), int(y))) != empty.getpixel((int(x), int(y)))


@pytest.mark.parametrize(("people", "size"), [(-1, (50, 50)), (3, (8, 50))])
def test_what_cannot_be_drawn_is_said(people, size):
    with pytest.raises(ValueError, match="needs at least 0 people and 16 x 16 pixels"):
        draw_crowd(people, size)
