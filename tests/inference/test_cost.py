import torch
from torch import nn

from ean_core import EANResNet
from ean_core.inference.cost import clock_notes, count_bytes, count_macs, peak_memory

IMAGES = torch.randn(2, 3, 16, 16)


def test_operations_are_those_of_an_image():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 5))
    assert count_macs(network, IMAGES) == 256 * 9 * 3 * 8 + 8 * 256 * 5
    assert count_macs(network, torch.cat([IMAGES] * 3)) == 256 * 9 * 3 * 8 + 8 * 256 * 5


def test_resnet50_has_the_operations_of_the_literature():
    network = nn.Sequential(EANResNet(50, scheme="none", out_indices=(3,)))
    assert count_macs(lambda x: network(x)[-1], torch.zeros(1, 3, 224, 224)) == 4_087_136_256


def test_memory_is_what_lives_at_one_time():
    # 8, then 8 and 4 channels; what came before is free, views and in-place results are nothing new.
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3, padding=1), nn.Flatten()
    )
    channel = 2 * 256 * 4
    assert peak_memory(network, IMAGES) == 12 * channel
    assert peak_memory(nn.Sequential(network[0], nn.ReLU()), IMAGES) == 16 * channel
    assert peak_memory(nn.Identity(), IMAGES) == 0


def test_memory_kept_by_the_caller_counts_until_it_is_dropped():
    conv = nn.Conv2d(3, 8, 3, padding=1)

    def keeps(x):
        maps = [conv(x) for _ in range(3)]
        return maps[0] + 1

    assert peak_memory(keeps, IMAGES) == 4 * 8 * 2 * 256 * 4


def test_bytes_are_what_operators_read_and_write():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(2))
    weights, channel = 8 * 3 * 9 + 8, 2 * 256
    expected = 4 * (3 * channel + weights + 8 * channel + 2 * 8 * channel)  # the convolution; read and write of ReLU
    assert count_bytes(network, IMAGES) == expected // 2


def test_notes_tell_how_busy_the_machine_was():
    notes = clock_notes(torch.device("cpu"))
    assert notes["load_average_1min"] >= 0
