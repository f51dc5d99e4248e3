"""The main verb, end to end: search and pretrain a ResNet-50 on an ImageNet-style tree, by the ImageNet configs."""

import json
import time

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image

from ean_core.commands.search import run_search
from ean_core.common.config import load_config
from ean_core.data import CIFAR100, Digits, ImageTree, data_root
from ean_core.inference.export import export_backbone
from ean_core.runs.training import run_test, run_training

CLASSES, TRAIN, VAL, TEST, PIXELS = 10, 8, 2, 2, 32


def write_tree(root):
    """Small JPEGs from CIFAR-100's files where they are at hand, else from scikit-learn's digits."""
    has_cifar = (data_root() / "cifar-100-python" / "train").is_file()
    source = CIFAR100("trainval") if has_cifar else Digits("trainval")
    for label in range(CLASSES):
        chosen = (source.labels == label).nonzero().flatten()[: TRAIN + TEST].tolist()
        for place, index in enumerate(chosen):
            pixels = source[index]["inputs"].permute(1, 2, 0).expand(-1, -1, 3).numpy().astype(np.uint8)
            folder = root / ("train" if place < TRAIN else "val") / f"n{label:08d}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((PIXELS, PIXELS)).save(folder / f"{place}.JPEG")


def test_supernet_search_training_test_and_export(tmp_path, monkeypatch):
    write_tree(tmp_path / "data" / "imagenet")
    monkeypatch.setenv("EAN_DATA", str(tmp_path / "data"))

    everywhere = ["model.num_classes=10", "train_cfg.max_epochs=1"]
    for loader in ("train", "val", "test"):
        everywhere += [f"{loader}_dataloader.{setting}" for setting in ("batch_size=16", "num_workers=2")]
        everywhere += [f"{loader}_dataloader.dataset.size={PIXELS}"]
    held_out = [f"{loader}_dataloader.dataset.val_per_class={VAL}" for loader in ("train", "val")]

    supernet = run_training(load_config("supernet_resnet50_se_imagenet", everywhere + held_out), tmp_path / "supernet")
    few = ["search.strategy.evaluations=4", "search.strategy.schemes_per_step=2"]
    few += ["search.finalists.count=2", "search.finalists.images=16"]
    searching = load_config("search_resnet50_se_imagenet", everywhere + held_out + few)
    found = run_search(searching, supernet, tmp_path / "search")
    assert found.scheme.scheme.stages == (3, 4, 6, 3)
    record = json.loads((tmp_path / "search" / "search.json").read_text())
    assert record["scheme"]["scheme"] == str(found.scheme.scheme)
    assert all(round(evaluation.score * VAL * CLASSES / 100, 6) % 1 == 0 for evaluation in found.history)

    without_val = [option for option in everywhere if not option.startswith("val_")]
    scheme = "010-0010-110011-001" if found.scheme.cost == 0 else str(found.scheme.scheme)
    final = load_config("resnet50_se_imagenet", [*without_val, f"model.backbone.scheme={scheme}"])
    checkpoint = run_training(final, tmp_path / "final")
    metrics = run_test(final, checkpoint, tmp_path / "final")
    assert metrics.keys() == {"accuracy/top1", "accuracy/top5"}
    assert json.loads((tmp_path / "final" / "test.json").read_text())["images"] == TEST * CLASSES

    export_backbone(final, checkpoint, tmp_path / "backbone.safetensors")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "backbone.safetensors")}
    backbone = MODELS.build({"type": "EANResNet", "scheme": scheme, "init_cfg": init})
    backbone.init_weights()
    trained = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(backbone.layer4[2].conv3.weight, trained["backbone.layer4.2.conv3.weight"])

    images = ImageTree("trainval", size=PIXELS, augment=True)
    start = time.perf_counter()
    for index in range(len(images)):
        images[index]
    print(f"JPEG decoding: {len(images) / (time.perf_counter() - start):.0f} images/s a worker at {PIXELS} px")


def test_the_recorded_network_trains_for_a_step():
    config = load_config("resnet50_dia_imagenet")
    network = MODELS.build(config.model)
    assert str(network.backbone.scheme) == "110-0011-110010-011"
    loss = network(torch.randn(2, 3, 32, 32), torch.tensor([1, 2]), mode="loss")["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(np.log(1000), rel=0.2)
    assert all(parameter.grad is not None for parameter in network.parameters())
