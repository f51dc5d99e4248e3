"""The HTML page of a report in a browser, on phone and desktop screens."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ean_core.commands.report import write_report
from ean_core.common.record import read_record, write_record
from ean_core.report.page import _part

from .drawn import save_fold, save_groups, save_run, save_timing

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SIZES = {"phone": (390, 844), "desk": (1280, 900)}

#: Pairs of texts in one figure that overlap visibly.
OVERLAPS = """() => [...document.querySelectorAll(".figure > svg")].flatMap(svg => {
    const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    return texts.flatMap(([one, a], k) => texts.slice(k + 1)
        .filter(([, b]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)
        .map(([other]) => `${one} / ${other}`));
})"""
#: Texts that extend beyond the page or their figure.
CUT = """() => [...document.querySelectorAll("h1, h2, p, .figure text")].filter(text => {
    const box = text.getBoundingClientRect(), svg = text.ownerSVGElement;
    const within = svg ? svg.getBoundingClientRect() : { left: 0, right: innerWidth };
    return box.left < within.left - 1 || box.right > within.right + 1;
}).map(text => text.textContent)"""
#: Smallest text size on the page or in its figures, in screen pixels.
SMALLEST = """kind => Math.min(...[...document.querySelectorAll(kind)].map(text => {
    const svg = text.ownerSVGElement, size = parseFloat(getComputedStyle(text).fontSize);
    return svg ? size * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : size;
}))"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A report with every kind of table and figure, independent of the committed results."""
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
    save_fold(runs / "fold", [("0c0-c00-000", 60.0, -5.0), ("0c0-100-000", 65.0, -0.1)], {})
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
    """A page in a browser of a given size; script errors and external requests fail the test."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=size == "phone")
    page = context.new_page()
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(path.as_uri())
    yield page
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    context.close()


@pytest.fixture(params=SIZES)
def page(request, browser, drawn):
    with opened(drawn, request.param, browser) as page:
        yield page


@pytest.fixture(scope="module", params=SIZES)
def shown(request, browser, drawn):
    """A page that no test changes."""
    with opened(drawn, request.param, browser) as page:
        yield page


@pytest.mark.parametrize("size", SIZES)
def test_the_page_of_the_committed_records_opens(browser, committed_report, size):
    with opened(committed_report / "index.html", size, browser) as page:
        readable(page)
        names = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
        assert len(names) == len(set(names))
        figures = page.locator(".figure > svg")
        assert figures.count() == len(list(committed_report.glob("*.svg")))
        for figure in figures.all():
            box = figure.bounding_box()
            assert min(box["width"], box["height"]) > 200


def readable(page):
    """Only scrollable boxes are wider than the screen; no text overlaps another or is too small."""
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate(SMALLEST, "td, th, p, a, code") >= 12
    assert page.evaluate(SMALLEST, ".figure text") >= 10


def test_nothing_overlaps_or_is_cut_and_all_is_readable(shown):
    readable(shown)


def test_groups_trained_alone_are_drawn_or_told_apart_from_too_few(shown):
    texts = shown.locator("#figure4_alone svg text").all_text_contents()
    assert {"random", "EAN", "HSP", "GA"} <= set(texts)
    assert shown.locator("#figure4_alone_2 .figure").count() == 0
    assert "0 of 21 schemes" in shown.locator("#figure4_alone_2").inner_text()


def test_pictures_refer_to_parts_of_their_own(shown):
    """Every reference in a figure (use, clip, marker) resolves within that figure."""
    lost = shown.evaluate("""() => [...document.querySelectorAll(".figure > svg")].flatMap(svg => {
        const names = [...svg.outerHTML.matchAll(/(?:href="#|url\\((?:&quot;)?#)([^"&)]+)/g)].map(found => found[1]);
        return names.filter(name => !svg.contains(document.getElementById(name)) || !name.length);
    })""")
    assert lost == []
    assert shown.locator(".figure use").count() > 20


def test_each_block_has_its_name(shown):
    blocks = shown.locator("#gates_deep svg text").all_text_contents()
    assert [text for text in blocks if text[1:2] == "."][:54] == [f"{k}.{i}" for k in (1, 2, 3) for i in range(1, 19)]


def column(page, table, title):
    """Position of a column, starting at 1."""
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


def test_whose_a_row_is_comes_first_in_words_and_tone(shown):
    for name in ("table1", "table2", "table4"):
        assert shown.locator(f"#{name} th").first.inner_text().startswith("source")
        tones = {}
        for row in shown.locator(f"#{name} tbody tr").all():
            first = row.locator("td").first
            tones.setdefault(first.inner_text().split(",")[0], set()).add(
                first.evaluate("cell => [getComputedStyle(cell).color, getComputedStyle(cell).backgroundColor].join()")
            )
        assert tones.keys() == {"here", "paper"}
        assert all(len(found) == 1 for found in tones.values())
        assert tones["here"].isdisjoint(tones["paper"])


#: Left and right edge of a cell's text, and the inner edges of the box that is scrolled.
PLACE = """cell => {
    const range = document.createRange(), box = cell.closest(".scroll").getBoundingClientRect();
    range.selectNodeContents(cell);
    const { left, right } = range.getBoundingClientRect();
    return { left: left - box.left, right: box.right - right };
}"""


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("table1", "accuracy"),
        ("table2", "trained alone"),
        ("table4", "trained alone"),
        ("claim", "accuracy"),
        ("times", "increment"),
    ],
)
def test_a_row_shows_its_first_numbers_without_scrolling(shown, name, title):
    for cell in shown.locator(f"#{name} td:nth-child({column(shown, name, title)})").all():
        if cell.inner_text():
            place = cell.evaluate(PLACE)
            assert min(place["left"], place["right"]) >= 0


def test_columns_that_name_a_row_stay_in_view_and_leave_room(page):
    for name in ("table1", "table2", "table4", "times", "claim"):
        box = page.locator(f"#{name} .scroll")
        kept = page.locator(f"#{name} tbody tr:last-child td.kept:not(.loose)")
        before = [cell.bounding_box()["x"] for cell in kept.all()]
        box.evaluate("box => { box.scrollLeft = 10000; }")
        assert before
        assert [cell.bounding_box()["x"] for cell in kept.all()] == pytest.approx(before, abs=1)
        ends = [cell.bounding_box()["x"] + cell.bounding_box()["width"] for cell in kept.all()]
        assert max(ends) <= box.bounding_box()["x"] + 0.65 * box.bounding_box()["width"]
        # Nothing shines through: the point in the middle of a kept cell belongs to it.
        assert kept.first.evaluate("""cell => {
            cell.scrollIntoView({ block: "center", behavior: "instant" });
            const { left, top, width, height } = cell.getBoundingClientRect();
            return document.elementFromPoint(left + width / 2, top + height / 2).closest("td") === cell
                && !["transparent", "rgba(0, 0, 0, 0)"].includes(getComputedStyle(cell).backgroundColor);
        }""")


def test_a_borrowed_time_has_its_mark_beside_the_number(shown):
    place = column(shown, "table1", "increment")
    texts = {
        row.locator("td").first.inner_text(): row.locator(f"td:nth-child({place})").inner_text()
        for row in shown.locator("#table1 tbody tr").all()
    }
    assert "†" in texts["here"]
    assert "†" not in texts["paper, Table 1"]
    assert "† time" in shown.locator("#table1").inner_text()


def test_no_two_links_have_one_text(shown):
    texts = shown.locator("a").all_inner_texts()
    assert "Table 1" in texts
    assert len(texts) == len(set(texts))
    targets = shown.evaluate("[...document.querySelectorAll('a')].map(link => link.getAttribute('href'))")
    assert len(targets) == len(set(targets))


def test_schemes_have_strips(shown):
    cell = shown.locator("#table2 td .scheme", has_text="010-100-000").first
    assert cell.locator("rect").count() == 9
    assert cell.locator("rect[fill='#0072B2']").count() == 2


def test_the_keyboard_reaches_what_is_wider_than_the_screen(shown):
    for name in ("figure1", "table1"):
        assert shown.locator(f"#{name} .scroll").get_attribute("tabindex") == "0"


def test_a_scheme_with_constant_gates_is_shown_as_a_strip():
    assert _part("`0c0-1`").startswith('<span class="scheme"><svg')
    assert _part("`0x0-1`") == "<code>0x0-1</code>"
