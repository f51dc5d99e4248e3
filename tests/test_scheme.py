import copy
import dataclasses
import itertools
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ean_core import ConnectionScheme

TEXT = "100-1011-010011-011"
RESNET50 = (3, 4, 6, 3)

written_stages = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=8), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("value", "stages"),
    [
        (TEXT, None),
        (TEXT, RESNET50),
        (f"  {TEXT}\n", RESNET50),
        ("1001011010011011", RESNET50),
        ([1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1], RESNET50),
        ([[1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0, 1, 1], [0, 1, 1]], None),
        (((True, False, False), (1, 0, 1, 1), (0, 1, 0, 0, 1, 1), (0, 1, 1)), RESNET50),
        (["100", "1011", "010011", "011"], None),
        ([["1", "0", "0"], "1011", [0, 1, 0, 0, 1, 1], (0, 1, 1)], None),
        ([4, 11, 19, 3], RESNET50),
        ((4, 11, 19, 3), list(RESNET50)),
    ],
)
def test_every_written_form_reads_as_the_same_scheme(value, stages):
    scheme = ConnectionScheme.parse(value, stages)
    assert scheme.stages == RESNET50
    assert scheme.bits == (1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1)
    assert all(type(bit) is int for bit in scheme.bits)
    assert str(scheme) == TEXT


def test_a_scheme_is_read_as_itself():
    scheme = ConnectionScheme.parse(TEXT)
    assert ConnectionScheme.parse(scheme) is scheme
    assert ConnectionScheme.parse(scheme, RESNET50) is scheme


@pytest.mark.parametrize(
    ("integers", "text"),
    [
        ([4, 11, 19, 3], "100-1011-010011-011"),
        ([6, 3, 50, 3], "110-0011-110010-011"),
        ([2, 2, 51, 1], "010-0010-110011-001"),
    ],
    ids=["SGE", "DIA", "SE"],
)
def test_integers_of_the_authors_code_are_binary_with_the_first_block_first(integers, text):
    assert str(ConnectionScheme.parse(integers, RESNET50)) == text


@pytest.mark.parametrize(
    ("value", "stages", "text"),
    [
        ("full", (3, 1), "111-1"),
        ("none", (3, 1), "000-0"),
        ("101", (3,), "101"),
        ([5], (3,), "101"),
        ("1-0-1", None, "1-0-1"),
        ([1, 0, 1], (1, 1, 1), "1-0-1"),
    ],
)
def test_names_single_stages_and_stages_of_one_block(value, stages, text):
    assert str(ConnectionScheme.parse(value, stages)) == text


@given(written_stages)
def test_what_is_written_reads_back(bits):
    scheme = ConnectionScheme(tuple(map(len, bits)), tuple(itertools.chain(*bits)))
    integers = [int("".join(map(str, stage)), 2) for stage in bits]
    forms = [str(scheme), str(scheme).replace("-", ""), list(scheme.bits), bits, scheme.by_stage, integers]
    assert all(ConnectionScheme.parse(form, scheme.stages) == scheme for form in forms)
    assert ConnectionScheme.parse(bits) == scheme
    assert repr(scheme) == f"ConnectionScheme('{scheme}')"
    assert scheme.connections + round(scheme.sparsity * len(scheme.bits)) == len(scheme.bits)


@pytest.mark.parametrize(
    ("value", "stages", "given", "fits", "example"),
    [
        ("10020", (3, 2), "'10020'", "one 0 or 1 per block", "'101-01'"),
        ("abc", None, "'abc'", "one 0 or 1 per block", "'010-0010-110011-001'"),
        ("", (3, 2), "''", "one 0 or 1 per block", "'101-01'"),
        ("101--01", (3, 2), "'101--01'", "'-' between stages", "'101-01'"),
        ("-10101", (3, 2), "'-10101'", "'-' between stages", "'101-01'"),
        ("101 01", (3, 2), "'101 01'", "'-' between stages", "'101-01'"),
        ("FULL", (3, 2), "'FULL'", "'full' or 'none'", "'101-01'"),
        ("1010", (3, 2), "'1010' of 4 blocks", "(3, 2), which have 5 blocks", "'101-01'"),
        ([1, 0, 1, 1, 0, 1], (3, 2), "'101101' of 6 blocks", "(3, 2), which have 5 blocks", "'101-01'"),
        ("10-101", (3, 2), "'10-101' has stages (2, 3) (5 blocks)", "stages (3, 2) (5 blocks)", "'101-01'"),
        ("1010", (3,), "'1010' has stages (4,)", "stages (3,) (3 blocks)", "'101'"),
        ([[1], [0, 1]], (2, 1), "'1-01' has stages (1, 2)", "stages (2, 1)", "'10-1'"),
        ([1, 0, 2, 0, 1], (3, 2), "got 2", "0 or 1", "'101-01'"),
        ([[1, 0], [-1]], None, "got -1", "0 or 1", "'10-1'"),
        ([[[1]], [0]], None, "got [1]", "0 or 1", "'1-0'"),
        ([8, 1], (3, 2), "8 in [8, 1]", "stage of 3 blocks", "0 to 7"),
        ([1, -1], (3, 2), "-1 in [1, -1]", "stage of 2 blocks", "0 to 3"),
        ([1, [0]], (3, 2), "[1, [0]]", "mixes numbers", ""),
        ([4, "c"], (3, 2), "[4, 'c'] has an integer per stage", "cannot express a constant gate", "'c01-01'"),
        ("C01-01", (3, 2), "'C01-01'", "c for a constant gate", "'101-01'"),
        ([[1, "x"]], None, "got 'x'", "0 or 1", "'10'"),
        ([0.5, 1], (3, 2), "[0.5, 1]", "mixes numbers", ""),
        ("10101", None, "'10101'", "where stages end", "'010-0010-110011-001'"),
        ([1, 0], None, "[1, 0]", "where stages end", "stages=(3, 4, 6, 3)"),
        ("full", None, "'full'", "stages of a network", "stages=(3, 4, 6, 3)"),
        ([], (3, 2), "[]", "sequence of bits", "'101-01'"),
        (None, (3, 2), "None (NoneType)", "'full', 'none'", "'101-01'"),
        (5, None, "5 (int)", "'full', 'none'", "'010-0010-110011-001'"),
        ([[], [1]], None, "(0, 1)", "positive numbers of blocks", "(3, 4, 6, 3)"),
        ("1", (), "()", "positive numbers of blocks", "(3, 4, 6, 3)"),
        ("1", (1, 0), "(1, 0)", "positive numbers of blocks", "(3, 4, 6, 3)"),
        ("1", (1.0,), "(1.0,)", "positive numbers of blocks", "(3, 4, 6, 3)"),
    ],
)
def test_an_error_shows_what_was_given_what_fits_and_an_example(value, stages, given, fits, example):
    with pytest.raises(ValueError) as error:
        ConnectionScheme.parse(value, stages)
    for part in (given, fits, example):
        assert part in str(error.value)


def test_a_scheme_made_directly_is_checked_too():
    with pytest.raises(ValueError, match=r"'10' of 2 blocks does not fit stages \(3,\), which have 3 blocks; .*'101'"):
        ConnectionScheme((3,), (1, 0))
    with pytest.raises(ValueError, match="0 or 1, got 3; for example '101'"):
        ConnectionScheme((3,), (1, 0, 3))
    with pytest.raises(ValueError, match="positive numbers of blocks"):
        ConnectionScheme((), ())


@pytest.mark.parametrize(
    ("text", "connections", "sparsity"),
    [
        ("010-0010-110011-001", 7, 9 / 16),
        (TEXT, 9, 7 / 16),
        ("111-1", 4, 0.0),
        ("000-0", 0, 1.0),
        ("100-000", 1, 5 / 6),
    ],
)
def test_sparsity_is_one_minus_the_share_of_connections(text, connections, sparsity):
    scheme = ConnectionScheme.parse(text)
    assert scheme.connections == connections
    assert scheme.sparsity == pytest.approx(sparsity)


def test_full_and_none_are_the_extremes():
    assert ConnectionScheme.full(RESNET50).sparsity == 0
    assert ConnectionScheme.none(RESNET50).sparsity == 1
    assert ConnectionScheme.full([2, 3]) == ConnectionScheme.parse("11-111")


def test_by_stage_splits_the_bits():
    assert ConnectionScheme.parse("10-111-0").by_stage == ((1, 0), (1, 1, 1), (0,))


def test_equal_schemes_are_one_key():
    scores = {ConnectionScheme.parse(TEXT): 1, ConnectionScheme.parse([4, 11, 19, 3], RESNET50): 2}
    assert scores == {ConnectionScheme.parse(TEXT): 2}
    assert ConnectionScheme.parse("10-1") != ConnectionScheme.parse("1-01")
    assert ConnectionScheme((True,), (True,)) == ConnectionScheme((1,), (1.0,))


def test_order_is_by_stages_then_bits():
    texts = ["00-1", "01-0", "01-1", "10-0", "000"]
    schemes = [ConnectionScheme.parse(text.split("-")) for text in reversed(texts)]
    assert [str(scheme) for scheme in sorted(schemes)] == texts


def test_a_scheme_cannot_be_changed():
    scheme = ConnectionScheme.parse(TEXT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheme.bits = (0,) * 16
    given = [1, 0]
    scheme = ConnectionScheme([2], given)
    given[0] = 0
    assert scheme.bits == (1, 0)


def test_copies_and_pickles_are_equal():
    scheme = ConnectionScheme.parse(TEXT)
    assert copy.deepcopy(scheme) == pickle.loads(pickle.dumps(scheme)) == scheme


def test_neighbours_flip_one_block_each_first_block_first():
    assert [str(near) for near in ConnectionScheme.parse("10-1").neighbours()] == ["00-1", "11-1", "10-0"]


@pytest.mark.parametrize(
    ("n", "phase", "text"),
    [
        (1, 0, "111-1111-111111-111"),
        (2, 0, "101-0101-010101-010"),
        (2, 1, "010-1010-101010-101"),
        (3, 0, "100-1001-001001-001"),
        (16, 15, "000-0000-000000-001"),
        (20, 17, "000-0000-000000-000"),
    ],
)
def test_hsp_connects_every_nth_block_of_the_whole_network(n, phase, text):
    assert str(ConnectionScheme.every(RESNET50, n, phase)) == text


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_phases_of_hsp_cover_each_block_once(n):
    phases = [ConnectionScheme.every(RESNET50, n, phase).bits for phase in range(n)]
    assert [sum(bits) for bits in zip(*phases, strict=True)] == [1] * 16


@pytest.mark.parametrize(("n", "phase"), [(0, 0), (-1, 0), (2, 2), (2, -1)])
def test_hsp_refuses_an_impossible_period_or_phase(n, phase):
    with pytest.raises(ValueError, match=rf"got n={n}, phase={phase}; for example n=2, phase=0"):
        ConnectionScheme.every(RESNET50, n, phase)


def test_random_schemes_follow_their_generator_and_probability():
    def draw(seed, p, count=2000):
        generator = torch.Generator().manual_seed(seed)
        return [ConnectionScheme.random(RESNET50, p, generator) for _ in range(count)]

    assert draw(0, 0.5, 5) == draw(0, 0.5, 5) != draw(1, 0.5, 5)
    for p in (0.2, 0.5):
        bits = torch.tensor([scheme.bits for scheme in draw(0, p)], dtype=torch.float64)
        assert torch.allclose(bits.mean(0), torch.full((16,), p, dtype=torch.float64), atol=0.05)
        assert torch.corrcoef(bits.T).fill_diagonal_(0).abs().max() < 0.1
    assert ConnectionScheme.random(RESNET50, 0) == ConnectionScheme.none(RESNET50)
    assert ConnectionScheme.random(RESNET50, 1) == ConnectionScheme.full(RESNET50)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_random_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match=rf"\[0, 1\], got p={p}"):
        ConnectionScheme.random(RESNET50, p)


def test_leading_keeps_the_first_stages():
    scheme = ConnectionScheme.parse(TEXT)
    assert str(scheme.leading(2)) == "100-1011"
    assert scheme.leading(4) == scheme
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=f"{TEXT}' has 4 stages, cannot keep the first {wrong}"):
            scheme.leading(wrong)


# ---------------------------------------------------------------- constant gates

written_marks = st.lists(st.lists(st.sampled_from("01c"), min_size=1, max_size=8), min_size=1, max_size=5)


@given(written_marks)
def test_a_scheme_with_constant_gates_reads_back_in_every_form_but_the_integers(marks):
    text = "-".join(map("".join, marks))
    scheme = ConnectionScheme.parse(text, tuple(map(len, marks)))
    flat = [mark if mark == "c" else int(mark) for mark in text.replace("-", "")]
    nested = [[mark if mark == "c" else int(mark) for mark in stage] for stage in marks]
    forms = [text.replace("-", ""), nested, marks, [*map("".join, marks)]]
    if len(flat) > len(marks) and set(flat) != {"c"}:  # which reads as stages of one block
        forms.append(flat)
    assert {ConnectionScheme.parse(form, scheme.stages) for form in forms} == {scheme}
    assert ConnectionScheme(scheme.stages, scheme.bits, scheme.constant_bits) == scheme
    assert pickle.loads(pickle.dumps(scheme)) == scheme
    assert (str(scheme), scheme.marks, scheme.marks_by_stage) == (text, text.replace("-", ""), tuple(text.split("-")))
    assert (scheme.connections, scheme.constants) == (text.count("1"), text.count("c"))
    assert scheme.gates == text.count("1") + text.count("c")
    assert scheme.sparsity == pytest.approx(1 - text.count("1") / len(flat))


def test_a_constant_gate_is_not_a_connection():
    scheme = ConnectionScheme.parse("010-1c0-c00")
    plain = ConnectionScheme.parse("010-100-000")
    assert scheme.bits == plain.bits
    assert (scheme.connections, scheme.sparsity) == (plain.connections, plain.sparsity)
    assert scheme != plain
    assert len({scheme, plain, ConnectionScheme.parse("010-1c0-c00")}) == 2
    assert sorted([scheme, plain]) == [plain, scheme]
    assert plain.constant_bits == (0,) * 9
    assert (ConnectionScheme.none((3,)).gates, ConnectionScheme.parse("c00", (3,)).gates) == (0, 1)


def test_constants_take_the_place_of_gates_only():
    scheme = ConnectionScheme.full((2, 2)).with_constants([0, 3])
    assert str(scheme) == "c1-1c"
    assert str(scheme.with_constants([0, 1])) == "cc-1c"
    assert str(scheme.leading(1)) == "c1"
    with pytest.raises(ValueError, match=r"block 1 of '10-1' has no gate that could be constant"):
        ConnectionScheme.parse("10-1").with_constants([1])
    with pytest.raises(ValueError, match=r"either connected or has a constant gate, not both: bits=\(1, 0\)"):
        ConnectionScheme((2,), (1, 0), (1, 0))
    with pytest.raises(ValueError, match=r"'10' of 2 blocks does not fit stages \(3,\)"):
        ConnectionScheme((3,), (1, 0, 0), (1, 0))
    with pytest.raises(ValueError, match=r"constant_bits are 0 or 1, got 2"):
        ConnectionScheme((2,), (1, 0), (0, 2))


def test_searches_meet_no_constant_gates():
    draw = torch.Generator().manual_seed(0)
    assert not any(ConnectionScheme.random((3, 3, 3), 0.5, draw).constants for _ in range(20))
    assert not any(each.constants for each in ConnectionScheme.parse("010-100").neighbours())
    assert [*map(str, ConnectionScheme.parse("0c-1").neighbours())] == ["1c-1", "00-1", "01-1", "0c-0"]
