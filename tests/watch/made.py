"""Folders of runs, made by hand: what mmengine and our commands would have written at given times."""

import json
import os
from datetime import datetime, timezone

#: Seconds since the epoch at which all of them began.
BEGAN = datetime(2026, 3, 1, 12, 0, 0).timestamp()
SETTINGS = """train_cfg = dict(max_epochs={epochs})
train_dataloader = dict(batch_size=16)
default_hooks = dict(checkpoint=dict(interval=1{rule}))
model = dict(
    backbone=dict(
        attention='SE',
        depth=20,
        scheme='{scheme}',
        type='EANResNetCIFAR'),
    type='{type}')
"""


def iteration(epoch, step, loss=1.0, seconds=0.5):
    return {"lr": 0.1, "data_time": 0.0, "loss": loss, "time": seconds, "epoch": epoch, "iter": step, "step": step}


def validation(epoch, **metrics):
    return {**{name.replace("_", "/"): value for name, value in metrics.items()}, "time": 0.1, "step": epoch}


def start(
    folder, lines, *, at=0.0, until=0.0, epochs=4, rule="", scheme="010-100-000", model="ImageClassifier", log=""
):
    """One start of a training: ``at`` seconds after they all began, its last news ``until`` seconds after."""
    name = datetime.fromtimestamp(BEGAN + at).strftime("%Y%m%d_%H%M%S")
    data = folder / name / "vis_data"
    data.mkdir(parents=True)
    settings = SETTINGS.format(epochs=epochs, rule=rule, scheme=scheme, type=model)
    (data / "config.py").write_text(settings)
    (folder / "resnet20_se_digits.py").write_text(settings)
    (folder / name / f"{name}.log").write_text(log)
    written = [folder / name / f"{name}.log"]
    if lines is not None:
        text = lines if isinstance(lines, str) else "".join(json.dumps(line) + "\n" for line in lines)
        (data / "scalars.json").write_text(text)
        written.append(data / "scalars.json")
    for path in written:
        os.utime(path, (BEGAN + until, BEGAN + until))
    return data


def record(path, *, at, **fields):
    """A record of ours that was finished ``at`` seconds after they all began."""
    finished = datetime.fromtimestamp(BEGAN + at, timezone.utc).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**fields, "finished": finished, "environment": {}}))


def trained(folder, *, at, epochs=4, **fields):
    fields = {"config": "resnet20_se_digits", "seconds": 100.0, "images_per_second": 64.0, **fields}
    record(folder / "record.json", at=at, kind="training", epochs=epochs, **fields)


def searched(folder, steps, *, until=0.0, finalists=(), count=2, torn="", **settings):
    """A ledger of ``(scheme, accuracy)`` by step; the reward is the accuracy."""
    folder.mkdir(parents=True, exist_ok=True)
    key = {"strategy": {"type": "random", **settings}, "seed": 1, "stages": [2, 2], "finalists": {"count": count}}
    lines = [key]
    for step, schemes in [*enumerate(steps), ("finalists", finalists)]:
        for scheme, accuracy in schemes:
            line = {"step": step, "scheme": scheme, "accuracy": accuracy, "standard_error": 0.5, "seconds": 2.0}
            line |= {"cost": float(scheme.count("1")), "reward": accuracy, "info": {"mean_probability": 0.6}}
            lines.append(line)
    path = folder / "ledger.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    os.utime(path, (BEGAN + until, BEGAN + until))


def found(folder, *, at, evaluations, scheme="10-11"):
    """The record of a search."""
    evaluation = {"scheme": scheme, "accuracy": 71.0, "cost": 3.0, "reward": 71.0, "standard_error": 0.5}
    fields = {"config": "search_resnet20_se_digits", "evaluations": evaluations, "rule": "mode", "scheme": evaluation}
    record(folder / "search.json", at=at, kind="search", **fields)
