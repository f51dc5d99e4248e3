import shutil
from pathlib import Path

from ean_core.report.gathered import Records
from ean_core.report.page import link_texts
from ean_core.report.sections import sections

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"


def test_titles_and_links_of_equal_searches_are_told_apart(tmp_path):
    for name in ("one", "other"):
        shutil.copytree(RESULTS / "campaign/search_resnet20_se.cifar100/seed_0", tmp_path / name)
    titles = [section.title for section in sections(Records.read([tmp_path]))]
    assert len(titles) == len(set(titles))
    assert sum("all schemes of a ResNet-20 SE supernet" in title for title in titles) == 2
    links = link_texts(titles)
    assert len(links) == len(set(links))
    assert "Table 2" in links
