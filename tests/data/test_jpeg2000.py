import io
import resource
import struct

import numpy as np
import pytest
from PIL import Image

from ean_core.data.images import read_image

SIDE = 1000


def encoded(size=(320, 240), **options):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG2000", **options)
    return file.getvalue()


def segment(mark, content):
    return b"\xff" + mark + struct.pack(">H", len(content) + 2) + content


def style(precinct, layers=1, component=None):
    """Coding style with one resolution: COD, or COC of a component."""
    precincts = b"" if precinct is None else bytes([precinct])
    rest = b"\0\x04\x04\0\x01" + precincts
    if component is not None:
        return segment(b"\x53", bytes([component, len(precincts)]) + rest)
    return segment(b"\x52", struct.pack(">BBHB", len(precincts), 0, layers, 0) + rest)


def crafted(*styles, tile=(SIDE, SIDE), in_tile=b""):
    """A codestream of a million pixels and a hundred bytes."""
    sizes = struct.pack(">HIIIIIIIIH", 0, SIDE, SIDE, 0, 0, *tile, 0, 0, 3) + b"\x07\x01\x01" * 3
    head = b"\xff\x4f" + segment(b"\x51", sizes) + b"".join(styles) + segment(b"\x5c", b"\x40\x40")
    part = in_tile + b"\xff\x93" + b"\x80" * 10
    return head + b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 12 + len(part), 0, 1) + part + b"\xff\xd9"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"no_jp2": True},
        {"tile_size": (64, 64)},
        {"precinct_size": (128, 128), "codeblock_size": (32, 32), "progression": "RPCL"},
        {"quality_layers": [80, 40, 20, 10], "quality_mode": "rates", "irreversible": True},
        {"num_resolutions": 1},
    ],
)
@pytest.mark.parametrize("size", [(3, 5), (321, 240)])
def test_usual_files_are_read(tmp_path, options, size):
    (tmp_path / "a.jp2").write_bytes(encoded(size, **options))
    assert read_image(tmp_path / "a.jp2").shape == (size[1], size[0], 3)


USUAL, TINY = style(None), style(0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (crafted(TINY), "parts, too many for its size; save it as JPEG"),
        (crafted(USUAL, style(0, component=1)), "parts, too many"),
        (crafted(USUAL, in_tile=TINY), "parts, too many"),
        (crafted(USUAL, segment(b"\x80", TINY)), "header is damaged"),  # OpenJPEG would find it there
        (crafted(USUAL, tile=(4, 4)), "parts, too many"),
        (crafted(style(None, 65535), tile=(100, 100)), "65,535 layers"),
        (crafted(USUAL, tile=(0, 4)), "header is damaged"),
    ],
)
def test_a_file_of_needlessly_many_parts_is_refused_before_it_takes_memory(tmp_path, content, message):
    (tmp_path / "a.jp2").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"a\.jp2 cannot be read as an image: .*{message}"):
        read_image(tmp_path / "a.jp2")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("plain", [True, False])
def test_a_gigapixel_is_refused_by_its_header(tmp_path, plain):
    content = bytearray(encoded((64, 64), no_jp2=plain))
    struct.pack_into(">II", content, content.find(b"\xff\x51") + 6, 40_000, 40_000)
    if not plain:
        struct.pack_into(">II", content, content.find(b"ihdr") + 4, 40_000, 40_000)
    (tmp_path / "a.jp2").write_bytes(content)
    with pytest.raises(ValueError, match=r"40000 x 40000 are 1600\.0 million pixels, more than the limit"):
        read_image(tmp_path / "a.jp2")


def test_a_header_that_states_fewer_pixels_than_the_codestream_is_refused(tmp_path):
    content = bytearray(encoded((64, 64)))
    struct.pack_into(">II", content, content.find(b"\xff\x51") + 6, 30_000, 30_000)
    (tmp_path / "a.jp2").write_bytes(content)
    with pytest.raises(ValueError, match="it states 64 x 64 pixels, but its codestream has 30000 x 30000"):
        read_image(tmp_path / "a.jp2")


@pytest.mark.parametrize("plain", [True, False])
def test_a_file_cut_anywhere_in_its_headers_is_refused_by_name(tmp_path, plain):
    content = encoded((16, 16), no_jp2=plain)
    for length in range(content.find(b"\xff\x93")):
        (tmp_path / "a.jp2").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.jp2 cannot be read as an image"):
            read_image(tmp_path / "a.jp2")
