"""MATLAB's files of version 7.3, which are HDF5, written as MATLAB writes them."""

import zlib

import h5py
import numpy as np
import pytest

from tasks.matlab import ARRAYS, MOST, read_matlab

from .crowd_counting.annotated import save_v73


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.mat"


def test_numbers_cells_and_structures_are_those_of_version_7(path):
    points = np.arange(40.0).reshape(20, 2)
    save_v73(path, {"points": points, "info": {"cells": [points[:1], np.zeros((0, 2)), "text"]}, "n": np.ones((1, 1))})
    found = read_matlab(path)
    assert list(found) == ["info", "n", "points"]
    np.testing.assert_array_equal(found["points"], points)
    (info,) = found["info"]
    np.testing.assert_array_equal(info["cells"][0], points[:1])
    assert info["cells"][1].shape == (0, 2)
    assert info["cells"][2] is None


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}])
@pytest.mark.parametrize("chunks", [(1, 7), (2, 30), (2, 64)])
def test_blocks_are_put_together(path, options, chunks):
    values = np.random.default_rng(0).uniform(0, 9, (64, 2))
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("a", data=values.T, chunks=chunks, **options)
    np.testing.assert_array_equal(read_matlab(path)["a"], values)


@pytest.mark.parametrize("kind", ["soft", "external", "storage", "virtual"])
def test_nothing_is_read_from_other_files(path, tmp_path, kind):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["a"] = np.ones((2, 3))
    (tmp_path / "raw").write_bytes(b"secret--" * 6)
    with h5py.File(path, "w", userblock_size=512) as file:
        if kind == "soft":
            file["a"] = h5py.SoftLink("/b")
        elif kind == "external":
            file["a"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "a")
        elif kind == "storage":
            file.create_dataset("a", (2, 3), "f8", external=[(str(tmp_path / "raw"), 0, 48)])
        else:
            layout = h5py.VirtualLayout((2, 3), "f8")
            layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a", (2, 3))
            file.create_virtual_dataset("a", layout)
    with pytest.raises(ValueError, match=r"is a link to another location|is stored in another file"):
        read_matlab(path)


def test_a_block_that_expands_is_refused(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        stored = file.create_dataset("a", (2, 100), "f8", chunks=(2, 100), compression="gzip")
        stored.id.write_direct_chunk((0, 0), zlib.compress(bytes(500_000_000), 9))
    with pytest.raises(ValueError, match="a block of /a does not have 1,600 bytes"):
        read_matlab(path)


@pytest.mark.parametrize(("shape", "chunks"), [((2, MOST), None), ((2, 100_000), (1, 1)), ((2, 2), (1, 2**30))])
def test_arrays_beyond_the_limits_are_refused(path, shape, chunks):
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset(
            "a",
            shape,
            "f8",
            chunks=chunks,
            maxshape=(None, None) if chunks else None,
            **({"compression": "gzip"} if chunks else {}),
        )
    with pytest.raises(ValueError, match="more than the limit"):
        read_matlab(path)


def test_cells_that_contain_themselves_end(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        stored = file.create_dataset("a", (ARRAYS // 100, 1), h5py.ref_dtype)
        stored[...] = file["a"].ref
    with pytest.raises(ValueError, match="too many or too deeply nested arrays"):
        read_matlab(path)


def test_a_truncated_file_is_refused(path):
    save_v73(path, {"info": [{"location": np.arange(400.0).reshape(200, 2)}]})
    content = path.read_bytes()
    for length in range(520, len(content) - 1, len(content) // 30):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"damaged|location|block"):
            read_matlab(path)
