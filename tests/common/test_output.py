import warnings

import pytest

from ean_core.common.output import Output, chosen, printing, without_deprecations


def warn(module):
    warnings.warn_explicit(f"from {module}", UserWarning, f"{module}.py", 1, module=module)


@pytest.mark.parametrize("verbose", [False, True])
def test_deprecations_of_openmmlab_are_shown_if_verbose(recwarn, verbose):
    with printing(verbose=verbose, quiet=False):
        warn("mmseg.models.builder")
        warn("tasks.segmentation.network")
    with without_deprecations():  # of a command without --verbose
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
