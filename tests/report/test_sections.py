import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from ean_core.report.page import link_texts
from ean_core.report.sections import Records, _scores, sections
from ean_core.scheme import ConnectionScheme
from ean_core.search.strategy import Evaluation

from .drawn import save_run

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"


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


def test_a_methods_schemes_are_averaged_over_one_recipe_only(tmp_path):
    one, other = "010-100-000", "000-100-000"
    save_run(tmp_path / "a", scheme=one, accuracy=65.0)
    save_run(tmp_path / "longer", scheme=one, accuracy=70.0, epochs=200)
    save_run(tmp_path / "rate", scheme=other, accuracy=60.0, lr=0.3)
    schemes = [ConnectionScheme.parse(text) for text in (one, other, one)]

    def trained():
        found = Records.read([tmp_path]).trained_alike("resnet20_se_cifar100", schemes)
        return [each.values("accuracy/top1") for each in found]

    assert trained() == []
    save_run(tmp_path / "b", scheme=other, accuracy=64.0)
    assert trained() == [[65.0], [64.0], [65.0]]


def test_titles_and_links_of_equal_searches_are_told_apart(tmp_path):
    for name in ("one", "other"):
        shutil.copytree(RESULTS / "campaign/search_resnet20_se.cifar100/seed_0", tmp_path / name)
    titles = [section.title for section in sections(Records.read([tmp_path]))]
    assert len(titles) == len(set(titles))
    assert sum("all schemes of a ResNet-20 SE supernet" in title for title in titles) == 2
    links = link_texts(titles)
    assert len(links) == len(set(links))
    assert "Table 2" in links
