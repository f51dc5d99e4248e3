"""MATLAB's files against SciPy, which reads good ones well."""

import os
import threading

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from tasks.matlab import read_matlab

VALUES = {
    **{
        f"a_{kind}": np.arange(12, dtype=kind).reshape(3, 4)
        for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    },
    "floats": np.array([[0.5, -1e300], [np.nan, np.inf]]),
    "singles": np.ones((2, 3, 4), np.float32),
    "small": np.array([[7]], np.uint8),
    "empty": np.zeros((0, 2)),
    "truth": np.array([[True, False]]),
}


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_are_those_that_scipy_reads(tmp_path, compressed):
    savemat(tmp_path / "a.mat", VALUES, do_compression=compressed)
    ours, theirs = read_matlab(tmp_path / "a.mat"), loadmat(tmp_path / "a.mat")
    for name in VALUES:
        np.testing.assert_array_equal(ours[name], theirs[name])
        assert ours[name].dtype == theirs[name].dtype


@pytest.mark.parametrize("compressed", [False, True])
def test_cells_and_structures(tmp_path, compressed):
    cell = np.empty((1, 3), object)
    cell[0] = [np.array([[1.0, 2.0]]), "text", csc_matrix(np.eye(3))]
    nested = {"info": {"location": np.ones((4, 2)), "parts": cell, "number": 4}, "after": np.array([[5]])}
    savemat(tmp_path / "a.mat", nested, do_compression=compressed)
    found = read_matlab(tmp_path / "a.mat")
    (info,) = found["info"]
    assert list(info) == ["location", "parts", "number"]
    np.testing.assert_array_equal(info["location"], np.ones((4, 2)))
    np.testing.assert_array_equal(info["parts"][0], [[1, 2]])
    assert info["parts"][1:] == [None, None]
    assert (info["number"].item(), found["after"].item()) == (4, 5)


def test_other_versions_are_named(tmp_path):
    savemat(tmp_path / "four.mat", {"a": np.ones((2, 2))}, format="4")
    (tmp_path / "seven.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    for name in ("four", "seven"):
        with pytest.raises(ValueError, match="not a MATLAB file of version 5 to 7; MATLAB's `save -v7`"):
            read_matlab(tmp_path / f"{name}.mat")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_fifo_is_refused_before_it_is_opened(tmp_path):
    path = tmp_path / "GT_IMG_1.mat"
    os.mkfifo(path)
    writer = threading.Timer(5, lambda: os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK)))  # ends a reader that waits
    writer.start()
    with pytest.raises(ValueError, match=r"GT_IMG_1\.mat is not a regular file"):
        read_matlab(path)
    writer.cancel()
