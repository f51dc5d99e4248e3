import io
import json
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ean_core.data.images import read_image
from tasks.crowd_counting import cli, serve
from tasks.crowd_counting.box import box_between, picture_point
from tasks.crowd_counting.drawing import draw_crowd
from tasks.crowd_counting.overlay import Heat, draw_overlay, people
from tasks.crowd_counting.webpage import EXAMPLES

from .drawn import save_crowd as save
from .served import SECONDS, Server, raw

#: In the server under test, so that small files go beyond them.
MAX_MB, MAX_MEGAPIXELS = 1, 1

#: Remember where on the result the next click is, in whole pixels of its file, and which file that is.
LISTEN = """() => document.addEventListener("click", event => {
    const image = document.querySelector("#result img"), box = image.getBoundingClientRect();
    const scale = box.width / image.naturalWidth;
    const place = [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
    window.clicked = { place: place.map(Math.round), source: image.src };
}, { capture: true, once: true })"""
#: Whether the result is another one than at the last click, and there.
REDRAWN = """() => {
    const image = document.querySelector("#result img");
    return image && image.src !== window.clicked.source && image.complete && image.naturalWidth > 0;
}"""


# ---------------------------------------------------------------- command


@pytest.mark.parametrize(("options", "name"), [({"max_mb": 0}, "--max-mb"), ({"max_pixels": -1}, "--max-pixels")])
def test_limits_are_above_zero(options, name):
    with pytest.raises(ValueError, match=rf"{name} must be a number above 0, got"):
        cli.serve(**options)


def test_a_host_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"--host must be an address of this machine, such as 127.*'no such host'"):
        cli.serve(host="no such host")


def test_without_gradio_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=re.escape('pip install "ean-zoo[serve]"')):
        cli.serve()


def test_the_next_port_is_used_where_one_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < serve.free_port("127.0.0.1", port) < port + serve.PORTS
    assert serve.free_port("127.0.0.1", 0) > 0


# ---------------------------------------------------------------- the page in a browser


@pytest.fixture(scope="module")
def server(counter_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    server = Server(counter_file, folder, "--port", "0", "--max-mb", MAX_MB, "--max-pixels", MAX_MEGAPIXELS)
    yield server
    server.stop()
    assert "Traceback" not in server.err.read_text()


class Visit:
    """The page in a browser, and what one does on it."""

    def __init__(self, page, shots):
        self.page, self.shots = page, shots

    def send(self, path):
        if self.page.locator("#picture [aria-label='Remove Image']").count():
            self.page.click("#picture [aria-label='Remove Image']")
        self.page.set_input_files("#picture input[type=file]", path)

    def expect(self, selector, text):
        """The text of an element, once it has this one or this pattern in it."""
        until = time.monotonic() + SECONDS
        while True:
            for found in self.page.locator(selector).all_inner_texts():
                if re.search(text if isinstance(text, re.Pattern) else re.escape(text), found):
                    return found
            assert time.monotonic() < until, f"no {text} in {selector} after {SECONDS} s"
            self.page.wait_for_timeout(50)

    def count(self, what="picture", size=""):
        """The count, once there is one, of a picture or box of this size."""
        pattern = re.compile(rf"([\d,]+)\s.*\s{size or '[0-9,]+ × '}")
        found = pattern.search(self.expect(f"#count-of-{what}", pattern))
        return int(found[1].replace(",", ""))

    def result(self):
        """The result as it came over the wire."""
        source = self.page.get_attribute("#result img", "src")
        return Image.open(io.BytesIO(self.page.request.get(source).body()))

    def click(self, x, y):
        """Click on the result, by shares of its width and height; where that was, in pixels of its file."""
        image = self.page.locator("#result img")
        image.scroll_into_view_if_needed()
        box = image.bounding_box()
        self.page.evaluate(LISTEN)
        image.click(position={"x": x * box["width"], "y": y * box["height"]})
        self.page.wait_for_function(REDRAWN)
        return self.page.evaluate("window.clicked.place")

    def shot(self, name):
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=True)


@pytest.fixture
def visit(browser, server, tmp_path):
    shots = Path(os.environ.get("EAN_SCREENSHOTS", tmp_path / "screenshots"))
    shots.mkdir(parents=True, exist_ok=True)
    visits = []

    def visit(width=1280, height=900, **options):
        page = browser.new_context(viewport={"width": width, "height": height}, **options).new_page()
        page.set_default_timeout(SECONDS * 1000)
        requests = []
        page.on("request", lambda request: requests.append((request.resource_type, request.url)))
        page.goto(server.url)
        page.wait_for_selector("#count")
        page.wait_for_selector("#examples img")
        visits.append(SimpleNamespace(page=page, requests=requests))
        opened = Visit(page, shots)
        opened.requests = requests
        return opened

    yield visit
    for one in visits:
        one.page.context.close()
        hosts = {urllib.parse.urlsplit(url).netloc for _, url in one.requests if not url.startswith(("data:", "blob:"))}
        assert hosts == {urllib.parse.urlsplit(server.url).netloc}


def save_turned(path):
    """As a phone writes it: lying, with a note that it stands."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(path, 40, (300, 400), exif=exif)


def save_deep(path):
    grey = np.asarray(draw_crowd(40, (300, 420))[0].convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(path)
    return path


def test_the_page_counts_what_the_counter_counts_in_the_same_file(visit, counter, tmp_path):
    seen = visit()
    for size, path in [
        ("300 × 400 px", save_turned(tmp_path / "turned.jpg")),
        ("420 × 300 px", save_deep(tmp_path / "deep.png")),
        ("410 × 310 px", save(tmp_path / "printed.jpg", 40, (310, 410), mode="CMYK")),
    ]:
        seen.send(path)
        number = seen.count(size=size)
        expected = counter(path)
        assert number == round(expected.count)
        drawn = draw_overlay(read_image(path), expected.density, people(expected.count))
        result = seen.result()
        assert result.size == drawn.size
        assert np.abs(np.subtract(result, np.asarray(drawn), dtype=np.float32)).mean() < 4  # a JPEG
        seen.shot("counted")
        with seen.page.expect_response(lambda answer: "/queue/join" in answer.url):
            seen.page.click("#count")  # once more by hand
        seen.page.wait_for_timeout(300)
        assert seen.count(size=size) == number


def test_the_opacity_draws_the_heat_anew_and_does_not_count_again(visit, counter, tmp_path):
    seen = visit()
    path = save(tmp_path / "a.png")
    seen.send(path)
    seen.count()
    before = seen.page.inner_text("#count-of-picture")  # with the time that counting took
    slider = seen.page.locator("#opacity input[type=range]")
    count, density = counter(path)
    for key, opacity in (("Home", 0), ("End", 1)):
        slider.press(key)
        expected = np.asarray(draw_overlay(read_image(path), density, people(count), Heat(opacity)))
        until = time.monotonic() + SECONDS
        while np.abs(np.subtract(seen.result(), expected, dtype=np.float32)).mean() > 2:  # a JPEG
            assert time.monotonic() < until
            seen.page.wait_for_timeout(50)
    assert seen.page.inner_text("#count-of-picture") == before


def test_two_clicks_count_the_people_in_the_box_between_them(visit, counter, tmp_path):
    seen = visit()
    path = save(tmp_path / "crowd.jpg", 60, (600, 800))
    seen.send(path)
    seen.count()
    plain = seen.result()
    _, density = counter(path)

    def check(*clicks):
        box = box_between(*(picture_point(click, density.shape) for click in clicks))
        number = seen.count("box", f"{box.right - box.left} × {box.bottom - box.top} px")
        expected = density[box.top : box.bottom, box.left : box.right].sum(dtype=np.float64)
        assert number == pytest.approx(expected, abs=0.51)

    first = seen.click(0.7, 0.6)
    seen.expect("#count-of-box", "First corner set")
    seen.shot("one_corner")
    second = seen.click(0.3, 0.2)  # the upper left corner after the lower right one
    check(first, second)
    seen.shot("box")
    third = seen.click(0.1, 0.5)
    seen.expect("#count-of-box", "First corner set")
    fourth = seen.click(0.5, 0.97)  # on the strip below the picture
    check(third, fourth)
    seen.page.click("#clear")
    seen.page.wait_for_selector("#count-of-box", state="detached")
    assert seen.result() == plain


def test_an_example_is_counted_by_a_click_and_said_to_be_drawn(visit, server, tmp_path):
    seen = visit()
    assert seen.page.locator("#examples img").count() == 3
    assert "drawings, not photos" in seen.page.inner_text("body")
    seen.shot("start")
    seen.page.locator("#examples button").nth(1).click()
    assert seen.count(size="640 × 480 px") > 0
    notes = tmp_path / "notes.jpg"
    notes.write_text("no picture")
    seen.send(notes)  # also after an example, what is sent is read as it is
    seen.expect(".toast-body", "notes.jpg cannot be read as an image")


def test_the_count_is_of_the_last_of_several_quick_choices(visit, counter):
    seen = visit()
    buttons = seen.page.locator("#examples button")
    expected = []  # the counts of this network are alike, their overlays are not
    for number in EXAMPLES:
        picture = draw_crowd(number, seed=number)[0]
        count, density = counter(picture)
        expected.append(np.asarray(draw_overlay(np.asarray(picture), density, people(count))))

    def is_of(number):
        return np.abs(np.subtract(seen.result(), expected[number], dtype=np.float32)).mean() < 3  # a JPEG

    for last in (2, 0, 1):
        for number in (0, 1, 2, last):
            buttons.nth(number).click()
        until = time.monotonic() + SECONDS
        while seen.count() and not is_of(last):
            assert time.monotonic() < until
        seen.page.wait_for_timeout(700)  # in which another count could take its place
        assert is_of(last)
        assert f"crowd_of_{EXAMPLES[last]}.png" in seen.page.get_attribute("#picture img", "src")


def test_what_is_no_picture_or_too_large_is_refused_in_words(visit, server, tmp_path):
    seen = visit()
    seen.page.click("#count")
    seen.expect(".toast-body", "there is no image yet; upload one, or click an example")
    seen.send(save(tmp_path / "a.png"))
    seen.count()
    notes = tmp_path / "notes <b>bold<b>.jpg"
    notes.write_text("no picture")
    seen.send(notes)
    message = seen.expect(".toast-body", "cannot be read as an image: ")
    assert "/" not in message
    seen.shot("refused")
    seen.expect("#counts", "No count yet")  # not the count of the picture before
    assert seen.page.locator("#result img").count() == 0
    seen.send(save(tmp_path / "vast.png", shape=(1100, 1000)))
    seen.expect(
        ".toast-body", "vast.png cannot be read as an image: 1000 x 1100 are 1.1 million pixels, more than the limit"
    )
    noise = tmp_path / "heavy.jpg"
    noise.write_bytes(os.urandom(MAX_MB * 2**20 + 1))
    seen.send(noise)
    seen.expect(".toast-body", "heavy.jpg")
    assert "Traceback" not in seen.page.inner_text("body")
    assert "Traceback" not in server.err.read_text()


def test_a_phone_shows_everything_without_scrolling_sideways(visit, tmp_path):
    seen = visit(390, 844, device_scale_factor=2, is_mobile=True, has_touch=True)
    width = "document.documentElement.scrollWidth"
    assert seen.page.evaluate(width) <= 390
    seen.send(save(tmp_path / "a.jpg", 40, (600, 800)))
    seen.count()
    seen.page.wait_for_function(
        "() => { const box = document.querySelector('#count-of-picture').getBoundingClientRect();"
        " return box.top >= 0 && box.bottom <= window.innerHeight; }"
    )
    seen.click(0.2, 0.2)
    seen.click(0.8, 0.7)
    seen.count("box")
    assert seen.page.evaluate(width) <= 390
    assert seen.page.is_visible("#bar")
    seen.shot("phone")


def test_the_page_needs_no_other_host_and_no_fonts(visit, tmp_path):
    seen = visit()
    seen.send(save(tmp_path / "a.png"))
    seen.count()
    assert len(seen.requests) > 10
    assert not [url for kind, url in seen.requests if kind == "font"]
    assert seen.page.evaluate("getComputedStyle(document.querySelector('h1')).fontFamily").startswith("system-ui")
    # Their hosts are looked at in the end of every visit.


# ---------------------------------------------------------------- the server


def own_address():
    """An address of this machine that others reach it by; None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return None
        address = probe.getsockname()[0]
    return None if address.startswith("127.") else address


def test_the_server_listens_on_this_machine_only(server):
    assert server.url.startswith("http://127.0.0.1:")
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS):
        pass
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but 127.0.0.1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, server.port), timeout=SECONDS)


def test_an_upload_above_the_limit_is_answered_as_too_large(server):
    status, _ = server.upload(bytes(MAX_MB * 2**20 + 1))
    assert status == 413
    status, paths = server.upload(bytes(MAX_MB * 2**20 - 1))
    assert status == 200
    assert len(paths) == 1


def test_there_is_no_api_beside_the_page(server):
    config = json.loads(server.get("/config"))
    assert {one["api_visibility"] for one in config["dependencies"]} == {"private"}
    assert b"Crowd counter" in server.get("/")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.get("/gradio_api/info")


def test_files_of_this_machine_are_not_served(server, counter_file):
    with pytest.raises(urllib.error.HTTPError) as raised:
        server.get(f"/gradio_api/file={counter_file}")
    assert raised.value.code in (403, 404)


def test_a_server_for_others_warns_and_leaves_nothing_behind(counter_file, server, tmp_path):
    second = Server(counter_file, tmp_path, "--host", "0.0.0.0", "--port", server.port)
    try:
        assert second.port > server.port
        said = second.err.read_text()
        assert f"port {server.port} is taken; using {second.port}" in said
        assert "warning: 0.0.0.0 can be reached from other machines" in said
        address = own_address()
        if address:
            with socket.create_connection((address, second.port), timeout=SECONDS):
                pass
        for host, status in (("10.1.2.3", 200), (f"localhost:{second.port}", 200), ("evil.example", 421)):
            assert raw(second, "GET", "/config", [("Host", host)])[0] == status
        status, (path,) = second.upload(save(tmp_path / "sent.png").read_bytes())
        assert status == 200
        assert Path(path).is_file()
        assert Path(path).is_relative_to(tmp_path)
    finally:
        code = second.stop()
    assert code == 0
    assert "stopped" in second.out.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"stdout.txt", "stderr.txt", "sent.png"}
