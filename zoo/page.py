"""Pages generated from an index: ``README.md`` with a table per collection, a card per model, strips and figures."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ean_core.common.record import write_text
from ean_core.common.tasks import Metric, find_dataset, find_metric
from ean_core.common.text import markdown, markdown_cell, markdown_code, number_of
from ean_core.show.strip import scheme_strip
from ean_core.show.table import NetworkRow, in_percent, size_text

from .index import PACKAGED, Entry, Index, by_collection
from .names import VARIANTS

#: Folders of an index and patterns of the files generated in them; other files are left alone.
MADE = {"cards": "*resnet*.*.md", "strips": "[01c]*.svg", "figures": "resnet*.svg"}

#: Usage example on a card, by task.
USES = {
    "": """import zoo

model = zoo.get_model("{name}", pretrained=True).eval()
transforms = zoo.get_weights("{name}").transforms()
""",
    "Crowd Counting": """from tasks.crowd_counting.counter import Counter

counter = Counter.from_zoo("{name}")
count, density = counter("street.jpg")
""",
    "Semantic Segmentation": """from tasks.segmentation.segmenter import Segmenter

segmenter = Segmenter.from_zoo("{name}")
labels, classes = segmenter("street.jpg")
""",
}


def write_pages(index: Index) -> None:
    """Regenerate all pages of an index, and remove those of models that it no longer has."""
    from ean_core.show.figures import trade_figure  # loads Matplotlib

    texts, figures = pages(index), figures_of(index)
    for path, text in texts.items():
        write_text(index.root / path, text)
    for path, (rows, title) in figures.items():
        if not (index.root / path).is_file():
            (index.root / path).parent.mkdir(exist_ok=True)
            trade_figure(rows, title, index.root / path)
    for folder, kind in MADE.items():
        for old in (index.root / folder).glob(kind):
            if old.relative_to(index.root).as_posix() not in {*texts, *figures}:
                old.unlink()


def pages(index: Index) -> dict[str, str]:
    """Return the text of each page, by its path in the index's folder."""
    entries = list(index.entries.values())
    strips = {_strip(entry): scheme_strip(entry.scheme) + "\n" for entry in entries}
    cards = {_card(entry): card(entry) for entry in entries}
    return {"README.md": overview(index), **cards, **strips}


def figures_of(index: Index) -> dict[str, tuple[list[NetworkRow], str]]:
    """Return the rows and title of each figure, one per collection with several timed classifiers.

    Keys are paths with a hash of the content in the name.
    """
    figures = {}
    for collection, entries in by_collection(index.entries.values()).items():
        rows = [row for row in map(_row, entries) if row is not None]
        if len(rows) < 2:
            continue
        title = f"ResNet-{entries[0].name.depth} on {find_dataset(entries[0].name.dataset).title}"
        shown = [(row.name, str(row.scheme), row.parameters, row.accuracy, row.increment) for row in rows]
        digest = hashlib.sha256(json.dumps([title, shown]).encode()).hexdigest()[:8]
        figures[f"figures/{collection}-{digest}.svg"] = (rows, title)
    return figures


def overview(index: Index) -> str:
    """Return the text of ``README.md``: an introduction and one table per collection."""
    introduction = index.root / "introduction.md"
    parts = [introduction.read_text(encoding="utf-8").rstrip() if introduction.is_file() else "# Models"]
    figures = figures_of(index)
    for collection, entries in by_collection(index.entries.values()).items():
        name = entries[0].name
        parts.append(f"## ResNet-{name.depth} on {find_dataset(name.dataset).title}")
        parts.append(_table(entries))
        drawn = next((path for path in figures if path.startswith(f"figures/{collection}-")), None)
        outlined = ", outlined with a constant gate" if any(entry.scheme.constants for entry in entries) else ""
        if drawn:
            parts.append(
                f"![Accuracy against relative time increment of {len(figures[drawn][0])} networks]({drawn})\n\n"
                f"*As in Figure 1 of the paper: test accuracy against relative inference time increment (Eqn 9; "
                f"{_conditions(entries)}). Circle size shows the number of parameters; squares are blocks, colored if "
                f"connected{outlined}. Standard errors of the accuracies are at most about {_usual_error(entries)} "
                f"points.*"
            )
    return "\n\n".join(parts) + "\n"


def card(entry: Entry, on_hub: type | None = None) -> str:
    """Return the text of a model's card.

    Args:
        entry: index entry of the model.
        on_hub: the network's class, for the card in a repository of the Hugging Face Hub, which has no links into the
            index.
    """
    name, metadata, results = entry.name, entry.metadata, entry.fields["Results"][0]
    test, training = entry.record("test"), entry.record("record")
    images, split = test["images"], "validation" if validated(test) else "test"
    size = training["settings"].get("image_size")
    of_size = f" of {size_text(size)} pixels" if isinstance(size, (list, tuple)) else ""
    what = f"ResNet-{name.depth}" + (
        f" with {name.module}, {VARIANTS[name.variant]}" if name.variant else ", no attention"
    )
    number = metadata.get("Training Images")
    trained_on = (f"{number:,} images of " if number else "") + markdown_cell(metadata["Training Data"])
    chosen = metadata.get("Selected Epoch")
    caution = ""
    if chosen and split == "validation":
        caution = " These images also selected the checkpoint: errors on other images are likely somewhat larger."
    stored = markdown_cell(metadata.get("Stored Precision", ""))
    weights = _initial_weights(training["settings"]["model"])
    fold = training.get("fold")
    if fold:
        share = fold["chosen_on"]
        if share["which"].startswith("test"):
            caution = (
                f" {share['images']:,} of them ({share['which']}) chose the constant gates: errors on other images may "
                "be larger."
            )
    intervals = {
        find_metric(name).title: f" [{float(low):.2f}, {float(high):.2f}] (95 %)"
        for name, (low, high) in test.get("intervals", {}).items()
    }
    metrics = "\n".join(
        f"| {markdown_cell(key)} | {value:.2f}{_standard_error(key, value, images)}{intervals.get(key, '')} |"
        for key, value in results["Metrics"].items()
    )
    facts = {
        "connections": ("" if on_hub else f"![]({Path('..') / _strip(entry)}) ")
        + f"`{entry.scheme}`, {metadata['Connections']} of {len(entry.scheme.bits)} blocks"
        + (f", {entry.scheme.constants} more with a constant gate" if entry.scheme.constants else ""),
        "parameters": f"{metadata['Parameters']:,}",
        "multiply-accumulates": f"{metadata['FLOPs'] / 1e6:,.1f} million per image{of_size}",
        "file": f"{markdown_code(entry.file)}, {entry.size / 1e6:.2f} MB"
        + (f", weights in {stored}; metrics measured before rounding" if stored else ""),
        "SHA-256": markdown_code(entry.sha256),
    }
    made = {
        "command": markdown_code(metadata["Training Command"]),
        "config": markdown_code(entry.config),
        "length": f"{number_of(metadata['Epochs'], 'epoch')}, batch {metadata['Batch Size']}, seed {metadata['Seed']}"
        + (f"; checkpoint of epoch {chosen}, best on the validation images" if chosen else ""),
        **({"constant gates": _folding(fold)} if fold else {}),
        **({"initial weights": markdown_code(weights)} if weights else {}),
        "optimization": markdown_cell(", ".join(metadata["Training Techniques"])),
        "precision": markdown_cell(_precision(training["settings"]["optim_wrapper"])),
        "machine": f"{markdown_cell(metadata['Training Resources'])}; {_duration(metadata['Training Time (s)'])}",
        "versions": markdown_cell(
            ", ".join(f"{package} {version}" for package, version in metadata["Versions"].items())
        ),
        "finished": markdown_cell(metadata["Finished"]),
    }
    from_repository = []
    if on_hub:
        from ean_core.hub import loading_code  # loads PyTorch

        from_repository = [f"From this repository:\n\n{loading_code(on_hub)}"]
    records = Path("..") / entry.records.relative_to(entry.root)
    use = USES.get(name.task, USES[""]).format(name=name)
    parts = [
        f"# {name}",
        f"{what}, for {name.task.lower()}; trained on {trained_on}.",
        f"```py\n{use}```",
        *from_repository,
        f"In an OpenMMLab config: `init_cfg=dict(type='Pretrained', checkpoint='ean://{name}')`.",
        f"## On {images:,} {split} images\n\n| metric | value |\n|---|---|\n{metrics}\n\n"
        f"Measured by {markdown_code(test['command'])}; `ean zoo verify {name} --metrics` repeats the measurement."
        + caution,
        "## Network\n\n" + _facts(facts),
        *(["## Inference time\n\n" + _timings(metadata["Timing"])] if metadata.get("Timing") else []),
        "## Training\n\n" + _facts(made),
    ]
    if not on_hub:
        parts.append(
            f"Records: [training]({records / 'record.json'}), [test]({records / 'test.json'}), "
            f"[log]({records / 'log.jsonl'})."
        )
    return "\n\n".join(parts) + "\n"


def _folding(fold: Mapping[str, Any]) -> str:
    """Describe how constants took the place of gates, and what that changed on images that did not choose them."""
    metric, reported = Metric.of(fold), fold["reported_on"]
    difference = reported["folded"]["difference"]
    return markdown_cell(
        f"means over {fold['mean_gates']['images']:,} training images, chosen on {fold['chosen_on']['images']:,} "
        f"{fold['chosen_on']['which']}; on {reported['images']:,} {reported['which']}: {metric.label} "
        f"{difference['value']:+.2f} ± {metric.measured(difference['standard_error'])}"
    )


def _initial_weights(model: Mapping[str, Any]) -> str | None:
    """Return the checkpoint that training started from; None if it started from random weights."""
    for part in (model, model.get("backbone") or {}):  # the network's own weights are loaded last
        given = part.get("init_cfg")
        for each in given if isinstance(given, list) else [given]:
            if isinstance(each, Mapping) and each.get("checkpoint"):
                return str(each["checkpoint"])
    return None


def validated(test: Mapping[str, Any]) -> bool:
    """Whether a test record is on validation images, because the test images were not available."""
    return test.get("data", {}).get("split") == "val"


def timing_of(entry: Entry, form: str) -> Mapping[str, Any] | None:
    """Return a model's timing in a form, ``'eager'`` or ``'deployed'``, if there is one."""
    return next((row for row in entry.metadata.get("Timing", ()) if row["Form"] == form), None)


def increment(entry: Entry, form: str) -> str:
    """Format a model's relative inference time increment in percent with its 95 % interval; empty if not timed."""
    row = timing_of(entry, form)
    if row is None or not entry.scheme.gates:
        return ""
    return _increment(row)


def _increment(timing: Mapping[str, Any]) -> str:
    interval = [value / 100 for value in timing["Interval (%)"]]
    return in_percent(timing["Increment (%)"] / 100, interval or None)


def _table(entries: Sequence[Entry]) -> str:
    metrics = list(dict.fromkeys(key for entry in entries for key in entry.metrics))
    titles = [
        "model",
        "connections",
        *map(markdown_cell, metrics),
        "images",
        "parameters",
        "GMACs",
        "increment (%)",
        "deployed (%)",
        "MB",
    ]
    rows = [
        [
            f"[`{entry.name}`]({_card(entry)})",
            f"![{entry.scheme}]({_strip(entry)})",
            *(f"{entry.metrics[key]:.2f}" if key in entry.metrics else "" for key in metrics),
            entry.split,
            f"{entry.metadata['Parameters']:,}",
            f"{entry.metadata['FLOPs'] / 1e9:.3g}",
            increment(entry, "eager"),
            increment(entry, "deployed"),
            f"{entry.size / 1e6:.2f}",
        ]
        for entry in entries
    ]
    filled = [i for i in range(len(titles)) if any(row[i] for row in rows)]
    lines = [[titles[i] for i in filled], *([row[i] for i in filled] for row in rows)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|---" * len(filled) + "|", *text[1:]])


def _timings(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| form | latency (ms) | increment (%) | batch | size | precision | device |", "|---" * 7 + "|"]
    for row in rows:
        cells = [
            row["Form"],
            f"{row['Latency (ms)']:.2f}",
            _increment(row),
            str(row["Batch Size"]),
            size_text(row["Image Size"]),
            row["Precision"],
            row["Device"],
        ]
        lines.append("| " + " | ".join(map(markdown_cell, cells)) + " |")
    commands = dict.fromkeys(markdown_code(row["Command"]) for row in rows)
    return (
        "\n".join(lines)
        + f"\n\nIncrements are over the vanilla network in the same form, measured in one run of {', '.join(commands)}."
    )


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())])


def _row(entry: Entry) -> NetworkRow | None:
    timing, accuracy = timing_of(entry, "eager"), entry.metrics.get("Top 1 Accuracy")
    if timing is None or accuracy is None:
        return None
    label = " ".join(filter(None, [VARIANTS[entry.name.variant], entry.name.module]))
    return NetworkRow(
        label if entry.name.variant != "best" else f"best {entry.name.module}",
        entry.scheme,
        entry.metadata["Parameters"],
        accuracy,
        increment=timing["Increment (%)"] / 100,
    )


def _conditions(entries: Sequence[Entry]) -> str:
    found = [timing_of(entry, "eager") for entry in entries]
    texts = (f"batch {row['Batch Size']}, {row['Precision']}, {row['Device']}" for row in found if row)
    return markdown("; ".join(dict.fromkeys(texts)))


def _duration(seconds: int) -> str:
    return number_of(seconds, "second") if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _precision(wrapper: Mapping[str, Any]) -> str:
    kind = str(wrapper.get("type", "OptimWrapper"))
    if "Bf16" in kind:
        return "bf16 autocast"
    return f"{wrapper.get('dtype', 'fp16')} autocast" if "Amp" in kind else "fp32"


def _usual_error(entries: Sequence[Entry]) -> str:
    """The largest standard error of the accuracies of timed models."""
    found = [(entry.metrics["Top 1 Accuracy"], entry.record("test")["images"]) for entry in entries if _row(entry)]
    return f"±{max(_binomial(value, images) for value, images in found):.1f}"


def _binomial(accuracy: float, images: int) -> float:
    """Standard error, in percentage points, of an accuracy in percent."""
    share = accuracy / 100
    return 100 * math.sqrt(share * (1 - share) / images)


def _standard_error(metric: str, value: float, images: int) -> str:
    return f" ± {_binomial(value, images):.2f} (standard error)" if metric.endswith("Accuracy") else ""


def _card(entry: Entry) -> str:
    return f"cards/{entry.name}.md"


def _strip(entry: Entry) -> str:
    return f"strips/{entry.scheme}.svg"


if __name__ == "__main__":  # python -m zoo.page, after changing the introduction or this module
    write_pages(Index(PACKAGED))
