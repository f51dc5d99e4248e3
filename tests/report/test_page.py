"""The page of a report in a browser, on a phone and on a desk."""

from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "benchmarks/report/index.html"
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


@pytest.fixture(params=SIZES)
def page(request, browser):
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=request.param == "phone")
    page = context.new_page()
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(PAGE.as_uri())
    page.wait_for_function(
        "document.querySelectorAll('.chart svg').length === document.querySelectorAll('.chart').length"
    )
    yield page
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    context.close()


def test_nothing_overlaps_or_is_cut_and_all_is_readable(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate(SMALLEST) >= 12


def test_a_click_on_a_title_sorts(page):
    column = "#table1 th:has-text('accuracy')"
    index = page.evaluate(
        "text => [...document.querySelectorAll('#table1 th')].findIndex(th => th.textContent.includes(text))",
        "accuracy",
    )

    def values():
        return [float(text.split()[0]) for text in page.locator(f"#table1 td:nth-child({index + 1})").all_inner_texts()]

    before = values()
    assert before != sorted(before)
    page.click(f"{column} button")
    assert values() == sorted(before)
    assert page.get_attribute(column, "aria-sort") == "ascending"
    page.click(f"{column} button")
    assert values() == sorted(before, reverse=True)
    page.click(f"{column} button")
    assert values() == before


def test_numbers_sort_as_numbers_with_their_units(page):
    page.click("#table1 th:has-text('parameters') button")
    texts = page.locator("#table1 tr td:nth-child(6)").all_inner_texts()
    values = [1e6 * float(text[:-2]) if text.endswith(" M") else float(text.replace(",", "")) for text in texts]
    assert values == sorted(values)
    assert values[0] < 300_000 < 20_000_000 < values[-1]


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
