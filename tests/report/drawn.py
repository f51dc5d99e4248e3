"""Synthetic records in the form that trainings, tests and timings write."""

from ean_core.common.bits import pack_bits
from ean_core.common.record import write_record


def save_run(
    folder, *, seed=0, scheme="010-100-000", accuracy=65.0, shared=True, config="resnet20_se_cifar100", **more
):
    """Write the records of one training and its test; ``right``, if given, are the images that were right, one flag
    each."""
    epochs, data = more.get("epochs", 24), {"type": "CIFAR100", "split": "test"}
    backbone = {"type": "EANResNetCIFAR", "depth": 20, "attention": "SE", "shared": shared}
    optimizer = {"type": "SGD", "lr": more.get("lr", 0.1)}
    settings = {
        "model": {"type": "ImageClassifier", "backbone": {**backbone, **more.get("backbone", {})}},
        "test_dataloader": {"dataset": more.get("data", data)},
        "optim_wrapper": {"optimizer": optimizer},
    }
    write_record(folder / "record.json", kind="training", config=config, seed=seed, epochs=epochs, settings=settings)
    test = {"scheme": scheme, "parameters": 279024, "images": 10000}
    if "right" in more:
        right = more["right"]
        accuracy, test["images"] = 100 * sum(right) / len(right), len(right)
        test["correct"] = {"bits": pack_bits(right), "labels": more.get("labels", "of these images")}
    test["metrics"] = more.get("metrics", {"accuracy/top1": accuracy})
    checkpoint = {"name": f"epoch_{epochs}.pth", **more.get("checkpoint", {})}
    write_record(
        folder / "test.json", kind="test", config=config, checkpoint=checkpoint, **{**test, **more.get("test", {})}
    )


def save_fold(folder, front, reported, **more):
    """Write a record of ``ean fold`` of a network with two gates.

    Args:
        folder: of the record.
        front: scheme, accuracy and difference of the best of each number of computed gates; the last is chosen.
        reported: the same of the networks on other images, by their names in the record.
    """

    def line(scheme, score, difference):
        found = {"scheme": scheme, "score": score, "standard_error": 0.5}
        return {**found, "difference": {"value": difference, "standard_error": 0.25, "interval": None}}

    write_record(
        folder / "fold.json",
        kind="fold",
        **{
            "config": "resnet20_se_cifar100",
            "source": {"checkpoint": "epoch_24.pth", "scheme": "010-100-000"},
            "attention": "SE",
            "scheme": front[-1][0],
            "parameters": 279024,
            "margin": None,
            "chosen_on": {"which": "validation images", "images": 10000, "front": [line(*each) for each in front]},
            "reported_on": {
                "which": "test images",
                "images": 5000,
                **{name: line(*each) for name, each in reported.items()},
            },
            **more,
        },
    )


def save_timing(path, rows, **more):
    """Write a timing record, by default ``timing.json``, with rows of scheme, attention, form and increment."""
    rounds = more.get("rounds", 20)
    networks = {
        f"{scheme}, {form}": {
            "scheme": scheme,
            "parameters": 279024,
            "attention": attention,
            "form": form,
            "median_s": 0.01,
            "increment": increment,
            "increment_interval": [increment - 0.01, increment + 0.01] if rounds >= 6 else None,
        }
        for scheme, attention, form, increment in rows
    }
    conditions = {"batch": 50, "size": 32, "dtype": "float32", "device": "cpu", "rounds": rounds}
    file = path if path.suffix else path / "timing.json"
    write_record(file, kind="timing", networks=networks, **conditions)


def save_groups(folder, accuracies, *, config="resnet20_se_cifar100", **groups):
    """Write a record of schemes to be trained individually, by group, and the runs of some of them.

    Args:
        folder: of the record.
        accuracies: by scheme that was trained, one a seed.
        groups: schemes of each.
    """
    write_record(folder / "schemes.json", kind="schemes trained alone", config=config, groups=groups, seed=0)
    for scheme, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            save_run(folder / scheme / f"seed_{seed}", scheme=scheme, seed=seed, accuracy=accuracy, config=config)
