"""Sections of searches."""

from dataclasses import replace
from types import SimpleNamespace

from ean_core.report.search_sections import _scores
from ean_core.scheme import ConnectionScheme
from ean_core.search.strategy import Evaluation


def test_a_mode_that_was_never_asked_for_is_judged_by_its_result():
    """A controller's most probable scheme may never have been sampled; it is scored at the end of the search."""
    asked, mode, own = (
        Evaluation(ConnectionScheme.parse(text), accuracy, 1.0, accuracy)
        for text, accuracy in (("100-000", 50.0), ("111-010", 51.0), ("001-000", 99.0))
    )
    history = SimpleNamespace(evaluations=[asked])
    runs = [
        SimpleNamespace(history=history, rule=rule, returned=each)
        for rule, each in (("mode", mode), ("front", own), ("mode", replace(asked, score=1.0)))
    ]
    scored, finalists = _scores(SimpleNamespace(runs=runs, finalists=[own]))
    assert scored == {asked.scheme: 50.0, mode.scheme: 51.0}
    assert finalists == {own.scheme: 99.0}
