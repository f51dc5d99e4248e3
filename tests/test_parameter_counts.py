import pytest
import torch

from ean_core import ConnectionScheme, EANResNet, EANResNetCIFAR


def parameters(network, classes):
    head = (network.out_channels[-1] + 1) * classes
    return sum(p.numel() for p in network.parameters()) + head


def resnet50(attention="SE", **options):
    with torch.device("meta"):
        return parameters(EANResNet(50, attention, **{"conv_bias": True, **options}), 1000)


def resnet164(attention="SE", **options):
    with torch.device("meta"):
        return parameters(EANResNetCIFAR(164, attention, **options), 100)


VANILLA = {"scheme": "none"}
ORG = {"scheme": "full", "shared": False}
SHARE = {"scheme": "full"}
EAN = {"scheme": "ean"}


@pytest.mark.parametrize(
    ("network", "attention", "options", "to_the_unit", "printed"),
    [
        (resnet50, "SE", VANILLA, 25_583_592, "25.584"),
        (resnet50, "SE", ORG, 28_114_584, "28.115"),
        (resnet50, "SE", SHARE, 26_283_992, "26.284"),
        (resnet50, "SE", EAN, 26_283_992, "26.284"),
        (resnet50, "SGE", ORG, 25_585_640, "25.586"),
        (resnet50, "SGE", SHARE, 25_584_104, "25.584"),
        (resnet50, "SGE", EAN, 25_584_104, "25.584"),
        (resnet50, "DIA", SHARE, 28_384_612, "28.385"),
        (resnet50, "DIA", EAN, 28_384_612, "28.385"),
        (resnet164, "SE", VANILLA, 1_727_284, "1.727"),
        (resnet164, "SE", ORG, 1_929_388, "1.929"),
        (resnet164, "SE", SHARE, 1_738_512, "1.739"),
        (resnet164, "SE", EAN, 1_738_512, "1.739"),
        (resnet164, "SGE", ORG, 1_727_284 + 54 * 2 * 4, "1.728"),
        (resnet164, "SGE", SHARE, 1_727_284 + 3 * 2 * 4, "1.727"),
        (resnet164, {"type": "SGE", "groups": 8}, ORG, 1_727_284 + 54 * 2 * 8, "1.728"),
        (resnet164, {"type": "SGE", "groups": 8}, SHARE, 1_727_284 + 3 * 2 * 8, "1.727"),
        (resnet164, "DIA", SHARE, 1_946_132, "1.946"),
    ],
)
def test_counts_are_those_of_table_1(network, attention, options, to_the_unit, printed):
    count = network(attention, **options)
    assert count == to_the_unit
    assert f"{count / 1e6:.3f}" == printed


def test_without_convolution_biases_resnet50_is_torchvisions():
    assert resnet50(conv_bias=False, scheme="none") == 25_557_032


@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_scheme_costs_the_modules_that_it_uses_and_no_more(attention, shared):
    vanilla = resnet164(attention, scheme="none")
    last_stage, last_two = (
        resnet164(attention, scheme=ConnectionScheme.parse(["0" * 18, "0" * 18, bits + "0" * 16]), shared=shared)
        - vanilla
        for bits in ("10", "11")
    )
    assert last_stage > 0
    assert last_two == (last_stage if shared else 2 * last_stage)
