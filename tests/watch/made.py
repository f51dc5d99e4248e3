"""Run folders written by hand, as our hooks and commands would have written them at given times."""

import json
import os
from datetime import datetime, timezone

#: Start time of all runs, in seconds since the epoch.
BEGAN = datetime(2026, 3, 1, 12, 0, 0).timestamp()
SETTINGS = """default_hooks = dict(checkpoint=dict(interval=1{rule}))
model = dict(
    backbone=dict(
        attention='SE',
        depth=20,
        scheme='{scheme}',
        type='EANResNetCIFAR'),
    type='{type}')
"""


def validation(epoch, **metrics):
    named = {name.replace("_", "/"): value for name, value in metrics.items()}
    return {"iteration": 50 * epoch, "epoch": epoch, **named}


def training(folder, *, until=0.0, scheme="010-100-000", model="ImageClassifier", rule="", **fields):
    """A training of 4 epochs of 50 iterations, in its third epoch, last updated ``until`` seconds after its start."""
    data = folder / "20260301_120000" / "vis_data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "config.py").write_text(SETTINGS.format(rule=rule, scheme=scheme, type=model))
    (folder / "resnet20_se_digits.py").touch()
    progress = {
        "config": "resnet20_se_digits",
        "finished": False,
        "epoch": 3,
        "epochs": 4,
        "iteration": 150,
        "iterations": 200,
        "loss": 2.0,
        "learning_rate": 0.1,
        "images_per_second": 32.0,
        "seconds_left": 25.0,
        "first_start": BEGAN,
        "start": BEGAN,
        "starts": 1,
        "updated": BEGAN + until,
        "usual_interval": 25.0,
        "validations": [],
        "loss_interval": 50,
        "losses": [[50, 4.0], [100, 3.0], [150, 2.0]],
    }
    (folder / "progress.json").write_text(json.dumps({**progress, **fields}))


def record(path, *, at, **fields):
    """A record finished ``at`` seconds after the start."""
    finished = datetime.fromtimestamp(BEGAN + at, timezone.utc).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**fields, "finished": finished, "environment": {}}))


def trained(folder, *, at, epochs=4, **fields):
    """The record of a training."""
    fields = {"config": "resnet20_se_digits", "seconds": 100.0, "images_per_second": 64.0, "settings": {}, **fields}
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
