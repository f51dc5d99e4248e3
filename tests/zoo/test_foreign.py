import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from ean_core import ConnectionScheme, EANResNet, ImageClassifier
from ean_core.inference import deploy
from ean_core.search.fold import measure_constants
from zoo.foreign import _authors_name, import_weights

from .authors import Network

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
ATTENTION = ("SE", "SGE", "DIA")


def lively(network):
    """Move all statistics and weights away from their initial values, so that no omission goes unnoticed."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.4, 0.8)
            module.bias.data.normal_(0, 0.2)
    for name, parameter in network.named_parameters():
        if "share_fc" in name or "lstm" in name:
            parameter.data.normal_(0, 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A network of each kind, and its file in the authors' format."""
    folder = tmp_path_factory.mktemp("authors")
    found = {}
    for kind in ATTENTION:
        network = lively(Network(kind, STAGES[50]))
        state = {f"module.{name}": value for name, value in network.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 120, "best_acc": 76.5}, folder / f"{kind}.pth.tar")
        found[kind] = network, folder / f"{kind}.pth.tar"
    return found


def agree(ours, theirs):
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize(
    "scheme",
    ["010-0010-110011-001", "100-1011-010011-011", "110-0011-110010-011", "111-1111-111111-111", "000-0000-000000-001"],
)
def test_the_authors_networks_give_their_logits(checkpoints, kind, scheme):
    theirs, path = checkpoints[kind]
    found = import_weights(path, scheme)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        agree(found.network.eval()(images), theirs(images, ConnectionScheme.parse(scheme)))
    assert found.source == "the authors'"
    assert found.settings["backbone"]["conv_bias"] is True


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize(
    "scheme", ["010-0010-110011-001", "100-1011-010011-011", "111-1111-111111-111", "000-0000-000000-001"]
)
def test_the_authors_networks_train_alike(checkpoints, kind, scheme):
    """Loss, gradients and running statistics of a training step, in fp64."""
    theirs, path = checkpoints[kind]
    theirs = copy.deepcopy(theirs).double().train()
    ours = import_weights(path, scheme).network.double().train()
    images = torch.randn(4, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    losses = []
    for network, arguments in ((theirs, (ConnectionScheme.parse(scheme),)), (ours, ())):
        loss = F.cross_entropy(network(images, *arguments), torch.arange(4))
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    gradients = {_authors_name(name): p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - gradients.pop(name).view_as(parameter)).abs().max() < 1e-9 * largest, name
    assert gradients == {}
    statistics = {_authors_name(name): value for name, value in theirs.named_buffers()}
    for name, value in ours.backbone.named_buffers(prefix="backbone"):
        torch.testing.assert_close(value, statistics[name], rtol=1e-10, atol=1e-12)


def test_the_scheme_matters_to_the_logits(checkpoints):
    """Otherwise the comparison above would be meaningless."""
    for theirs, _ in checkpoints.values():
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            full, none = (theirs(images, ConnectionScheme.parse(s, STAGES[50])) for s in ("full", "none"))
        assert (full - none).abs().max() > 1e-2 * none.abs().max()


def test_modules_that_no_block_connects_to_are_left_out_and_named(checkpoints):
    _, path = checkpoints["SE"]
    found = import_weights(path, "000-0000-000000-001")
    assert {name.split(".")[0] for name in found.unused} == {"layer1", "layer2", "layer3"}
    assert list(found.network.backbone.attentions()) == ["layer4.attention"]


def test_the_scheme_on_record_is_asked_for_by_name(checkpoints):
    _, path = checkpoints["DIA"]
    assert str(import_weights(path, "ean").network.backbone.scheme) == "110-0011-110010-011"
    with pytest.raises(ValueError, match=r"has DIA modules, but its tensors do not say .* --scheme"):
        import_weights(path)


def test_a_deeper_network_is_recognised(tmp_path):
    theirs = lively(Network("SGE", STAGES[101], classes=7))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    found = import_weights(tmp_path / "w.pth", "none")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        agree(found.network.eval()(images), theirs(images, ConnectionScheme.none(STAGES[101])))
    assert found.settings["num_classes"] == 7


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_networks_give_their_logits(tmp_path, name):
    theirs = lively(getattr(torchvision.models, name)(num_classes=12))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    found = import_weights(tmp_path / "w.pth")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        agree(found.network.eval()(images), theirs(images))
    assert found.settings["backbone"] == {
        "type": "EANResNet",
        "depth": int(name.removeprefix("resnet")),
        "scheme": str(found.network.backbone.scheme),
        "conv_bias": False,
    }
    with pytest.raises(ValueError, match=r"has no attention modules; scheme 'full' does not fit"):
        import_weights(tmp_path / "w.pth", "full")


@pytest.mark.parametrize(("head", "linear"), [("model.", "model.fc."), ("model.backbone.", "model.head.fc.")])
def test_prefixes_are_found_for_the_linear_layer_too(tmp_path, head, linear):
    state = torchvision.models.resnet18(num_classes=7).state_dict()
    named = {linear + name[3:] if name.startswith("fc.") else head + name: value for name, value in state.items()}
    torch.save({"state_dict": named}, tmp_path / "w.pth")
    found = import_weights(tmp_path / "w.pth").network.state_dict()
    assert torch.equal(found["fc.weight"], state["fc.weight"])
    assert torch.equal(found["backbone.layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


@pytest.mark.parametrize("kind", ["seresnet50", "resnet50d"])
def test_mmpretrains_networks_give_their_logits(tmp_path, kind):
    pytest.importorskip("mmcv")
    backbones = pytest.importorskip("mmpretrain.models.backbones")
    made = backbones.SEResNet(50) if kind == "seresnet50" else backbones.ResNetV1d(depth=50)
    theirs = nn.ModuleDict({"backbone": lively(made) or made, "head": nn.ModuleDict({"fc": nn.Linear(2048, 7)})})
    theirs.eval()
    torch.save({"state_dict": theirs.state_dict(), "meta": {"epoch": 3}}, tmp_path / "w.pth")
    found = import_weights(tmp_path / "w.pth")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (feature,) = theirs["backbone"](images)
        agree(found.network.eval()(images), theirs["head"]["fc"](feature.mean((2, 3))))
    backbone = found.settings["backbone"]
    if kind == "seresnet50":
        assert (backbone["attention"], backbone["scheme"], backbone["shared"]) == (
            {"type": "SE", "reduction": 16},
            "111-1111-111111-111",
            False,
        )
        with pytest.raises(ValueError, match=r"attention modules in the blocks of 111-1111-111111-111; scheme 'none'"):
            import_weights(tmp_path / "w.pth", "none")
    else:
        assert (backbone["deep_stem"], backbone["avg_down"], "attention" in backbone) == (True, True, False)


def test_timms_se_resnet_gives_its_logits(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("seresnet50")
    theirs = (lively(theirs) or theirs).double().eval()
    torch.save(theirs.state_dict(), tmp_path / "seresnet50.pth")
    found = import_weights(tmp_path / "seresnet50.pth").network.double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        agree(found(images), theirs(images))


def test_timms_se_resnet_is_folded_exactly(tmp_path):
    theirs = lively(ImageClassifier(EANResNet(50, "SE", scheme="full", shared=False), 10))
    state = {}
    for name, value in theirs.state_dict().items():
        within = ".attention." in name and value.ndim == 2  # 1x1 convolutions in timm's `seresnet50`
        state[name.removeprefix("backbone.").replace("attention", "se")] = value[:, :, None, None] if within else value
    torch.save(state, tmp_path / "seresnet50.pth")
    network = import_weights(tmp_path / "seresnet50.pth").network.double().eval()
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    measure_constants(network, [{"inputs": images, "labels": torch.zeros(4, dtype=torch.int64)}])
    inputs = network.data_preprocessor({"inputs": images})["inputs"].double()
    full, outputs = network.backbone.scheme, []
    for blocks in ((), (1, 4, 7, 15), range(16)):
        network.backbone.set_scheme(full.with_constants(blocks))
        deployed = deploy(network)
        assert [block.form for block in deployed.backbone.blocks()] == [
            "constant" if number in blocks else "commuted" for number in range(16)
        ]
        with torch.no_grad():
            outputs.append(network(inputs))
            assert (deployed(inputs) - outputs[-1]).abs().max() <= 1e-10 * outputs[-1].abs().max()
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])


def test_other_networks_are_refused(tmp_path):
    torch.save({"features.0.weight": torch.ones(1)}, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=r"is neither a torchvision ResNet nor one of the authors' networks"):
        import_weights(tmp_path / "vgg.pth")
    torch.save(torchvision.models.resnext50_32x4d().state_dict(), tmp_path / "resnext.pth")
    with pytest.raises(
        ValueError,
        match=r"an unsupported kind of ResNet, .*: layer1.0.conv1.weight has shape \(128, 64, 1, 1\), in ResNet-50",
    ):
        import_weights(tmp_path / "resnext.pth")
    state = torchvision.models.resnet18().state_dict()
    cut = {name: value for name, value in state.items() if not name.startswith("layer4.1")}
    torch.save(cut, tmp_path / "cut.pth")
    with pytest.raises(ValueError, match=r"has \(2, 2, 2, 1\) basic blocks in its stages, expected those of"):
        import_weights(tmp_path / "cut.pth")


def test_a_file_that_needs_code_is_refused_with_the_list_of_what_it_wanted(tmp_path):
    import argparse
    import collections

    content = {"state_dict": {}, "arguments": argparse.Namespace(lr=0.1), "seen": collections.Counter("ab")}
    torch.save({**content, "device": torch.nn.Identity()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"would execute code from .*argparse.Namespace") as info:
        import_weights(tmp_path / "w.pth")
    assert "torch.nn.modules.linear.Identity" in str(info.value)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"state_dict": {}, "arguments": argparse.Namespace(lr=0.1)}))
    with pytest.raises(ValueError, match=r"would execute code from argparse.Namespace"):
        import_weights(tmp_path / "plain.pth")
