import pytest

from ean_core.errors import unknown_name


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
