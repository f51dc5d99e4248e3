import pytest
from hypothesis import given
from hypothesis import strategies as st

from ean_core import ConnectionScheme
from ean_core.inference.latency import BlockTimes
from ean_core.search.prefixes import count_bodies, walk_seconds

STAGES = (2, 3)
ALL = [ConnectionScheme(STAGES, tuple(int(bit) for bit in f"{number:05b}")) for number in range(32)]
TIMES = BlockTimes(STAGES, 1e6, (1, 2, 4, 8, 16), (32, 64, 128, 256, 512), (1024, 2048, 4096, 8192, 16384), 1e5)


def by_walking(schemes, depth=0):
    """Bodies and seconds below a node of the tree, by going through it as an evaluator does."""
    if depth == 5:
        return 0, TIMES.head
    bodies, seconds = 1, TIMES.bodies[depth]
    for connected in (0, 1):
        branch = [scheme for scheme in schemes if scheme.bits[depth] == connected]
        if branch:
            below = by_walking(branch, depth + 1)
            bodies += below[0]
            seconds += TIMES.joins[depth] + connected * TIMES.connections[depth] + below[1]
    return bodies, seconds


@given(st.lists(st.sampled_from(ALL), min_size=1, max_size=40))
def test_counts_and_seconds_are_those_of_a_walk_through_the_tree(schemes):
    bodies, seconds = by_walking(set(schemes))
    assert count_bodies(schemes) == bodies
    assert walk_seconds(schemes, TIMES) == pytest.approx(TIMES.stem + seconds)


@given(st.sampled_from(ALL))
def test_one_scheme_takes_what_its_network_takes(scheme):
    assert walk_seconds([scheme], TIMES) == pytest.approx(TIMES.whole(scheme))
    assert count_bodies([scheme]) == 5


def test_all_schemes_take_a_body_less_than_there_are():
    assert count_bodies(ALL) == 31
    assert count_bodies([*ALL, *ALL]) == 31


def test_nothing_takes_no_time():
    assert count_bodies([]) == 0
    assert walk_seconds([], TIMES) == 0


def test_an_iterator_will_do():
    assert walk_seconds(iter(ALL), TIMES) == walk_seconds(ALL, TIMES)
    assert count_bodies(iter(ALL)) == 31
