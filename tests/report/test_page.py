"""The page of a report in a browser, on a phone and on a desk."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ean_core.commands.report import write_report
from ean_core.common.record import read_record, write_record

from .drawn import save_groups, save_run, save_timing

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SIZES = {"phone": (390, 844), "desk": (1280, 900)}

#: Pairs of texts of one chart whose boxes share more than a sliver.
OVERLAPS = """() => [...document.querySelectorAll(".chart svg")].flatMap(svg => {
    const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    return texts.flatMap(([one, a], k) => texts.slice(k + 1)
        .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)
        .map(([other]) => `${one} / ${other}`));
})"""
#: Texts that reach beyond the page.
CUT = """() => [...document.querySelectorAll(".chart text, h1, h2, h3, p")]
    .filter(text => { const box = text.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth; })
    .map(text => text.textContent)"""
SMALLEST = """() => Math.min(...[...document.querySelectorAll("text, td, th, p, a, code, .legend")]
    .map(text => parseFloat(getComputedStyle(text).fontSize)))"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A report with every kind of table and chart, which does not change with what is trained."""
    runs = tmp_path_factory.mktemp("drawn") / "runs"
    for k, (scheme, accuracy) in enumerate([("000-000-000", 65.2), ("010-100-000", 65.6), ("111-111-111", 65.1)]):
        for seed in (0, 1):
            save_run(runs / f"run_{k}/seed_{seed}", scheme=scheme, seed=seed, accuracy=accuracy + 0.3 * seed)
    rows = [
        (scheme, "SE", form, increment)
        for form, share in (("eager", 1.0), ("deployed", 0.25))
        for scheme, increment in (("000-000-000", 0.0), ("010-100-000", 0.05 * share), ("111-111-111", 0.2 * share))
    ]
    save_timing(runs / "time", rows)
    draws = np.random.default_rng(0)
    random, searched = (
        [f"{first}{k % 2}{k // 2 % 2}-{k // 4 % 2}{k // 8 % 2}0-010" for k in range(n)]
        for first, n in ((1, 16), (0, 5))
    )
    accuracies = {scheme: [round(draws.normal(64, 0.5), 2)] for scheme in (*random[:12], *searched)}
    save_groups(runs / "alone", accuracies, random=random, EAN=searched, HSP=searched[:2], GA=random[-1:])
    save_groups(runs / "hardly", {}, config="resnet20_dia_cifar100", random=random, EAN=searched)
    shutil.copytree(BENCHMARKS / "results/search_resnet20_se_cifar100", runs / "comparison")
    shutil.copytree(BENCHMARKS / "results/gates/full_resnet20_se.cifar100", runs / "gates")
    for path in ("search_resnet20_se.cifar100", "correlate_resnet20_se.cifar100"):
        shutil.copytree(BENCHMARKS / "results/campaign" / path, runs / path)
    record = read_record(runs / "gates/gates.json")
    deep = "-".join(["1" * 18] * 3)
    blocks = [
        {**record["blocks"][k % 9], "block": f"{stage}.{place}"}
        for k, (stage, place) in enumerate((stage, place) for stage in (1, 2, 3) for place in range(1, 19))
    ]
    fields = {name: record[name] for name in ("attention", "images", "checkpoint", "data")}
    write_record(
        runs / "deep/gates.json", kind="gates", config="resnet164_se_cifar100", scheme=deep, blocks=blocks, **fields
    )
    out = runs.parent / "report"
    write_report([runs], out)
    return out / "index.html"


@contextmanager
def opened(path, size, browser):
    """A page in a browser of a size; what goes wrong in it, and what it asks for elsewhere, fails."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=size == "phone")
    page = context.new_page()
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(path.as_uri())
    page.wait_for_function(
        "document.querySelectorAll('.chart svg').length === document.querySelectorAll('.chart').length"
    )
    yield page
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    context.close()


@pytest.fixture(params=SIZES)
def page(request, browser, drawn):
    with opened(drawn, request.param, browser) as page:
        yield page


@pytest.mark.parametrize("size", SIZES)
def test_the_committed_page_opens(browser, size):
    with opened(BENCHMARKS / "report/index.html", size, browser) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        assert page.evaluate(SMALLEST) >= 12
        names = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
        assert len(names) == len(set(names))


def test_nothing_overlaps_or_is_cut_and_all_is_readable(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate(SMALLEST) >= 12


def test_groups_trained_alone_are_drawn_or_told_apart_from_too_few(page):
    texts = page.locator("#figure4_alone svg text").all_text_contents()
    assert "test accuracy (%)" in texts
    assert sum(text.startswith(("random", "EAN", "HSP", "GA")) for text in texts) == 4
    assert page.locator("#figure4_alone_2 .chart").count() == 0
    assert "0 of 21 schemes" in page.locator("#figure4_alone_2").inner_text()


def test_axes_that_count_have_whole_numbers(page):
    for figure in ("schemes_search_resnet20_se_cifar100", "figure5"):
        ticks = page.locator(f"#{figure} svg text.tick[text-anchor='middle']").all_text_contents()
        assert len(ticks) > 3
        assert all(float(tick).is_integer() and float(tick) >= 0 for tick in ticks)
    blocks = page.locator("#gates_deep svg text.tick[text-anchor='middle']").all_text_contents()
    assert blocks[0] == "1.1"
    assert 5 < len(blocks) < 54  # as many as there is room for


def column(page, table, title):
    """Place of a column, from 1."""
    titles = page.locator(f"#{table} th").all_inner_texts()
    (found,) = [k for k, text in enumerate(titles, 1) if text.startswith(title)]
    return found


def test_a_click_on_a_title_sorts(page):
    place = column(page, "table1", "accuracy")
    head = f"#table1 th:nth-child({place})"

    def values():
        return [float(text.split()[0]) for text in page.locator(f"#table1 td:nth-child({place})").all_inner_texts()]

    before = values()
    assert before != sorted(before)
    page.click(f"{head} button")
    assert values() == sorted(before)
    assert page.get_attribute(head, "aria-sort") == "ascending"
    page.click(f"{head} button")
    assert values() == sorted(before, reverse=True)
    page.click(f"{head} button")
    assert values() == before


def test_numbers_sort_as_numbers_with_their_units(page):
    page.click("#table1 th:has-text('parameters') button")
    texts = page.locator(f"#table1 td:nth-child({column(page, 'table1', 'parameters')})").all_inner_texts()
    values = [1e6 * float(text[:-2]) if text.endswith(" M") else float(text.replace(",", "")) for text in texts]
    assert values == sorted(values)
    assert values[0] < 300_000 < 20_000_000 < values[-1]


def test_words_with_numbers_sort_by_them(page):
    page.click("#table1 th:has-text('connections') button")
    texts = page.locator(f"#table1 td:nth-child({column(page, 'table1', 'connections')})").all_inner_texts()
    counts = [int(text.split()[0]) for text in texts if text]
    assert counts == sorted(counts) == [0, 2, 9]


def test_a_point_says_what_it_stands_for(page):
    circle = page.locator("#figure1 circle[aria-label*='EAN SE, deployed']").first
    circle.scroll_into_view_if_needed()
    if page.viewport_size["width"] < 500:
        circle.tap()
    else:
        circle.hover()
    tip = page.locator("#tip")
    tip.wait_for(state="visible")
    assert "accuracy" in tip.inner_text()
    assert "010-100-000" in tip.inner_text()
    assert tip.locator("rect").count() == 9
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= page.viewport_size["width"]


def test_schemes_have_strips(page):
    cell = page.locator("#table2 td .scheme", has_text="010-100-000").first
    assert cell.locator("rect").count() == 9
    assert cell.locator("rect[fill='#0072B2']").count() == 2


def test_the_keyboard_reaches_points_and_tables(page):
    page.locator("#figure1 circle[tabindex='0']").first.focus()
    assert page.locator("#tip").is_visible()
    assert page.locator("#table1 .scroll").get_attribute("tabindex") == "0"
