"""Bottleneck ResNets with the structure and names of the paper authors' checkpoints, from their description."""

import torch
from torch import nn
from torch.nn import functional as F


class SharedSE(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class SharedSGE(nn.Module):
    def __init__(self, channels, groups=64):
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.zeros(1, groups, 1, 1))
        self.bias = nn.Parameter(torch.ones(1, groups, 1, 1))

    def forward(self, x):
        n, c, h, w = x.shape
        grouped = x.reshape(n * self.groups, c // self.groups, h, w)
        similar = (grouped * grouped.mean((2, 3), keepdim=True)).sum(1, keepdim=True)
        flat = similar.reshape(n * self.groups, -1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-5)
        gate = torch.sigmoid(flat.reshape(n, self.groups, h, w) * self.weight + self.bias)
        return (grouped * gate.reshape(n * self.groups, 1, h, w)).reshape(n, c, h, w)


class Squeezed(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.seq = nn.Sequential(
            nn.Linear(channels, channels // 20), nn.ReLU(), nn.Linear(channels // 20, 4 * channels)
        )

    def forward(self, x):
        return self.seq(x)


class SharedLSTM(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.w_ih = nn.ModuleList([Squeezed(channels)])
        self.w_hh = nn.ModuleList([Squeezed(channels)])

    def forward(self, x, hidden, cell):
        i, f, g, o = (self.w_ih[0](x) + self.w_hh[0](hidden)).chunk(4, 1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.sigmoid(cell), cell


class Block(nn.Module):
    def __init__(self, inside, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or inside != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(inside, 4 * width, 1, stride), nn.BatchNorm2d(4 * width))

    def residual(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))

    def shortcut(self, x):
        return x if self.downsample is None else self.downsample(x)


class Stage(nn.Module):
    def __init__(self, inside, width, blocks, stride, kind):
        super().__init__()
        self.ModuleList = nn.ModuleList(
            Block(inside if i == 0 else 4 * width, width, stride if i == 0 else 1) for i in range(blocks)
        )
        if kind == "DIA":
            self.lstm = SharedLSTM(4 * width)
        else:
            self.share_fc = {"SE": SharedSE, "SGE": SharedSGE}[kind](4 * width)

    def forward(self, x, bits):
        hidden = cell = torch.zeros(1, self.ModuleList[0].conv3.out_channels, dtype=x.dtype)
        for block, bit in zip(self.ModuleList, bits, strict=True):
            residual = block.residual(x)
            if bit and hasattr(self, "lstm"):
                hidden, cell = self.lstm(residual.mean((2, 3)), hidden, cell)
                residual = residual * hidden[:, :, None, None]
            elif bit:
                residual = self.share_fc(residual)
            x = F.relu(block.shortcut(x) + residual)
        return x


class Network(nn.Module):
    """``width`` is that of the first stage, 64 in ResNet-50."""

    def __init__(self, kind, stages, classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64)
        inside = 64
        for k, blocks in enumerate(stages):
            self.add_module(f"layer{k + 1}", Stage(inside, 64 * 2**k, blocks, 1 if k == 0 else 2, kind))
            inside = 256 * 2**k
        self.last_linear = nn.Linear(inside, classes)

    def forward(self, x, scheme):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage, bits in zip((self.layer1, self.layer2, self.layer3, self.layer4), scheme.by_stage, strict=True):
            x = stage(x, bits)
        return self.last_linear(x.mean((2, 3)))
