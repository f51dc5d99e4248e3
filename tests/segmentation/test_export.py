"""Exported segmentors give the network's class scores for RGB images of one size."""

import copy

import onnxruntime
import pytest
import torch
from mmengine.model import ImgDataPreprocessor

from ean_core.inference.export import write_onnx, write_pt2
from ean_core.networks import build_network
from tasks.segmentation.export import SegmentorFromPixels
from tasks.segmentation.library import SegDataSample

from .conftest import SETTINGS

SIZE = (48, 64)


def compare(network, run):
    """Against mmsegmentation's own steps, which begin with BGR images."""
    for number in (1, 3):
        images = (torch.rand(number, 3, *SIZE) * 255).round()
        samples = [SegDataSample(metainfo={"ori_shape": SIZE, "img_shape": SIZE}) for _ in images]
        bgr = [image.flip(0).to(torch.uint8) for image in images]
        with torch.no_grad():
            data = network.data_preprocessor({"inputs": bgr, "data_samples": samples}, False)
            expected = network.encode_decode(data["inputs"], [sample.metainfo for sample in data["data_samples"]])
        got = run(images)
        assert got.shape == (number, 21, *SIZE)
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_onnx_gives_class_scores(network, tmp_path):
    write_onnx(network, tmp_path / "a.onnx", SIZE, wrap=SegmentorFromPixels)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert [node.shape for node in session.get_inputs()] == [["batch", 3, *SIZE]]
    assert [(node.name, node.shape) for node in session.get_outputs()] == [("scores", ["batch", 21, *SIZE])]
    compare(network, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))


def test_a_program_of_a_network_for_bgr_takes_rgb(tmp_path):
    settings = copy.deepcopy(SETTINGS)
    settings["data_preprocessor"]["bgr_to_rgb"] = False
    network = build_network(settings).eval()
    write_pt2(network, tmp_path / "a.pt2", SIZE, SegmentorFromPixels)
    compare(network, torch.export.load(tmp_path / "a.pt2").module())


def test_another_preprocessor_is_refused(network):
    other = copy.copy(network)
    other._modules = {**network._modules, "data_preprocessor": ImgDataPreprocessor()}
    with pytest.raises(ValueError, match="data_preprocessor is ImgDataPreprocessor, which cannot be exported"):
        SegmentorFromPixels(other)
