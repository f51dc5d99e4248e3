"""Names that are known before the modules behind them are imported."""

from mmengine.registry import MODELS

from ean_core import ATTENTION, EANResNet, EANResNetCIFAR
from ean_core.attention import _names_in_files, attention_names
from ean_core.kinds import USUAL
from ean_core.layers import NORMS
from ean_core.recorded import IMAGENET_DEPTHS


def test_usual_modules_are_registered_ones():
    assert {"Conv2d", *NORMS, *MODELS.module_dict} >= USUAL


def test_attention_is_known_from_its_files():
    there = {name: kind.recurrent for name, kind in ATTENTION.module_dict.items() if "ean_core" in kind.__module__}
    assert _names_in_files() == there
    assert attention_names().items() >= there.items()


def test_depths_belong_to_the_family_of_their_backbone():
    assert tuple(EANResNet.depths) == IMAGENET_DEPTHS
    assert not set(IMAGENET_DEPTHS) & set(EANResNetCIFAR.depths)
