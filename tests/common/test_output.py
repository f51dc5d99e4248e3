import warnings

import pytest

from ean_core.common.output import Output, chosen, printing, progress_only, say


def warn(module):
    warnings.warn_explicit(f"from {module}", UserWarning, f"{module}.py", 1, module=module)


@pytest.mark.parametrize("verbose", [False, True])
def test_deprecations_of_openmmlab_are_shown_if_verbose(recwarn, verbose):
    with printing(verbose=verbose, quiet=False):
        warn("mmseg.models.builder")
        warn("tasks.segmentation.network")
    with printing(header=False):  # a command without --verbose
        warn("mmseg.models.builder")
    warn("mmengine.runner.loops")
    shown = [str(each.message) for each in recwarn]
    assert shown == ["from mmseg.models.builder"] * verbose + [
        "from tasks.segmentation.network",
        "from mmengine.runner.loops",
    ]


def fail():
    assert chosen() is Output.quiet
    raise KeyError


def test_an_output_ends_with_its_command():
    assert chosen() is None
    with pytest.raises(KeyError), printing(verbose=False, quiet=True):
        fail()
    assert chosen() is None


def test_what_is_said_is_seen_unless_quiet_and_cannot_act_on_the_terminal(capsys):
    say("outside of commands")
    for quiet in (False, True):
        with printing(verbose=False, quiet=quiet):
            say(f"quiet: {quiet}\x1b[2J\nin a second line")
    assert capsys.readouterr().out == "outside of commands\nquiet: False\\x1b[2J\nin a second line\n"


@pytest.mark.parametrize(
    ("flags", "inside"),
    [
        ({"verbose": False, "quiet": False}, Output.progress),
        ({"verbose": True, "quiet": False}, Output.verbose),
        ({"verbose": False, "quiet": True}, Output.quiet),
        ({"header": False}, Output.progress),
    ],
)
def test_a_step_of_a_command_has_progress_only_unless_more_or_less_was_asked_for(flags, inside):
    with printing(**flags):
        before = chosen()
        with progress_only():
            assert chosen() is inside
        assert chosen() is before
    with progress_only():
        assert chosen() is None
