import subprocess
import sys

import onnx
import onnxruntime
import pytest
import torch
from mmengine.model import ImgDataPreprocessor
from onnx.reference import ReferenceEvaluator

from ean_core import EANResNet, EANResNetCIFAR, ImageClassifier
from ean_core.inference import export
from ean_core.weights.names import is_gate

PREPROCESSOR = {"type": "ImagePreprocessor", "mean": [120.0, 110.0, 100.0], "std": [60.0, 50.0, 70.0]}
BACKBONES = {
    "SE": lambda: EANResNetCIFAR(20, "SE", scheme="010-110-001"),
    "DIA": lambda: EANResNetCIFAR(20, "DIA", scheme="full"),
    "constant": lambda: EANResNetCIFAR(20, "DIA", scheme="1c1-cc0-00c"),
    # Channels are reordered by group in the first stage, not in the second.
    "SGE": lambda: EANResNet(
        50, {"type": "SGE", "groups": 8}, scheme="full", base_channels=8, num_stages=2, out_indices=(1,)
    ),
}


def model(attention):
    torch.manual_seed(0)
    made = ImageClassifier(BACKBONES[attention](), 10, PREPROCESSOR).eval()
    for name, value in made.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and ("bn" in name or "running_mean" in name or is_gate(name)):
            value.normal_(0.3, 0.3)
    return made


def compare(made, run):
    for shape in ((1, 3, 40, 40), (4, 3, 34, 48), (3, 3, 65, 33)):
        images = torch.rand(shape) * 255
        with torch.no_grad():
            expected = made(made.data_preprocessor({"inputs": images})["inputs"])
        got = run(images)
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("attention", BACKBONES)
def test_onnx_takes_any_batch_and_size_of_plain_images(tmp_path, attention):
    made, path = model(attention), tmp_path / "new" / "network.onnx"
    export.write_onnx(made, path, 40, {"scheme": str(made.backbone.scheme)})
    assert [found.name for found in path.parent.iterdir()] == ["network.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(node.name, node.shape) for node in session.get_inputs()] == [("images", ["batch", 3, "height", "width"])]
    assert [node.name for node in session.get_outputs()] == ["logits"]
    assert session.get_modelmeta().custom_metadata_map["scheme"] == str(made.backbone.scheme)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert "BatchNormalization" not in operators
    assert "GlobalAveragePool" in operators  # in the layout of ONNX Runtime's convolutions
    assert "ReduceMean" not in operators
    compare(made, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))


ALONE = """
import sys, torch
for folder in sys.argv[1:]:
    program = torch.export.load(f"{folder}/network.pt2").module()
    torch.save([program(images) for images in torch.load(f"{folder}/images.pt")], f"{folder}/outputs.pt")
assert not any(name.split(".")[0] in ("ean_core", "mmengine") for name in sys.modules)
"""


def test_a_program_runs_without_this_package(tmp_path):
    made = {tmp_path / attention: model(attention) for attention in ("SE", "SGE")}
    images = [torch.rand(shape) * 255 for shape in ((1, 3, 40, 40), (4, 3, 34, 48))]
    for folder, network in made.items():
        export.write_pt2(network, folder / "network.pt2", 40)
        assert [found.name for found in folder.iterdir()] == ["network.pt2"]
        torch.save(images, folder / "images.pt")
    subprocess.run([sys.executable, "-c", ALONE, *made], check=True, cwd=tmp_path, timeout=120)
    for folder, network in made.items():
        for given, got in zip(images, torch.load(folder / "outputs.pt"), strict=True):
            with torch.no_grad():
                expected = network(network.data_preprocessor({"inputs": given})["inputs"])
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("attention", ["SE", "DIA"])
def test_files_fold_constant_gates_exactly(attention, tmp_path):
    backbone = EANResNetCIFAR(20, attention, scheme="1c1-cc0-00c", base_channels=4)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if is_gate(name):
                parameter.uniform_(-0.5, 0.9)
    made = ImageClassifier(backbone, 10, PREPROCESSOR).double().eval()
    images = torch.rand(2, 3, 24, 24) * 255
    with torch.no_grad():
        expected = made(made.data_preprocessor({"inputs": images})["inputs"].double())
    program = export.export_program(made, 24)
    torch.export.save(program, tmp_path / "network.pt2")
    found = [torch.export.load(tmp_path / "network.pt2").module()(images)]
    onnx_program = torch.onnx.export(program, (), dynamo=True, verbose=False)  # runtimes lack convolutions in fp64
    found += [torch.from_numpy(ReferenceEvaluator(onnx_program.model_proto).run(None, {"images": images.numpy()})[0])]
    for got in found:
        assert got.dtype == torch.float64
        assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_the_model_itself_is_not_touched(tmp_path):
    made = model("SE").train()
    export.write_pt2(made, tmp_path / "network.pt2", 32)
    assert made.training


def test_a_preprocessor_that_would_be_left_out_is_refused(tmp_path):
    made = model("SE")
    made.data_preprocessor = ImgDataPreprocessor(mean=[1.0] * 3, std=[2.0] * 3)
    with pytest.raises(ValueError, match="data_preprocessor is ImgDataPreprocessor, which cannot be exported"):
        export.write_pt2(made, tmp_path / "network.pt2", 32)


@pytest.mark.parametrize("write", [export.write_onnx, export.write_pt2])
def test_a_file_that_computes_something_else_is_not_left(tmp_path, monkeypatch, write):
    honest = export.deploy

    def wrong(network):
        deployed = honest(network)
        deployed.fc.bias.data += 0.1
        return deployed

    monkeypatch.setattr(export, "deploy", wrong)
    with pytest.raises(RuntimeError, match="outputs differ by"):
        write(model("SE"), tmp_path / f"network.{write.__name__.removeprefix('write_')}", 32)
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"ONNX needs .*: pip install 'ean-zoo\[export\]'"):
        export.write_onnx(model("SE"), tmp_path / "a.onnx", 32)
    assert list(tmp_path.iterdir()) == []
