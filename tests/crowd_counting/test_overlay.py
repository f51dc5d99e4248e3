import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from tasks.crowd_counting.overlay import (
    LEAST_OPACITY,
    SQUARE,
    UNFAMILIAR,
    WIDEST,
    Heat,
    clearness,
    display_density,
    draw_overlay,
    people,
    round_top,
    shown_size,
)
from tasks.showing import HEAT


def scene(height, width, seed=0):
    """A picture in which no two places look the same."""
    across, down = np.meshgrid(np.linspace(40, 220, width), np.linspace(60, 200, height))
    return np.stack([across, down, 255 - across], 2).round().astype(np.uint8)


def empty(height, width):
    return np.zeros((height, width), np.float32)


def shown(overlay, height, width):
    """The picture in an overlay of a picture of this size, without the strip."""
    rows = round(height * overlay.width / width)
    return np.asarray(overlay)[:rows].astype(int)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (480, 480)),
        ((100, 240), (480, 1152)),
        ((479, 300), (480, 301)),
        ((480, 320), (480, 320)),
        ((1001, 51), (1001, 51)),
        ((1600, 900), (1600, 900)),
        ((1601, 900), (1600, 899)),
        ((2400, 1800), (1600, 1200)),
        ((9000, 3), (1600, 1)),
    ],
)
def test_pictures_are_shown_at_widths_from_480_to_1600_in_their_proportions(size, expected):
    width, height = size
    overlay = draw_overlay(scene(height, width), empty(height, width), "0 people")
    assert (overlay.mode, overlay.width) == ("RGB", expected[0])
    strip = np.asarray(overlay)[expected[1] :]
    assert 56 <= len(strip) <= 160
    assert (strip[0] == 255).all()
    resized = Image.fromarray(scene(height, width)).resize(expected, Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(overlay)[: expected[1]], np.asarray(resized))


@pytest.mark.parametrize("size", [(1, 65000), (60, 20000)])
def test_a_picture_that_is_much_taller_than_wide_stays_a_file_of_usual_size(size):
    width, height = size
    overlay = draw_overlay(scene(height, width), empty(height, width), "0 people")
    assert 480 <= overlay.width <= 1600
    assert overlay.width * overlay.height < 25_000_000
    overlay.save(io.BytesIO(), "JPEG")  # which has a greatest height
    row = np.asarray(overlay)[overlay.height // 2]
    picture = np.flatnonzero((row < 255).any(1))
    assert abs(picture.mean() - overlay.width / 2) <= 1
    rows = overlay.height - 56
    assert len(picture) == pytest.approx(max(1, rows * width / height), abs=1)


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_what_is_shown_is_within_bounds_and_in_proportion(height, width):
    across, down = shown_size((height, width))
    assert across <= 1600
    assert across >= 480 or down >= 40_000
    assert down <= 42_000
    assert across * down <= 20_100_000
    factors = across / width, down / height
    assert abs(factors[0] - factors[1]) <= 1 / width + 1 / height


# ---------------------------------------------------------------- heat


@pytest.mark.parametrize(("height", "width"), [(300, 500), (180, 120), (1500, 2500)])
def test_heat_is_where_the_density_is_and_nowhere_else(height, width):
    rows, columns = slice(height // 5, height * 2 // 5), slice(width * 3 // 5, width * 4 // 5)
    density = empty(height, width)
    density[rows, columns] = 10 / SQUARE**2
    plain = draw_overlay(scene(height, width), empty(height, width), "0 people")
    changed = shown(draw_overlay(scene(height, width), density, "0 people"), height, width)
    changed = (changed != shown(plain, height, width)).any(2)
    factor = plain.width / width
    inside = changed[
        round(rows.start * factor) : round(rows.stop * factor),
        round(columns.start * factor) : round(columns.stop * factor),
    ]
    assert inside.mean() > 0.99
    blur = 36  # pixels that smoothing for the eye reaches beyond the density
    near = np.zeros((height, width), bool)
    near[max(0, rows.start - blur) : rows.stop + blur, max(0, columns.start - blur) : columns.stop + blur] = True
    near = np.asarray(Image.fromarray(near).resize((changed.shape[1], changed.shape[0])))
    assert not changed[~near].any()
    assert (~near).any()


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0, 3.0])
def test_the_colour_is_that_of_the_bar_mixed_in_more_where_there_is_more(share):
    density = np.full((480, 480), share * 50 / SQUARE**2, np.float32)
    grey = np.full((480, 480, 3), 100, np.uint8)
    drawn = shown(draw_overlay(grey, density, "", Heat(opacity=0.6, top=50)), 480, 480)
    within = min(share, 1.0)
    alpha = 0.6 * max(within**0.5, LEAST_OPACITY)
    expected = 100 * (1 - alpha) + 255 * np.array(HEAT(within)[:3]) * alpha
    assert np.abs(drawn - expected).max() <= 2


def test_the_bar_has_the_colours_of_the_heat_from_its_least_to_its_most():
    overlay = np.asarray(draw_overlay(scene(200, 640), empty(200, 640), "0 people")).astype(int)[200:]
    saturated = (overlay.max(2) - overlay.min(2)) > 40
    row = overlay[np.argmax(saturated.sum(1))]
    bar = row[saturated[np.argmax(saturated.sum(1))]]
    assert len(bar) >= 200
    for place in (0, 0.25, 0.5, 0.75, 1):
        found = bar[round(place * (len(bar) - 1))]
        assert np.abs(found - 255 * np.array(HEAT(float(place))[:3])).max() <= 8


def test_an_empty_density_and_no_opacity_leave_the_picture_as_it_is():
    pixels = scene(300, 500)
    noise = np.random.default_rng(0).uniform(0, 1e-7, (300, 500)).astype(np.float32)  # of an empty street
    dense = np.full((300, 500), 1e-3, np.float32)
    assert np.array_equal(shown(draw_overlay(pixels, empty(300, 500), "0 people"), 300, 500), pixels)
    assert np.array_equal(shown(draw_overlay(pixels, dense, "150 people", Heat(opacity=0)), 300, 500), pixels)
    assert np.abs(shown(draw_overlay(pixels, noise, "0 people"), 300, 500) - pixels).max() <= 6
    assert np.abs(shown(draw_overlay(pixels, dense, "150 people"), 300, 500) - pixels).max(2).min() > 50


def test_with_the_same_top_the_same_density_has_the_same_colour_in_every_overlay():
    one, both = empty(300, 500), empty(300, 500)
    one[100:150, 50:100] = both[100:150, 50:100] = 1e-3
    both[100:150, 400:450] = 9e-3
    pixels = scene(300, 500)
    left = slice(0, 200)
    fixed = [shown(draw_overlay(pixels, density, "", Heat(top=100)), 300, 500)[:, left] for density in (one, both)]
    own = [shown(draw_overlay(pixels, density, ""), 300, 500)[:, left] for density in (one, both)]
    assert np.array_equal(*fixed)
    assert not np.array_equal(*own)


def test_the_given_arrays_stay_as_they_are():
    pixels, density = scene(120, 500), np.full((120, 500), 1e-3, np.float32)
    pixels.setflags(write=False)
    density.setflags(write=False)
    draw_overlay(pixels, density, "60 people")


def spots(places, people, height=600, width=800):
    """A density with this number of people around each place, as a network spreads them."""
    density = empty(height, width)
    for x, y in places:
        density[y, x] += people
    return gaussian_filter(density, 8, mode="constant")


def changed(density, heat=None):
    height, width = density.shape
    pixels = scene(height, width)
    drawn = shown(draw_overlay(pixels, density, "", heat), height, width)
    return np.abs(drawn - shown(draw_overlay(pixels, empty(height, width), ""), height, width)).max(2)


@pytest.mark.parametrize("heat", [None, Heat(top=2)])
def test_a_fraction_of_a_person_does_not_glow_and_a_person_does(heat):
    assert changed(spots([(300, 300)], 0.4), heat).max() == 0
    assert changed(spots([(100, 100), (700, 100), (400, 500)], 0.3), heat).max() == 0
    person = changed(spots([(300, 300)], 1.0), heat)
    assert person[290:310, 290:310].min() > 30
    at_the_edge = changed(spots([(8, 8)], 1.0), heat)
    assert at_the_edge[:16, :16].min() > 20


def test_a_lone_person_is_seen_beside_a_dense_crowd():
    """On the color bar of the crowd, one head is next to nothing; it is counted, so it has to look so."""
    crowd = spots([(x, y) for x in range(100, 200, 8) for y in range(80, 180, 8)], 1.0)
    assert round_top(display_density(crowd)) >= 100
    both = changed(crowd + spots([(600, 450)], 1.0))
    assert both[440:460, 590:610].min() > 30
    assert both[300:400, 300:500].max() == 0


def test_heat_is_drawn_only_on_the_given_pixels():
    inside = np.zeros((600, 800), bool)
    inside[:, 300:] = True
    density = spots([(296, 300), (304, 300), (500, 300)], 3.0)
    pixels = scene(600, 800)
    drawn = shown(draw_overlay(pixels, density, "", inside=inside), 600, 800)
    assert np.array_equal(drawn[:, :300], pixels[:, :300])
    assert np.abs(drawn - pixels)[295:305, 300:310].max(2).min() > 30


def test_the_haze_far_from_people_is_not_drawn():
    haze = np.full((600, 800), 0.3 / SQUARE**2, np.float32)
    both = changed(haze + spots([(150, 150)], 3.0))
    assert both[140:160, 140:160].min() > 30
    assert both[400:, 400:].max() == 0
    everywhere = changed(np.full((600, 800), 1.0 / SQUARE**2, np.float32))
    assert everywhere[100:500, 100:700].min() > 10


def test_people_in_a_large_image_are_looked_for_in_larger_squares():
    """The density of one person is spread over a head that is 200 pixels wide."""
    density = empty(1500, 2000)
    density[700, 1000] = 1.0
    wide = gaussian_filter(density, 60, mode="constant")
    assert clearness(wide).max() > 0.4
    assert clearness(wide[450:950, 750:1250]).max() < clearness(wide).max()


@pytest.mark.parametrize("width", [480, 1024, 1600])
def test_the_legend_is_readable_at_the_width_of_a_phone(drawn, width):
    draw_overlay(scene(400, width), empty(400, width), "216 people, ± 30")
    assert min(font.size for _, _, font in drawn) * 390 / width >= 9.5


def test_a_warning_is_a_band_between_image_and_strip(drawn):
    plain, warned = (
        draw_overlay(scene(300, 800), empty(300, 800), "3 people", None, text) for text in (None, UNFAMILIAR)
    )
    assert warned.height - plain.height == 40
    assert warned.getpixel((2, 302)) == (255, 196, 0)
    assert draw_overlay(scene(300, 800), empty(300, 800), "3 people", None, "").size == warned.size
    assert UNFAMILIAR in [text for text, _, _ in drawn]
    assert np.array_equal(np.asarray(warned)[340:], np.asarray(plain)[300:])


# ---------------------------------------------------------------- density as displayed


@pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 60), (300, 1600), (30, 3200), (90, 4800)])
def test_smoothing_for_the_eye_keeps_the_mean_density(height, width):
    density = np.random.default_rng(0).uniform(0, 2e-3, (height, width)).astype(np.float32)
    displayed = display_density(density)
    assert displayed.shape[1] <= WIDEST
    assert displayed.mean(dtype=float) == pytest.approx(SQUARE**2 * density.mean(dtype=float), rel=1e-4)


@pytest.mark.parametrize(("height", "width"), [(31, 1601), (7, 3333), (1, 5000)])
def test_sides_that_are_no_multiple_of_a_block_keep_it_nearly(height, width):
    density = np.random.default_rng(0).uniform(0, 2e-3, (height, width)).astype(np.float32)
    displayed = display_density(density)
    assert displayed.shape[1] <= WIDEST
    assert displayed.mean(dtype=float) == pytest.approx(SQUARE**2 * density.mean(dtype=float), rel=0.05)
    even = display_density(np.full((height, width), 1e-3, np.float32))
    assert np.allclose(even, 10, rtol=1e-4)  # also at the edges


@pytest.mark.parametrize(
    ("highest", "top"),
    [(0, 2), (0.3, 2), (2, 2), (2.01, 5), (5, 5), (5.1, 10), (10, 10), (11, 20), (99, 100), (1000, 1000), (1001, 2000)],
)
def test_the_bar_ends_at_the_next_round_number(highest, top):
    assert round_top(np.array([[0, highest]], np.float32)) == top


@given(st.floats(0, 2.0**40, width=32))
def test_the_bar_ends_above_the_highest_value_and_not_far_above(highest):
    top = round_top(np.array([highest], np.float32))
    assert highest <= top * (1 + 1e-6)
    assert top <= max(2, 2.5 * highest * (1 + 1e-6))
    assert f"{top:e}"[0] in "125"


# ---------------------------------------------------------------- the strip


@pytest.fixture
def drawn(monkeypatch):
    """Text that was drawn, with its box and its font."""
    texts: list[tuple[str, tuple[float, ...], ImageFont.FreeTypeFont]] = []
    draw_text = ImageDraw.ImageDraw.text

    def watched(self, xy, text, *arguments, font, anchor="la", **options):
        texts.append((text, self.textbbox(xy, text, font=font, anchor=anchor), font))
        draw_text(self, xy, text, *arguments, font=font, anchor=anchor, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", watched)
    return texts


@pytest.mark.parametrize("top", [0.0025, 500, 1e5, 1234.5, None])
@pytest.mark.parametrize("label", ["0 people", "1 person", "12,345 people", "1,234,567 people"])
@pytest.mark.parametrize("width", [480, 640, 1024, 1600])
def test_texts_are_whole_and_touch_neither_each_other_nor_the_bar_nor_the_edge(drawn, width, label, top):
    strip = np.asarray(draw_overlay(scene(40, width), empty(40, width), label, Heat(top=top)))[40:].astype(int)
    texts = [text for text, _, _ in drawn]
    assert texts[0] == "0"
    assert float(texts[1].replace(",", "")) == (top or 2)
    assert texts[2:] == ["people per 100 x 100 px", label]
    saturated = np.argwhere((strip.max(2) - strip.min(2)) > 40)  # the bar
    (upper, left), (lower, right) = saturated.min(0), saturated.max(0) + 1
    boxes = [*(box for _, box, _ in drawn), (left, upper, right, lower)]
    for first, second in itertools.combinations(boxes, 2):
        apart = max(second[0] - first[2], first[0] - second[2], second[1] - first[3], first[1] - second[3])
        assert apart >= 2, (first, second)
    for box in boxes:
        assert min(box[0], box[1], width - box[2], len(strip) - box[3]) >= 5, box
    assert all(font.size >= 12 for _, _, font in drawn)


@pytest.mark.parametrize("width", [480, 1600])
@pytest.mark.parametrize("label", ["a label that is much longer than any number of people " * 4, "W" * 300, "." * 300])
def test_a_label_that_is_too_long_is_cut_before_the_bar(drawn, width, label):
    draw_overlay(scene(40, width), empty(40, width), label)
    *others, (text, box, _) = drawn
    assert text.endswith("...")
    assert label.startswith(text.removesuffix("..."))
    assert box[2] < min(other[0] for _, other, _ in others)
    assert box[2] > 0.3 * width


def test_the_font_has_all_that_is_written(drawn):
    draw_overlay(scene(40, 480), empty(40, 480), "1,234,567,890 people, 1 person, ± 24" * 9, Heat(top=1.5e-7))
    font = ImageFont.load_default(20)
    lacking = bytes(font.getmask("\uffff"))
    for character in {character for text, _, _ in drawn for character in text} - {" "}:
        assert bytes(font.getmask(character)) != lacking, character


def test_the_bar_is_halfway_down_the_strip_and_the_label_beside_it(drawn):
    for width in (480, 1024, 1600):
        drawn.clear()
        strip = np.asarray(draw_overlay(scene(40, width), empty(40, width), "123 people"))[40:].astype(int)
        inked = np.flatnonzero((strip[:, width // 2 :] < 200).any((1, 2)))
        assert abs(inked[0] - (len(strip) - 1 - inked[-1])) <= max(6, len(strip) // 20)
        _, box, _ = drawn[-1]
        assert abs((box[1] + box[3]) / 2 - len(strip) / 2) <= max(6, len(strip) // 20)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 people"),
        (-0.3, "0 people"),
        (0.49, "0 people"),
        (0.51, "1 person"),
        (1.4, "1 person"),
        (1.6, "2 people"),
        (1234567.2, "1,234,567 people"),
    ],
)
def test_a_count_in_words(count, words):
    assert people(count) == words
