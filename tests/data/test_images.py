import io
import resource
import struct
import sys
import types
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import EpsImagePlugin, ExifTags, Image, PngImagePlugin

from ean_core.data.images import (
    BOUNDED_FORMATS,
    MAX_SCANS,
    SUFFIXES,
    Frame,
    UnreadableImageError,
    as_rgb,
    open_image,
    pixels_of,
    read_image,
    stored_frame,
    to_rgb,
)

#: Where a stored picture's first row and first column are seen, by its orientation, as EXIF defines it.
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
KINDS = ("jpg", "png", "bmp", "gif", "tif", "webp", "ppm", "pgm", "jp2")
#: Of saving, so that flat colours stay what they are.
FAITHFUL = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}


def blocks():
    """Six colours in squares of 16 pixels, two rows of three: no turn of it looks like another."""
    colours = [[(220, 30, 30), (30, 200, 40), (40, 60, 210)], [(230, 220, 40), (20, 20, 20), (240, 240, 240)]]
    return np.array(colours, np.uint8).repeat(16, 0).repeat(16, 1)


def noise(height=24, width=36, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def upright(stored, orientation):
    row, column = ORIENTATIONS[orientation]
    if row in ("left", "right"):
        stored = stored.transpose(1, 0, 2)
    stored = stored[::-1] if "bottom" in (row, column) else stored
    return stored[:, ::-1] if "right" in (row, column) else stored


def exif(orientation):
    """As cameras write it: with texts, fractions, and parts of their own."""
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x011A], tags[0x0132] = orientation, "Maker", 72.0, "2020:01:01 00:00:00"
    place = tags.get_ifd(0x8825)
    place[1], place[2] = "N", (1.0, 2.0, 3.0)
    shot = tags.get_ifd(0x8769)
    shot[0x9286], shot[0x829A] = b"comment", 0.01
    return tags


def png(width, height, bits=8, colour=2, data=b"", chunks=()):
    """A PNG of which the header may claim anything."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    written = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def close(found, expected, within):
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= within


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_a_picture_is_turned_as_its_orientation_says(tmp_path, kind, orientation):
    path = tmp_path / f"turned.{kind}"
    Image.fromarray(blocks()).save(path, exif=exif(orientation), **FAITHFUL.get(kind, {}))
    close(read_image(path), upright(blocks(), orientation), within=6 if kind == "jpg" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(tmp_path, orientation):
    Image.fromarray(blocks()).save(tmp_path / "a.png", exif=exif(orientation))
    close(read_image(tmp_path / "a.png"), blocks(), within=0)


def test_a_wide_picture_is_turned_too(tmp_path):
    grey = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9000
    Image.fromarray(grey).save(tmp_path / "a.png", exif=exif(6))
    close(read_image(tmp_path / "a.png")[:, :, 0], np.rot90(grey >> 8, -1), within=0)


def test_damaged_metadata_make_no_picture_unreadable_and_warn_of_nothing():
    stored = io.BytesIO()
    Image.fromarray(blocks()).save(stored, "JPEG", exif=exif(6), quality=95, subsampling=0)
    content = stored.getvalue()
    start = content.index(b"Exif\0\0")
    end = start - 2 + struct.unpack(">H", content[start - 2 : start])[0]
    turned, as_stored = upright(blocks(), 6), blocks()
    shapes = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for position in range(start + 6, end):
            for value in (0, 10, 30, 85, 110, 255):
                damaged = content[:position] + bytes([value]) + content[position + 1 :]
                pixels = read_image(io.BytesIO(damaged))
                if pixels.shape in (turned.shape, as_stored.shape):
                    shapes.add(pixels.shape)
                else:
                    pytest.fail(f"{value} at {position - start} gave the shape {pixels.shape}")
    assert shapes == {turned.shape, as_stored.shape}


# ---------------------------------------------------------------- kinds of pictures


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(blocks()).save(path, **FAITHFUL.get(kind, {}))
    found = read_image(path)
    close(found, blocks(), within=6 if kind == "jpg" else 0)
    assert found.flags.writeable
    assert found.flags.c_contiguous


def test_grey_black_and_white_and_palettes_become_rgb(tmp_path):
    image = Image.fromarray(noise())
    grey = np.asarray(image.convert("L"))
    image.convert("L").save(tmp_path / "grey.png")
    close(read_image(tmp_path / "grey.png"), grey[:, :, None].repeat(3, 2), within=0)
    black = grey > 127
    Image.fromarray(black).save(tmp_path / "bits.png")
    close(read_image(tmp_path / "bits.png"), (black * 255)[:, :, None].repeat(3, 2), within=0)
    Image.fromarray(blocks()).quantize(8).save(tmp_path / "palette.png")
    close(read_image(tmp_path / "palette.png"), blocks(), within=0)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_becomes_white_by_degrees(tmp_path, mode):
    image = Image.fromarray(noise()).convert(mode)
    alpha = np.tile(np.linspace(0, 255, 36).round().astype(np.uint8), (24, 1))
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "a.png")
    share = alpha[:, :, None] / 255
    colours = np.asarray(image.convert("RGBA"))[:, :, :3]
    expected = np.rint(colours * share + 255 * (1 - share))
    close(read_image(tmp_path / "a.png"), expected, within=1)


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_transparent_entry_of_a_palette_becomes_white(tmp_path, kind):
    palette = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8))
    palette.putpalette([10, 20, 30, 200, 100, 50, 0, 250, 0])
    palette.save(tmp_path / f"a.{kind}", transparency=0)
    expected = [[[255, 255, 255], [200, 100, 50]], [[0, 250, 0], [255, 255, 255]]]
    close(read_image(tmp_path / f"a.{kind}"), np.array(expected), within=0)


def test_a_transparent_colour_becomes_white(tmp_path):
    rows = b"\0" + bytes([9, 9, 9, 50, 60, 70])
    (tmp_path / "rgb.png").write_bytes(png(2, 1, data=rows, chunks=[(b"tRNS", struct.pack(">HHH", 50, 60, 70))]))
    close(read_image(tmp_path / "rgb.png"), np.array([[[9, 9, 9], [255, 255, 255]]]), within=0)
    (tmp_path / "grey.png").write_bytes(
        png(2, 1, colour=0, data=b"\0\x09\x32", chunks=[(b"tRNS", struct.pack(">H", 0x32))])
    )
    close(read_image(tmp_path / "grey.png"), np.array([[[9, 9, 9], [255, 255, 255]]]), within=0)


def test_cmyk_is_converted(tmp_path):
    inks = np.array([[[0, 0, 0, 0], [0, 255, 255, 0]], [[255, 0, 255, 0], [0, 0, 0, 255]]], np.uint8)
    inks = inks.repeat(16, 0).repeat(16, 1)
    colours = np.array([[[255, 255, 255], [255, 0, 0]], [[0, 255, 0], [0, 0, 0]]], np.uint8)
    Image.frombytes("CMYK", (32, 32), inks.tobytes()).save(tmp_path / "a.jpg", quality=95)
    Image.frombytes("CMYK", (32, 32), inks.tobytes()).save(tmp_path / "a.tif")
    for name in ("a.jpg", "a.tif"):
        close(read_image(tmp_path / name), colours.repeat(16, 0).repeat(16, 1), within=4)


def test_the_jpegs_of_printers_with_luminance_and_chroma_are_converted(tmp_path):
    """Photoshop's CMYK: inverted, the colours as YCbCr, which the Adobe marker says. Pillow does not write it."""
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    colours = colours.repeat(16, 0).repeat(16, 1)
    ycc = np.asarray(Image.fromarray(255 - colours).convert("YCbCr"))
    ycck = np.concatenate([ycc, np.full((32, 32, 1), 255, np.uint8)], 2)  # 255: no black, for it is inverted
    path = tmp_path / "a.jpg"
    # Pillow inverts what it writes.
    Image.frombytes("CMYK", (32, 32), (255 - ycck).tobytes()).save(path, quality=95, subsampling=0)
    content = bytearray(path.read_bytes())
    content[content.index(b"Adobe") + 11] = 2
    path.write_bytes(content)
    close(read_image(path), colours, within=6)


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize(("values", "expected"), [((0, 128, 32768, 65535), (0, 0, 128, 255)), ((0, 1, 128, 255),) * 2])
def test_sixteen_bits_of_grey_become_eight_unless_eight_are_all_that_is_used(tmp_path, kind, values, expected):
    Image.fromarray(np.array([values], np.uint16)).save(tmp_path / f"a.{kind}")
    with Image.open(tmp_path / f"a.{kind}") as image:
        assert image.mode == "I;16"
    close(read_image(tmp_path / f"a.{kind}"), np.array([expected])[:, :, None].repeat(3, 2), within=0)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bits_of_colour_become_eight(tmp_path, kind):
    wide = np.random.default_rng(0).integers(0, 65536, (8, 12, 3), dtype=np.uint16)
    assert cv2.imwrite(str(tmp_path / f"a.{kind}"), wide[:, :, ::-1])
    close(read_image(tmp_path / f"a.{kind}"), wide >> 8, within=0)


def test_whole_numbers_of_32_bits_are_as_of_16(tmp_path):
    Image.fromarray(np.array([[-5, 0, 256, 65535, 10**6]], np.int32)).save(tmp_path / "a.tif")
    close(read_image(tmp_path / "a.tif")[0, :, 0], np.array([0, 0, 1, 255, 255]), within=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 0.5, 1), (0, 128, 255)),
        ((-1, 100, 255), (0, 100, 255)),
        ((0, 1000, 2000), (0, 128, 255)),
        ((np.nan, 0.2, 1), (0, 51, 255)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_fractions_are_of_1_or_of_255_or_of_the_highest(tmp_path, values, expected):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    close(read_image(tmp_path / "a.tif")[0, :, 1], np.array(expected), within=0)


@pytest.mark.parametrize("kind", ["gif", "webp", "tif", "png"])
def test_of_several_frames_the_first_counts(tmp_path, kind):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {} if kind == "tif" else {"duration": 50}
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], **options, **FAITHFUL.get(kind, {}))
    close(read_image(tmp_path / f"a.{kind}"), np.full((10, 20, 3), (200, 0, 0)), within=0)


def test_a_progressive_jpeg_is_the_same_picture(tmp_path):
    for progressive in (False, True):
        Image.fromarray(noise()).save(tmp_path / f"{progressive}.jpg", progressive=progressive)
    assert b"\xff\xc2" in (tmp_path / "True.jpg").read_bytes()
    close(read_image(tmp_path / "True.jpg"), read_image(tmp_path / "False.jpg"), within=0)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "La", "I;16"],
)
def test_an_image_of_any_mode_becomes_rgb_and_is_left_as_it_was(mode):
    image = Image.new("RGB", (5, 4)).convert("LA").convert("La") if mode == "La" else Image.new(mode, (5, 4))
    image.getexif()[0x0112] = 6
    found = to_rgb(image)
    assert (found.mode, found.size) == ("RGB", (4, 5))
    assert (image.mode, image.size, image.getexif()[0x0112]) == (mode, (5, 4), 6)


def test_an_open_file_is_read_and_stays_open(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        close(read_image(file), blocks(), within=0)
        assert not file.closed
    with pytest.raises(ValueError, match=r"^the image cannot be read as an image: "):
        read_image(io.BytesIO(b"no picture"))


# ---------------------------------------------------------------- what is no picture


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.005, 0.1, 0.5, 0.9])
def test_a_cut_off_file_is_refused_by_name(tmp_path, kind, share):
    path = tmp_path / f"cut.{kind}"
    Image.fromarray(noise(80, 120)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError) as refused:
        read_image(path)
    assert str(refused.value).startswith(f"{path} cannot be read as an image: ")


def test_a_progressive_jpeg_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(noise(80, 120)).save(path, progressive=True)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut\.jpg cannot be read as an image: "):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"Dear all,\nthis is no picture.\n" * 100, b"\xff\xd8", bytes(5000)])
def test_what_is_no_picture_is_refused_by_name(tmp_path, content):
    path = tmp_path / "text.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refused:
        read_image(path)
    assert str(refused.value).startswith(f"{path} cannot be read as an image: ")
    assert str(refused.value).count("text.jpg") == 1


def test_a_folder_and_a_missing_file_are_refused_by_name(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ValueError, match=r"^/.*/folder\.jpg cannot be read as an image: "):
        read_image(tmp_path / "folder.jpg")
    with pytest.raises(FileNotFoundError, match=r"^/.*/missing\.jpg does not exist"):
        read_image(tmp_path / "missing.jpg")


def test_a_picture_without_a_pixel_is_refused(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "a.bmp")
    flat = bytearray((tmp_path / "a.bmp").read_bytes())
    flat[18:22] = bytes(4)
    gif = b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\x02\x02\x4c\x01\x00;"
    for name, content in (("a.bmp", flat), ("a.png", png(0, 5)), ("a.ppm", b"P6 0 5 255\n"), ("a.gif", gif)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name)


def test_postscript_is_refused_and_no_program_is_started_for_it(tmp_path, monkeypatch):
    program, trace = tmp_path / "gs", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(program))
    Image.fromarray(blocks()).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read as an image: its format is unknown"):
        read_image(tmp_path / "a.jpg")
    assert not trace.exists()


# ---------------------------------------------------------------- limits


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(50_000, 50_000, data=b"\0"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"bomb\.png .*50000 x 50000 are 2500\.0 million pixels, more than .* 500\.0"):
        read_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB, of at least 7,500,000


def test_the_limit_is_the_last_number_of_pixels_that_is_read(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise(8, 12)).save(path)
    close(read_image(path, max_pixels=96), noise(8, 12), within=0)
    with pytest.raises(ValueError, match=r"^/.*a\.png .*12 x 8 are "):
        read_image(path, max_pixels=95)


@pytest.mark.parametrize("kind", KINDS)
def test_pillows_limit_is_neither_obeyed_nor_changed(tmp_path, monkeypatch, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(noise()).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert read_image(path).shape == (24, 36, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(ValueError, match="more than the limit"):
        read_image(path, max_pixels=800)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="cannot be read"):
        read_image(path)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_pillows_limit_stays_for_others_while_usual_pictures_are_read(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(noise()).save(path)
    seen = []
    opened = Image.open

    def watched(*arguments, **options):
        seen.append(Image.MAX_IMAGE_PIXELS)
        return opened(*arguments, **options)

    monkeypatch.setattr(Image, "open", watched)
    read_image(path)
    assert seen == [Image.MAX_IMAGE_PIXELS]


def test_threads_change_neither_pillows_limit_nor_the_filters_of_warnings(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    paths: list[Path] = []
    for number in range(8):
        paths.append(tmp_path / f"{number}.{KINDS[number]}")
        Image.fromarray(noise(24 + 30 * (number % 2), 36)).save(paths[-1])
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        shapes = list(threads.map(lambda path: read_image(path).shape, paths * 50))
    assert shapes == [(24, 36, 3), (54, 36, 3)] * 200
    assert Image.MAX_IMAGE_PIXELS == 1000
    assert warnings.filters == filters


@pytest.mark.parametrize("transparent", [500, 0, None])
def test_a_transparent_value_of_16_bits_is_white(tmp_path, transparent):
    values = [0, 500, 60000]
    options = {} if transparent is None else {"transparency": transparent}
    Image.fromarray(np.array([values], np.uint16)).save(tmp_path / "a.png", **options)
    expected = [255 if value == transparent else value >> 8 for value in values]
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == expected


# ---------------------------------------------------------------- one reader for all


def test_every_failure_is_one_error_that_names_the_file(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(noise()).save(path)
    path.write_bytes(path.read_bytes()[:200])
    for read in (open_image, read_image, as_rgb, pixels_of):
        with pytest.raises(UnreadableImageError, match=r"^/.*/cut\.png cannot be read as an image: "):
            read(path)
    with Image.open(path) as opened, pytest.raises(UnreadableImageError, match=r"^/.*/cut\.png cannot be read"):
        as_rgb(opened)  # opened by the caller; Pillow reads the pixels now


def test_what_was_turned_once_is_not_turned_again(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "a.png", exif=exif(6))
    close(pixels_of(open_image(tmp_path / "a.png")), upright(blocks(), 6), within=0)


@pytest.mark.parametrize("form", [str, Path, Image.open, read_image])
def test_an_image_in_any_form_gives_the_same_pixels(tmp_path, form):
    Image.fromarray(blocks()).save(tmp_path / "a.png", exif=exif(8))
    image = form(str(tmp_path / "a.png"))
    assert np.array_equal(as_rgb(image), upright(blocks(), 8))
    assert np.array_equal(pixels_of(image), upright(blocks(), 8))


@pytest.mark.parametrize("image", [np.zeros((0, 4, 3), np.uint8), Image.new("L", (4, 0))])
def test_an_image_needs_a_pixel(image):
    for read in (as_rgb, pixels_of):
        with pytest.raises(ValueError, match="at least one pixel, got 4 x 0"):
            read(image)


@pytest.mark.parametrize("image", [None, 3, np.zeros((4, 4), np.float32), np.zeros((3, 4, 4), np.uint8)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=r"expected .*, got "):
        as_rgb(image)


# ---------------------------------------------------------------- files that take long


def jpeg_of_scans(number, gap=b""):
    """A progressive JPEG with further scans, which may be empty: the decoder visits all blocks for each."""
    content = io.BytesIO()
    Image.new("L", (64, 64), 100).save(content, "JPEG", progressive=True)
    start = content.getvalue().removesuffix(b"\xff\xd9")
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + gap
    return start + scan * (number - start.count(b"\xff\xda")) + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_of_scans(MAX_SCANS + 1))
    with pytest.raises(ValueError, match=f"a.jpg cannot be read as an image: it has more than {MAX_SCANS} scans"):
        read_image(path)
    path.write_bytes(jpeg_of_scans(MAX_SCANS + 1, gap=b"\xff\xff\xff"))
    with pytest.raises(ValueError, match="scans"):
        read_image(path)


def test_scans_of_other_images_in_the_file_do_not_count(tmp_path):
    """Phones append videos, and put previews into segments."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    scans = b"\xff\xda" * 2 * MAX_SCANS
    preview = b"\xff\xe5" + (len(scans) + 2).to_bytes(2, "big") + scans
    (tmp_path / "b.jpg").write_bytes(content[:2] + preview + content[2:] + scans)
    assert read_image(tmp_path / "b.jpg").shape == (64, 64, 3)


def test_formats_whose_decoders_are_not_bounded_can_be_left_out(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jp2")
    assert read_image(tmp_path / "a.jp2").shape == (64, 64, 3)
    with pytest.raises(ValueError, match="its format is unknown"):
        read_image(tmp_path / "a.jp2", formats=BOUNDED_FORMATS)


def heif(path):
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    return path


def without(*formats):
    """Pillow's formats, without these."""
    Image.init()
    return {name: value for name, value in Image.OPEN.items() if name not in formats}


def test_a_format_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(
        Image, "OPEN", {name: value for name, value in Image.OPEN.items() if name not in ("HEIF", "AVIF")}
    )
    with pytest.raises(UnreadableImageError, match=r"a\.heic .* HEIF; `pip install pillow-heif` makes it readable, or"):
        read_image(heif(tmp_path / "a.heic"))
    with heif(tmp_path / "a.heic").open("rb") as file, pytest.raises(UnreadableImageError, match="pillow-heif"):
        read_image(file)
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x18ftypavif" + bytes(100))
    with pytest.raises(UnreadableImageError, match="AVIF; `pip install -U pillow` installs a build that reads it"):
        read_image(tmp_path / "a.avif")


def test_pillow_heif_is_used_where_it_is_installed(tmp_path, monkeypatch):
    class Plugin(PngImagePlugin.PngImageFile):
        format = "HEIF"

    module = types.ModuleType("pillow_heif")
    module.register_heif_opener = lambda: Image.register_open("HEIF", Plugin)
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(
        Image, "OPEN", {name: value for name, value in Image.OPEN.items() if name not in ("HEIF", "PNG")}
    )
    monkeypatch.setattr(Image, "ID", [*Image.ID])
    Image.new("RGB", (5, 4), "red").save(tmp_path / "a.heic", "PNG")
    assert read_image(tmp_path / "a.heic").shape == (4, 5, 3)


def test_heif_is_not_a_bounded_format(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"it is in the format HEIF; save it as JPEG$"):
        read_image(heif(tmp_path / "a.heic"), formats=BOUNDED_FORMATS)


def test_avif_is_read(tmp_path):
    Image.init()
    if "AVIF" not in Image.SAVE:
        pytest.skip("this build of Pillow cannot write AVIF")
    Image.new("RGB", (9, 4), "red").save(tmp_path / "a.avif")
    assert read_image(tmp_path / "a.avif").shape == (4, 9, 3)
    assert ".avif" in SUFFIXES


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_stored_frame_turns_points_as_the_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = np.zeros((4, 7), np.uint8)
    pixels[3, 1] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    frame = stored_frame(tmp_path / "a.png")
    assert frame == Frame(7, 4, orientation)
    upright = read_image(tmp_path / "a.png")
    assert upright.shape[:2] == frame.upright[::-1]
    for point in ([1.0, 3.0], [1.99, 3.99]):
        x, y = np.floor(frame.turned(np.array([point]))).astype(int)[0]
        assert upright[y, x].tolist() == [255] * 3
