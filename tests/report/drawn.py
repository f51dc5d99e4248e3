"""Synthetic records in the form that trainings, tests and timings write."""

from ean_core.common.record import write_record


def save_run(
    folder, *, seed=0, scheme="010-100-000", accuracy=65.0, shared=True, config="resnet20_se_cifar100", **more
):
    """Write the records of one training and its test."""
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
    test["metrics"] = more.get("metrics", {"accuracy/top1": accuracy})
    write_record(folder / "test.json", kind="test", config=config, checkpoint={"name": f"epoch_{epochs}.pth"}, **test)


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
