import errno

import pytest

from ean_core.common.errors import CannotWriteError, unknown_name, writing


@pytest.mark.parametrize(
    ("given", "valid", "message"),
    [
        ("SEE", ["SE", "DIA"], "unknown thing 'SEE'; did you mean 'SE'? Choose from 'DIA', 'SE'"),
        ("sge", ["SE", "SGE"], "unknown thing 'sge'; did you mean 'SGE' or 'SE'? Choose from 'SE', 'SGE'"),
        ("xyz", ["SE", "DIA"], "unknown thing 'xyz'; choose from 'DIA', 'SE'"),
        (1052, [152, 18, 50], "unknown thing 1052; did you mean 152? Choose from 18, 50, 152"),
        (None, ["SE"], "unknown thing None; choose from 'SE'"),
        ("SE", [], "unknown thing 'SE'; choose from (nothing)"),
    ],
)
def test_the_error_says_what_was_given_what_is_near_and_what_there_is(given, valid, message):
    error = unknown_name("thing", given, valid)
    assert isinstance(error, ValueError)
    assert str(error) == message


def test_what_cannot_be_written_is_said_with_the_room(tmp_path):
    expected = r"a.txt cannot be written: the disk is full; \d+\.\d MB are free in /"
    with pytest.raises(CannotWriteError, match=expected), writing(tmp_path / "deep/er/a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENOSPC, errno.ENOENT])
def test_around_more_than_a_file_what_may_be_of_another_place_passes(tmp_path, code):
    with pytest.raises(OSError, match="as it was") as info, writing(tmp_path, alone=False):
        raise OSError(code, "as it was", "/elsewhere/file")
    assert not isinstance(info.value, CannotWriteError)


def test_around_more_than_a_file_the_file_is_named(tmp_path):
    expected = "^/elsewhere/file cannot be written: it is on a read-only"
    with pytest.raises(CannotWriteError, match=expected), writing(tmp_path, alone=False):
        raise OSError(errno.EROFS, "read-only", "/elsewhere/file")
