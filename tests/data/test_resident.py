import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ean_core.common.seeding import Stream, generator
from ean_core.data import CIFAR100, Digits, EpochSampler, ResidentDataset, SampleKey, as_batch

SIZES = {"train": 997, "val": 400, "trainval": 1397, "test": 400}


def random_images(n=23, height=6, width=9, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (n, height, width, channels), dtype=np.uint8), [int(i) % 5 for i in range(n)]


def made(images=None, **options):
    images, labels = images or random_images()
    return ResidentDataset(images, labels, list("abcde"), **{"device": "cpu", **options})


def epochs(dataset, first, last, batch_size=8):
    """The batches of some epochs as a training run sees them."""
    sampler = EpochSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler, collate_fn=as_batch)
    for epoch in range(first, last):
        sampler.set_epoch(epoch)
        yield from loader


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in ("inputs", "labels")
    )


def by_hand(images, keys, pad, flip):
    """Crop, then flip, one image after the other, by the draws that a batch makes."""
    draw = generator(keys[0].seed, Stream.AUGMENTATION, keys[0].epoch, keys[0].item)
    n, zero = len(keys), [0] * len(keys)
    tops = torch.randint(2 * pad + 1, (n, 1), generator=draw).flatten().tolist() if pad else zero
    mirrored = (torch.rand(n, 1, generator=draw) < 0.5).flatten().tolist() if flip else zero
    lefts = torch.randint(2 * pad + 1, (n, 1), generator=draw).flatten().tolist() if pad else zero
    height, width = images.shape[1:3]
    batch = []
    for key, top, left, mirror in zip(keys, tops, lefts, mirrored, strict=True):
        image = np.zeros((height, width, images.shape[3]), dtype=np.uint8)
        for y in range(height):
            for x in range(width):
                source_y, source_x = y + top - pad, x + left - pad
                if 0 <= source_y < height and 0 <= source_x < width:
                    image[y, x] = images[key.item, source_y, source_x]
        batch.append(image[:, ::-1] if mirror else image)
    return torch.from_numpy(np.stack(batch).transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_equals_cropping_and_flipping_image_by_image(pad, flip, channels):
    images, labels = random_images(channels=channels)
    dataset = made((images, labels), pad=pad, flip=flip)
    for epoch in range(3):
        keys = [SampleKey(1, epoch, item) for item in (4, 0, 22, 7, 7, 13, 1, 2, 3, 5, 6, 8)]
        batch = dataset.__getitems__(keys)
        assert torch.equal(batch["inputs"], by_hand(images, keys, pad, flip))
        assert batch["labels"].tolist() == [labels[key.item] for key in keys]


def test_all_crops_and_both_directions_occur():
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
    dataset = made((image, [0]), pad=1, flip=True)
    batches = [dataset.__getitems__([SampleKey(0, epoch, 0)] * 16)["inputs"] for epoch in range(20)]
    assert len({tuple(picture.flatten().tolist()) for batch in batches for picture in batch}) == 3 * 3 * 2


def test_without_augmentation_a_batch_is_the_images_themselves():
    images, labels = random_images()
    (batch,) = DataLoader(
        made((images, labels)), 23, sampler=EpochSampler(images, shuffle=False, seed=0), collate_fn=as_batch
    )
    assert torch.equal(batch["inputs"], torch.from_numpy(images).permute(0, 3, 1, 2))
    assert batch["labels"].tolist() == labels


def test_a_batch_is_uint8_in_channels_last_order():
    batch = made(pad=2, flip=True).__getitems__([SampleKey(0, 0, item) for item in range(5)])
    assert batch["inputs"].dtype == torch.uint8
    assert batch["inputs"].shape == (5, 3, 6, 9)
    assert batch["inputs"].is_contiguous(memory_format=torch.channels_last)
    assert batch["labels"].dtype == torch.int64


def test_one_image_by_its_index_is_not_augmented_and_by_its_key_is():
    images, labels = random_images()
    dataset = made((images, labels), pad=3, flip=True)
    for index in (0, 22, -1):
        item = dataset[index]
        assert torch.equal(item["inputs"], torch.from_numpy(images[index]).permute(2, 0, 1))
        assert item["labels"] == labels[index]
    key = SampleKey(0, 0, 4)
    assert torch.equal(dataset[key]["inputs"], by_hand(images, [key], 3, True)[0])


@pytest.mark.parametrize("index", [23, -24])
def test_an_index_outside_is_an_index_error(index):
    with pytest.raises(IndexError, match=f"image {index} of 23"):
        made(pad=1)[index]


def test_a_run_that_starts_at_epoch_3_sees_what_an_uninterrupted_one_sees():
    dataset = made(pad=2, flip=True)
    torch.manual_seed(1)
    whole = list(epochs(dataset, 0, 5))
    torch.manual_seed(2)
    assert same(list(epochs(dataset, 0, 5)), whole)
    assert same(list(epochs(dataset, 3, 5)), whole[9:])
    assert not same(whole[:3], whole[3:6])


def test_the_fingerprint_tells_images_and_labels_and_nothing_else():
    images, labels = random_images()
    base = made((images, labels)).fingerprint
    assert made((images, labels), pad=2, flip=True).fingerprint == base
    assert made((images[:, ::-1], labels)).fingerprint != base
    assert made((np.asfortranarray(images), labels)).fingerprint == base
    assert made((images, [1, *labels[1:]])).fingerprint != base


def test_images_and_labels_of_different_number_are_refused():
    images, labels = random_images()
    with pytest.raises(ValueError, match="23 images but 22 labels"):
        made((images, labels[1:]))


# ---------------------------------------------------------------- the digits


def rows(dataset):
    images = torch.stack([dataset[index]["inputs"] for index in range(len(dataset))]).flatten(1).tolist()
    return [(*image, label) for image, label in zip(images, dataset.labels.tolist(), strict=True)]


@pytest.fixture(scope="module")
def digits():
    return {split: Digits(split, device="cpu") for split in SIZES}


@pytest.mark.parametrize("split", SIZES)
def test_digits_have_their_sizes_and_40_images_a_class_are_held_out(digits, split):
    dataset = digits[split]
    assert len(dataset) == SIZES[split]
    assert dataset[0]["inputs"].shape == (1, 8, 8)
    assert dataset.metainfo == {"classes": list("0123456789")}
    if split in ("val", "test"):
        assert dataset.labels.bincount().tolist() == [40] * 10


def test_digits_splits_are_disjoint_and_whole(digits):
    from sklearn.datasets import load_digits

    source = load_digits()
    whole = [
        (*(int(x) for x in np.rint(image.flatten() * 255 / 16)), int(label))
        for image, label in zip(source.images, source.target, strict=True)
    ]
    train, val, trainval, test = (rows(digits[split]) for split in ("train", "val", "trainval", "test"))
    assert len(set(whole)) == 1797  # so rows tell images apart
    assert sorted(train + val) == sorted(trainval)
    assert sorted(trainval + test) == sorted(whole)


def test_digits_test_images_are_the_last_of_each_class_and_validation_the_first(digits):
    from sklearn.datasets import load_digits

    source = load_digits()
    for label in range(10):
        members = np.rint(source.images[source.target == label] * 255 / 16).reshape(-1, 64).astype(int).tolist()
        for split, expected in (("test", members[-40:]), ("val", members[:40])):
            assert [list(row[:-1]) for row in rows(digits[split]) if row[-1] == label] == expected


def test_digits_are_the_same_each_time(digits):
    assert Digits("train", pad=1, device="cpu").fingerprint == digits["train"].fingerprint
    assert len({dataset.fingerprint for dataset in digits.values()}) == 4


def test_digits_refuse_an_unknown_split():
    with pytest.raises(ValueError, match="unknown split 'validation'"):
        Digits("validation")


# ---------------------------------------------------------------- CIFAR-100


def test_cifar100_splits_as_in_the_paper(cifar_root):
    from torchvision import datasets

    source = datasets.CIFAR100(cifar_root, train=True)
    sets = {split: CIFAR100(split, device="cpu") for split in ("train", "val", "trainval")}
    assert {split: len(dataset) for split, dataset in sets.items()} == {"train": 40000, "val": 10000, "trainval": 50000}
    assert sets["val"].labels.bincount().tolist() == [100] * 100
    assert sets["train"].labels.bincount().tolist() == [400] * 100
    assert torch.equal(sets["trainval"]._padded, torch.from_numpy(source.data))
    targets = np.asarray(source.targets)
    first = np.sort(np.concatenate([np.flatnonzero(targets == label)[:100] for label in range(100)]))
    rest = np.setdiff1d(np.arange(50000), first)
    for split, chosen in (("val", first), ("train", rest)):
        assert torch.equal(sets[split]._padded, torch.from_numpy(source.data[chosen]))
        assert sets[split].labels.tolist() == targets[chosen].tolist()


def test_cifar100_test_images_are_torchvisions(cifar_root):
    from torchvision import datasets

    source, dataset = datasets.CIFAR100(cifar_root, train=False), CIFAR100("test", device="cpu", pad=4)
    assert (len(dataset), dataset.metainfo["classes"][0]) == (10000, "apple")
    for index in (0, 9999):
        assert torch.equal(dataset[index]["inputs"], torch.from_numpy(source.data[index]).permute(2, 0, 1))
        assert dataset[index]["labels"] == source.targets[index]


@pytest.mark.parametrize("damaged", [False, True])
def test_missing_or_damaged_cifar_names_the_variable_to_set(tmp_path, monkeypatch, damaged):
    root = tmp_path / "data"
    if damaged:
        (root / "cifar-100-python").mkdir(parents=True)
        (root / "cifar-100-python" / "train").write_bytes(b"half")
    monkeypatch.setenv("EAN_DATA", str(root))
    monkeypatch.setattr("torchvision.datasets.CIFAR100.url", "http://127.0.0.1:9/cifar.tar.gz")  # no network
    with pytest.raises(FileNotFoundError, match=r"data/cifar-100-python.*set EAN_DATA to the folder that holds"):
        CIFAR100("val")
