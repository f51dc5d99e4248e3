import copy

import pytest
import torch

from ean_core import EANResNet, EANResNetCIFAR
from ean_core.inference import deploy
from ean_core.inference.graphs import CUDAGraphs
from ean_core.inference.ops import plain_operators

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def network():
    torch.manual_seed(0)
    return EANResNetCIFAR(20, "DIA", scheme="full").eval()


def test_on_a_cpu_a_network_runs_as_it_is():
    images = torch.randn(2, 3, 32, 32)
    deployed = deploy(network(), cuda_graphs=True)
    with torch.no_grad():
        for got, expected in zip(deployed(images), deploy(network())(images), strict=True):
            assert torch.equal(got, expected)
    assert not deployed.graphs.recordings


def test_a_copy_records_for_itself():
    graphs = CUDAGraphs()
    graphs.recordings["key"] = object()
    assert copy.deepcopy(graphs).recordings == {}


def test_compiling_and_recording_exclude_each_other():
    with pytest.raises(ValueError, match="compile=True and cuda_graphs=True: choose one"):
        deploy(network(), compile=True, cuda_graphs=True)


@needs_gpu
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_replays_compute_what_the_network_does(mode):
    plain, recorded = deploy(network()).cuda(), deploy(network(), cuda_graphs=True).cuda()
    for seed, size in ((0, 32), (1, 32), (2, 40), (3, 32)):
        images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(seed)).cuda()
        with mode():
            got, expected = recorded(images), plain(images)
            kept = [value.clone() for value in got]
            recorded(torch.zeros_like(images))
        for a, b, c in zip(got, expected, kept, strict=True):
            torch.testing.assert_close(a, b)
            assert torch.equal(a, c)  # a later pass does not write into it
    assert len(recorded.graphs.recordings) == 2


@needs_gpu
@pytest.mark.parametrize("attention", ["SE", "DIA", {"type": "SGE", "groups": 16}, {"type": "SE", "window": (24, 40)}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("kind", [EANResNetCIFAR, EANResNet])
def test_bottleneck_networks_agree_on_a_gpu_with_kernels_and_recorded(kind, dtype, attention):
    torch.manual_seed(0)
    depth = 164 if kind is EANResNetCIFAR else 50
    network = kind(depth, attention, scheme="full").eval().cuda()
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    plain, recorded = deploy(network, dtype=dtype), deploy(network, dtype=dtype, cuda_graphs=True)
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for size in (32, 64):
            images = torch.randn(3, 3, size, size).cuda()
            expected = network(images)[-1]
            with plain_operators():
                others = [plain(images)[-1]]
            for made in (*others, plain(images)[-1], recorded(images)[-1], recorded.cpu().cuda()(images)[-1]):
                assert (made - expected).abs().max() <= tolerance * expected.abs().max()


@needs_gpu
def test_norms_in_another_order_of_memory_are_no_trouble():
    network = EANResNet(50, scheme="full", norm_cfg={"type": "GN", "num_groups": 4}).eval().cuda()
    images = torch.randn(2, 3, 64, 64).cuda()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        torch.testing.assert_close(deploy(network)(images)[-1], network(images)[-1], rtol=1e-4, atol=1e-4)
