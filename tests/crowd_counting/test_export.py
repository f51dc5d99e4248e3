"""Exported counters give the network's density for images of any size."""

import onnxruntime
import pytest
import torch
from mmengine.registry import MODELS

from ean_core.common.config import load_config
from ean_core.inference.export import write_pt2
from ean_core.weights.files import save_weights
from tasks.cli import main
from tasks.crowd_counting.export import CounterFromPixels

#: Heights and widths: multiples of the stride, one more, one less, and narrow ones.
SIZES = ((1, 64, 72), (2, 65, 97), (1, 71, 103), (1, 129, 24), (1, 17, 300))


def compare(network, run):
    for number, height, width in SIZES:
        images = torch.rand(number, 3, height, width) * 255
        with torch.no_grad():
            expected = network(network.data_preprocessor({"inputs": images})["inputs"])
        torch.testing.assert_close(run(images), expected, rtol=1e-4, atol=1e-6)


def test_a_program_gives_people_per_cell(network, tmp_path):
    write_pt2(network, tmp_path / "a.pt2", (128, 192), CounterFromPixels)
    compare(network, torch.export.load(tmp_path / "a.pt2").module())


def test_the_command_writes_onnx_with_free_sizes(tmp_path, capsys):
    torch.manual_seed(0)
    network = MODELS.build(load_config("resnet20_se_shanghaitech_b").model).eval()
    save_weights(network.state_dict(), tmp_path / "counter.safetensors", {})
    with pytest.raises(SystemExit) as ended:
        main(["export", "resnet20_se_shanghaitech_b", str(tmp_path / "counter.safetensors"), "--format", "onnx"])
    assert ended.value.code == 0
    assert "output: density, people per cell of 8 x 8 pixels" in capsys.readouterr().out
    exported = tmp_path / "resnet20_se_shanghaitech_b.onnx"
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (images,), (density,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape) == ("images", ["batch", 3, "height", "width"])
    assert (density.name, density.shape) == ("density", ["batch", 1, "rows", "columns"])
    assert session.get_modelmeta().custom_metadata_map["scheme"] == "010-100-000"
    compare(network, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_counter_with_windows_takes_images_of_the_configs_size(tmp_path, capsys, ending):
    torch.manual_seed(0)
    network = MODELS.build(load_config("resnet18_se_crowd").model).eval()
    for module in network.backbone.attentions().values():
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    save_weights(network.state_dict(), tmp_path / "counter.safetensors", {})
    words = ["export", "resnet18_se_crowd", str(tmp_path / "counter.safetensors"), "--format", ending]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--cfg-options", "image_size=[300,400]"])
    assert ended.value.code == 0
    assert "input: float32 images (N, 3, 300, 400), RGB" in capsys.readouterr().out
    images = torch.rand(2, 3, 300, 400) * 255
    if ending == "pt2":
        found = torch.export.load(tmp_path / "resnet18_se_crowd.pt2").module()(images)
    else:
        session = onnxruntime.InferenceSession(tmp_path / "resnet18_se_crowd.onnx", providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.no_grad():
        expected = network(network.data_preprocessor({"inputs": images})["inputs"])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
