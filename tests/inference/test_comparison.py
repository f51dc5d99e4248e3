import pytest
import torch

from ean_core.backbone import find_backbone
from ean_core.common.config import load_config
from ean_core.inference.comparison import Form, Variant, candidates, connection, image_shape, in_form, variants

CONFIG = "resnet20_se_digits"


def test_a_config_has_the_variants_of_table_1():
    found = variants(load_config(CONFIG, ["model.backbone.scheme=010-100-001"]))
    assert [variant.connection for variant in found] == ["vanilla", "Org-full", "Share-full", "EAN"]
    assert [connection(variant.network) for variant in found] == ["vanilla", "Org-full", "Share-full", "EAN"]
    assert {variant.size for variant in found} == {8}


@pytest.mark.parametrize("scheme", ["c10-0c0-000", "c00-000-000"])
def test_a_network_with_constant_gates_is_compared_as_folded(scheme):
    found = variants(load_config(CONFIG, [f"model.backbone.scheme={scheme}"]))
    assert [variant.connection for variant in found] == ["vanilla", "Org-full", "Share-full", "Folded"]
    assert [connection(variant.network) for variant in found][-1] == "Folded"


def test_a_recurrent_module_has_no_org_full_and_a_full_scheme_no_ean():
    assert [variant.connection for variant in variants(load_config("resnet20_dia_digits"))] == ["vanilla", "Share-full"]


def test_each_form_has_the_vanilla_network_of_its_own_form():
    found = variants(load_config(CONFIG))
    compared = candidates(found, [Form.eager, Form.folded, Form.deployed], device="cpu")
    assert [c.name for c in compared][:4] == [
        "vanilla, eager",
        "Org-full, eager",
        "Share-full, eager",
        "vanilla, folded",
    ]
    assert all(c.baseline == f"vanilla, {c.form.value}" for c in compared)
    kinds = {c.form: type(find_or_none(c.network)).__name__ for c in compared}
    assert kinds == {Form.eager: "EANResNetCIFAR", Form.folded: "NoneType", Form.deployed: "NoneType"}


def find_or_none(network):
    try:
        return find_backbone(network)
    except ValueError:
        return None


def test_networks_that_differ_in_more_than_attention_have_baselines_of_their_own():
    se, sge = variants(load_config(CONFIG)), variants(load_config("resnet20_sge_digits"))
    names = [c.name for c in candidates([*se, *sge], device="cpu")]
    assert names == ["vanilla", "SE Org-full", "SE Share-full", "SGE Org-full", "SGE Share-full"]
    wide = variants(load_config(CONFIG, ["model.backbone.base_channels=24"]))
    compared = candidates([*se, *wide], device="cpu")
    assert {c.baseline for c in compared} == {"network 1 vanilla", "network 2 vanilla"}


def test_the_baseline_may_be_another_variant():
    found = variants(load_config(CONFIG))
    assert {c.baseline for c in candidates(found, baseline="Share-full", device="cpu")} == {"Share-full"}
    with pytest.raises(ValueError, match="the baseline 'EAN' is not among the networks: vanilla, Org-full, Share-full"):
        candidates(found, baseline="EAN", device="cpu")


def test_two_schemes_of_one_network_are_told_apart_and_equal_networks_are_refused():
    first, second = (
        Variant("a", "EAN", variants(load_config(CONFIG, [f"model.backbone.scheme={scheme}"]))[-1].network)
        for scheme in ("010-100-001", "100-100-000")
    )
    vanilla = Variant("a", "vanilla", variants(load_config(CONFIG))[0].network)
    names = [c.name for c in candidates([vanilla, first, second], device="cpu")]
    assert names == ["vanilla", "EAN 010-100-001", "EAN 100-100-000"]
    with pytest.raises(ValueError, match="two networks are both EAN 010-100-001; time them separately"):
        candidates([vanilla, first, first], device="cpu")


def test_forms_are_copies_in_the_type_asked_for():
    network = variants(load_config(CONFIG))[0].network
    for form in (Form.eager, Form.folded, Form.deployed):
        made = in_form(network, form, torch.bfloat16, "cpu")
        assert made(torch.zeros(1, 1, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert next(network.parameters()).dtype == torch.float32


def test_cuda_graphs_need_a_gpu():
    with pytest.raises(ValueError, match="captured uses CUDA graphs, which need a GPU"):
        in_form(variants(load_config(CONFIG))[0].network, Form.captured, device="cpu")


def test_images_must_fit_all_networks():
    network = variants(load_config(CONFIG))[0].network
    assert image_shape([Variant("a", "vanilla", network)]) == (1, 32)
    assert image_shape([Variant("a", "vanilla", network, size=8)], 16) == (1, 16)
    with pytest.raises(ValueError, match=r"different images \(channels, size\): \[\(1, 8\), \(1, 32\)\]"):
        image_shape([Variant("a", "vanilla", network, size=8), Variant("b", "vanilla", network)])
