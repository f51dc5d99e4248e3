import json
import multiprocessing
import time

import pytest

from ean_core.common.errors import InUseError
from ean_core.search import Ledger
from ean_core.search.ledger import read_lines

KEY = {"strategy": {"type": "ean", "evaluations": 3}, "seed": 0, "stages": [3, 3]}
LINES = [{"step": step, "scheme": "101-010", "accuracy": 70 + step / 3} for step in range(3)]


def write(path, lines=LINES, key=KEY):
    with Ledger(path, key) as ledger:
        for line in lines:
            ledger.append(line)
    return path


def reopen(path, key=KEY):
    with Ledger(path, key) as ledger:
        return ledger.lines, ledger.notice


def test_a_ledger_holds_its_key_and_then_a_line_an_evaluation(tmp_path):
    path = write(tmp_path / "run" / "ledger.jsonl")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [KEY, *LINES]
    assert reopen(path) == (LINES, None)


def test_reopening_a_ledger_appends_to_it(tmp_path):
    path = write(tmp_path / "ledger.jsonl", LINES[:1])
    write(path, LINES[1:])
    assert reopen(path) == (LINES, None)


def test_accuracies_are_read_back_to_the_last_bit(tmp_path):
    line = {"accuracy": 0.1 + 0.2, "reward": 1e-300}
    assert reopen(write(tmp_path / "ledger.jsonl", [line]))[0] == [line]


def test_a_line_is_on_disk_when_append_returns(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, KEY) as ledger:
        for number, line in enumerate(LINES, 1):
            ledger.append(line)
            assert read_lines(path) == ([KEY, *LINES[:number]], b"")


def test_the_lines_of_a_step_are_on_disk_together(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, KEY) as ledger:
        ledger.append(*LINES)
        assert read_lines(path) == ([KEY, *LINES], b"")
        ledger.append()
        assert read_lines(path) == ([KEY, *LINES], b"")
    assert reopen(path) == (LINES, None)


def test_wherever_a_ledger_is_cut_its_whole_lines_are_kept_and_the_rest_is_said_to_be_dropped(tmp_path):
    whole = write(tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "ledger.jsonl"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        lines, notice = reopen(path)
        kept = whole[:size].count(b"\n")
        torn = size - (whole.rfind(b"\n", 0, size) + 1)
        assert lines == LINES[: max(kept - 1, 0)]
        if torn:
            assert notice == f"{path}: dropped a torn last line of {torn} bytes; it is evaluated again"
        else:
            assert notice is None
        # What is left is a ledger again, its key in place.
        assert path.read_bytes() == b"".join(line + b"\n" for line in whole.splitlines()[: max(kept, 1)])


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("damage", [b"{'step': 1}", b"", b"\x00\x00", b"[1, 2]", b'{"step": 1'])
def test_a_damaged_line_is_refused_with_its_number_and_nothing_is_changed(tmp_path, number, damage):
    path = write(tmp_path / "ledger.jsonl")
    content = path.read_bytes().split(b"\n")
    content[number - 1] = damage
    path.write_bytes(b"\n".join(content))
    with pytest.raises(ValueError, match=rf"ledger\.jsonl, line {number}, is"):
        reopen(path)
    assert path.read_bytes() == b"\n".join(content)
    path.write_bytes(b"")  # and the lock is free again
    assert reopen(path) == ([], None)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({**KEY, "seed": 1}, r"seed is 0 there, 1 here"),
        ({**KEY, "strategy": {"type": "ean", "evaluations": 4}}, r"strategy.evaluations is 3 there, 4 here"),
        (
            {**KEY, "strategy": {"type": "random"}, "seed": 1},
            r"seed is 0 there, 1 here; strategy.evaluations is 3 there, None here; "
            r"strategy.type is 'ean' there, 'random' here",
        ),
        ({**KEY, "data": "abc"}, r"data is None there, 'abc' here"),
        ({name: KEY[name] for name in ("strategy", "stages")}, r"seed is 0 there, None here"),
    ],
)
def test_the_ledger_of_another_search_is_refused_by_what_differs(tmp_path, key, message):
    path = write(tmp_path / "ledger.jsonl")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"belongs to another search: {message}.*Choose another --work-dir"):
        reopen(path, key)
    assert path.read_bytes() == before


def test_tuples_in_a_key_are_the_lists_they_become(tmp_path):
    path = write(tmp_path / "ledger.jsonl")
    assert reopen(path, {**KEY, "stages": (3, 3)}) == (LINES, None)


def test_a_key_that_is_not_plain_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError):
        Ledger(tmp_path / "ledger.jsonl", {"where": tmp_path})
    assert list(tmp_path.iterdir()) == []


def test_a_second_search_in_the_same_process_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, KEY) as ledger:
        with pytest.raises(InUseError, match=r"another search is writing .*ledger\.jsonl.*--work-dir"):
            reopen(path)
        ledger.append(LINES[0])
    assert reopen(path) == (LINES[:1], None)


def hold(path, ready):
    with Ledger(path, KEY) as ledger:
        ledger.append(LINES[0])
        ready.set()
        time.sleep(60)


def test_a_second_process_is_refused_until_the_first_is_gone_even_if_killed(tmp_path):
    path, context = tmp_path / "ledger.jsonl", multiprocessing.get_context("fork")
    ready = context.Event()
    first = context.Process(target=hold, args=(path, ready))
    first.start()
    try:
        assert ready.wait(60)
        with pytest.raises(InUseError, match="another search is writing"):
            reopen(path)
    finally:
        first.kill()
        first.join()
    assert reopen(path) == (LINES[:1], None)
