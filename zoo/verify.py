"""Check published files against their entries, cards and records."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from ean_core.backbone import find_backbone
from ean_core.common.config import load_config
from ean_core.common.hashes import file_hash
from ean_core.common.tasks import find_metric
from ean_core.networks import build_network
from ean_core.runs.training import run_test
from ean_core.weights.addresses import read_metadata
from ean_core.weights.loading import optional_prefixes

from .index import Entry
from .places import places

TOLERANCE = 0.05  # percentage points, or units of the metric


@dataclass
class Verdict:
    """Result of verifying one model.

    Args:
        name: model name.
        file: file that was checked; None if it is not on this machine.
        problems: descriptions of the mismatches.
        measured: metrics, if they were measured again.
        note: why something was not checked.
    """

    name: str
    file: Path | None
    problems: list[str] = field(default_factory=list)
    measured: Mapping[str, float] | None = None
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether all checks passed."""
        return not self.problems


def verify(entry: Entry, *, metrics: bool = False) -> Verdict:
    """Check an entry against its file and records.

    Args:
        entry: index entry of the model.
        metrics: repeat the test if the data are available; a difference above 0.05 is a problem.
    """
    file = next(places(entry), None)
    verdict = Verdict(str(entry.name), file)
    verdict.problems += _record_problems(entry)
    if file is None:
        verdict.note = f"its file is not on this machine; `ean zoo download {entry.name}` fetches it"
        return verdict
    try:
        verdict.problems += _file_problems(entry, file)
    except Exception as error:  # any error raised by a wrong network or file is a problem of this entry
        verdict.problems.append(f"its network cannot be built from its entry and file: {error}")
    if metrics and not verdict.problems:
        try:
            verdict.measured = measure(entry, file)
        except (OSError, ValueError) as error:  # no data, or a config that is not available
            verdict.note = f"not measured: {error}"
        else:
            verdict.problems += [
                f"{key} is {verdict.measured.get(key, float('nan')):.3f}, its card says {value:.3f}"
                for key, value in entry.metrics.items()
                if not abs(verdict.measured.get(key, float("nan")) - value) <= TOLERANCE
            ]
    return verdict


def measure(entry: Entry, file: Path) -> dict[str, float]:
    """Measure a model on the images of its test record; returns metrics by OpenMMLab's names.

    Raises:
        FileNotFoundError: if the images are not available.
    """
    config = load_config(entry.config)
    config.model = entry.network
    split = entry.record("test").get("data", {}).get("split")
    if split:
        config.test_dataloader.dataset.split = split
    config.log_level = "ERROR"
    with tempfile.TemporaryDirectory() as folder:
        found = run_test(config, file, Path(folder))
    return {find_metric(key).title: value for key, value in found.items()}


def _file_problems(entry: Entry, file: Path) -> Iterator[str]:
    sha256 = file_hash(file)
    if file.stat().st_size != entry.size:
        yield f"{file.name} has {file.stat().st_size:,} bytes, its entry says {entry.size:,}"
    if sha256 != entry.sha256:
        yield f"the SHA-256 of {file.name} is {sha256[:8]}…, its entry says {entry.sha256[:8]}…"
        return  # do not read an altered file further
    with torch.device("meta"):  # its size is not known to be that of the file
        network = build_network(entry.network)
    own, state = (
        {name: value.shape for name, value in each.items()} for each in (network.state_dict(), load_file(file))
    )
    for name in own.keys() ^ state.keys():
        if name.startswith(optional_prefixes(network)):
            own.pop(name, None)
            state.pop(name, None)
    if own != state:
        differ = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name] != state[name]]
        yield f"its network and its file differ in {', '.join(differ[:4])}"
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if entry.metadata.get("Connections", entry.scheme.connections) != entry.scheme.connections:
        yield f"its entry says {entry.metadata['Connections']} connections, its scheme is {entry.scheme}"
    if parameters != entry.metadata["Parameters"]:
        yield f"its network has {parameters:,} parameters, its entry says {entry.metadata['Parameters']:,}"
    schemes = {str(find_backbone(network).scheme), read_metadata(file).get("scheme"), str(entry.scheme)}
    if len(schemes) != 1:
        yield f"network, file and entry have different schemes: {', '.join(sorted(map(str, schemes)))}"


def _record_problems(entry: Entry) -> Iterator[str]:
    try:
        test, training = entry.record("test"), entry.record("record")
    except (OSError, ValueError) as error:
        yield f"its records cannot be read: {error}"
        return
    recorded = {find_metric(key).title: value for key, value in test["metrics"].items()}
    if recorded.keys() != entry.metrics.keys() or any(
        abs(recorded[key] - value) > 1e-6 for key, value in entry.metrics.items()
    ):
        yield f"its entry says {dict(entry.metrics)}, its test record {recorded}"
    for key, value in (("Epochs", training["epochs"]), ("Seed", training["seed"])):
        if entry.metadata.get(key) != value:
            yield f"{key} is {entry.metadata.get(key)} in its entry, {value} in its training record"
    if test["scheme"] != str(entry.scheme):
        yield f"its scheme is {entry.scheme}, in its test record {test['scheme']}"
