import pytest
import torch
from torch import fx, nn

from ean_core import EANResNetCIFAR, ImageClassifier
from ean_core.common.inputs import check_images


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_batch_of_float_images_passes(dtype):
    check_images(torch.zeros(2, 3, 4, 5, dtype=dtype), 3, "it")
    check_images(torch.zeros(2, 3, 3, 3, dtype=dtype, device="meta"), 3, "it")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_other_types_are_refused(dtype):
    with pytest.raises(
        ValueError, match=rf"it takes float images \(N, 3, H, W\), got {dtype} \(2, 3, 4, 5\); normalize"
    ):
        check_images(torch.zeros(2, 3, 4, 5, dtype=dtype), 3, "it")


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((3, 4, 5), r"x\[None\] adds the batch dimension"),
        ((4, 5), "give one batch of images"),
        ((1, 2, 3, 4, 5), "give one batch of images"),
        ((2, 4, 5, 3), r"x.permute\(0, 3, 1, 2\) moves the channels"),
        ((2, 1, 4, 5), "build the network with in_channels=1"),
    ],
)
def test_other_shapes_are_refused_with_a_remedy(shape, hint):
    with pytest.raises(ValueError, match=hint):
        check_images(torch.zeros(shape), 3, "it")


class Checked(nn.Module):
    def forward(self, x):
        check_images(x, 3, "it")
        return x + 1


def test_it_is_no_part_of_traced_programs(recwarn):
    x = torch.zeros(2, 3, 4, 5)
    assert [node.op for node in fx.symbolic_trace(Checked()).graph.nodes] == ["placeholder", "call_function", "output"]
    assert torch.jit.trace(Checked(), x)(x[:, :1]).shape == (2, 1, 4, 5)
    assert not [warning for warning in recwarn if issubclass(warning.category, torch.jit.TracerWarning)]


def test_a_network_is_compiled_in_one_piece_and_still_refuses():
    torch._dynamo.reset()
    network = ImageClassifier(EANResNetCIFAR(20, "DIA", "full", base_channels=4), 3).eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(compiled(x), network(x), atol=1e-6)
    with pytest.raises(Exception, match="takes float images"):
        compiled(x[0])
