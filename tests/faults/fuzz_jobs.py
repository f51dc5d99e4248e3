"""Readers fed with damaged files, in a process that is watched: what they raise, how long and how large they get."""

import base64
import json
import random
import resource
import signal
import struct
from pathlib import Path

#: Seconds for one file, and bytes beyond what the process has when it begins.
SECONDS, MEMORY = 10, 2**30
TOKENS = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"null", b"true", b"99999999999999999999"),
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"'", b"\n", b"\r\n", b"-" * 100, b"01" * 100),
    *(b"\\u0000", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"..", b"/etc/passwd", b"../"),
    *(b"!!python/name:os.system", b"&a", b"*a", b"<<: *a", b"[" * 3000, b'{"a":' * 3000, b"- " * 3000),
)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


class TooLong(BaseException):
    """A reader hangs."""


def damaged(seeds, draws):
    """One of some good files, changed in one to four places."""
    content = bytearray(draws.choice(seeds))
    for _ in range(draws.randint(1, 4)):
        size = len(content)
        at = draws.randrange(size + 1)
        end = min(size, at + draws.choice((1, 2, 4, 8, 16, 64, 1024)))
        change = draws.randrange(9)
        if change == 0 and size:
            content[at % size] ^= 1 << draws.randrange(8)
        elif change == 1 and size:
            content[at % size] = draws.choice((0, 1, 127, 128, 255, draws.randrange(256)))
        elif change == 2:
            del content[at:end]
        elif change == 3:
            content[at:at] = content[at:end] * draws.choice((1, 2, 50))
        elif change == 4:
            del content[at:]
        elif change == 5:
            content[at:at] = draws.randbytes(draws.choice((1, 4, 100)))
        elif change == 6:
            content[at:at] = draws.choice(TOKENS)
        elif change == 7:
            number = draws.choice(NUMBERS)
            form = draws.choice("<>") + draws.choice("HIQ")
            packed = struct.pack(form, number % 2 ** (8 * struct.calcsize(form)))
            content[at : at + len(packed)] = packed
        else:
            other = draws.choice(seeds)
            content[at:] = other[draws.randrange(len(other) + 1) :]
    return bytes(content)


def whole(text):
    """Bytes as text, whatever they are."""
    return text.decode("utf-8", "replace")


def _scheme(path):
    from ean_core.scheme import ConnectionScheme

    text = whole(path.read_bytes())
    ConnectionScheme.parse(text)
    ConnectionScheme.parse(text, (3, 4, 6, 3))


def _settings(path):
    from ean_core.runs.settings import read_settings

    read_settings(whole(path.read_bytes()))


def _config(path):
    from ean_core.common.config import load_config

    load_config(str(path))


def _mat(path):
    from tasks.crowd_counting.annotations import read_mat

    read_mat(path)


def _mask(path):
    from tasks.segmentation.voc import read_mask

    read_mask(path)


def _hdf5(path):
    from tasks.crowd_counting.prepared_file import read_prepared

    read_prepared(path, (slice(0, 64), slice(0, 64)))


def _picture(path):
    from ean_core.data.images import read_image

    read_image(path, max_pixels=20_000_000)


def _points(path):
    from PIL import Image

    from tasks.crowd_counting.formats import Pictures, read_annotations

    image = path.with_suffix(".png")  # which annotations of one image belong to
    if not image.exists():
        Image.new("L", (4, 4)).save(image)
    read_annotations(path, Pictures(path.parent))


def _index(path):
    import shutil

    from zoo.index import Index

    root = path.parent / "index"
    (root / "metafiles").mkdir(parents=True, exist_ok=True)
    (root / "model-index.yml").write_text("Import: [metafiles/a.yml]\n")
    shutil.copy(path, root / "metafiles/a.yml")
    _ = Index(root).entries
    shutil.copy(path, root / "model-index.yml")
    _ = Index(root).entries


def _ledger(path):
    from ean_core.report.search import read_search
    from ean_core.search.ledger import Ledger

    try:
        read_search(path)
    finally:
        with Ledger(path, {"weights": "x", "stages": [2, 2]}):
            pass


def _weights(path):
    from ean_core.weights.files import read_state_dict
    from tasks.trained import load_network

    read_state_dict(path)
    load_network(str(path))


def _record(path):
    from ean_core.common.record import read_record
    from ean_core.report.records import read_records

    read_records([path.parent], lambda where, reason: None)
    read_record(path)


def _manifest(path):
    import shutil

    from tasks.crowd_counting.prepare import read_manifest

    folder = path.parent / "prepared"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "manifest.json")
    read_manifest(folder)


def _block_times(path):
    from ean_core.inference.latency import BlockTimes

    BlockTimes.load(path)


#: By name: the reader, and whether its errors name the file; others are named by who calls them.
READERS = {
    "scheme": (_scheme, False),
    "settings": (_settings, False),
    "config": (_config, True),
    "mat": (_mat, True),
    "mask": (_mask, False),
    "hdf5": (_hdf5, True),
    "picture": (_picture, True),
    "points": (_points, True),
    "index": (_index, "index"),
    "ledger": (_ledger, True),
    "weights": (_weights, True),
    "record": (_record, True),
    "manifest": (_manifest, "manifest.json"),
    "block times": (_block_times, True),
}


def fuzz(reader, seeds, number, seed, folder, out):
    """Feed a reader with so many damaged files, and write down what it does that it must not.

    Args:
        reader: of :data:`READERS`.
        seeds: good files of one suffix.
        number: of cases.
        seed: of the damage.
        folder: to write into.
        out: file of the JSON of all faults, and of how many raised.
    """
    read, named = READERS[reader]
    contents = [path.read_bytes() for path in seeds]
    path = Path(folder) / f"damaged{seeds[0].suffix}"
    draws = random.Random(seed)
    refused = 0
    for content in contents:  # imports take memory, too
        path.write_bytes(content)
        refused += judge(read, path, named)[0]
    assert refused < len(contents), "not one of the good files is taken"
    with Path("/proc/self/statm").open() as file:
        have = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, have + MEMORY))
    faults, raised = [], 0
    for case in range(number):
        content = damaged(contents, draws)
        path.write_bytes(content)
        (Path(folder) / "last").write_bytes(content)  # if the process does not survive it
        said, fault = judge(read, path, named)
        raised += said
        if fault:
            faults.append({"case": case, "fault": fault, "content": base64.b64encode(content[:20_000]).decode()})
    Path(out).write_text(json.dumps({"raised": raised, "faults": faults}))


def judge(read, path, named):
    """Whether a reader refused a file, and what is wrong with how it did."""

    def stop(number, frame):
        raise TooLong

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        read(path)
    except (ValueError, OSError, ImportError) as error:
        name = path.name if named is True else named
        if isinstance(error, UnicodeError) or (name and name not in str(error)):
            return True, f"does not name the file: {type(error).__name__}: {str(error)[:300]}"
        return True, None
    except TooLong:
        return True, f"takes more than {SECONDS} s"
    except MemoryError:
        return True, "takes too much memory"
    except Exception as error:  # whatever comes from deep inside
        return True, f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
    return False, None
