"""Scores that outlast a search: whatever a supernet was asked once is never computed again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ean_core.scheme import ConnectionScheme

from .evaluator import Evaluator
from .ledger import Ledger

#: Seconds that one process waits for another one to read or write its scores.
PATIENCE_S = 60.0


class RememberedScores:
    """An evaluator that looks up what is known and has only the rest computed.

    The scores lie in a file of their own for each key, that is for each supernet, data set and precision; several
    searches may use it at once.

    Args:
        evaluator: computes what is not known.
        folder: of the file ``scores_KEY.jsonl``.

    Raises:
        ValueError: if the file is damaged, or of another key.
    """

    def __init__(self, evaluator: Evaluator, folder: Path) -> None:
        self.evaluator = evaluator
        digest = hashlib.sha256(json.dumps(evaluator.key, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"scores_{digest[:12]}.jsonl"
        self._known: dict[ConnectionScheme, float] = {}
        self._lines_read = 0

    @property
    def key(self) -> Mapping[str, Any]:
        return self.evaluator.key

    @property
    def stages(self) -> tuple[int, ...]:
        return self.evaluator.stages

    def standard_error(self, accuracy: float) -> float:
        return self.evaluator.standard_error(accuracy)

    def evaluate(self, schemes: Sequence[ConnectionScheme]) -> list[float]:
        """Accuracies in percent, in the order of ``schemes``."""
        if any(scheme not in self._known for scheme in schemes):
            with self._file() as ledger:
                self._read(ledger)
        unknown = [scheme for scheme in dict.fromkeys(schemes) if scheme not in self._known]
        if unknown:
            start = time.perf_counter()
            accuracies = self.evaluator.evaluate(unknown)
            seconds = round((time.perf_counter() - start) / len(unknown), 4)
            lines = [
                {"scheme": str(scheme), "accuracy": accuracy, "seconds": seconds}
                for scheme, accuracy in zip(unknown, accuracies, strict=True)
            ]
            with self._file() as ledger:
                ledger.append(*lines)
            self._known.update(zip(unknown, accuracies, strict=True))
        return [self._known[scheme] for scheme in schemes]

    def _file(self) -> Ledger:
        return Ledger(self.path, self.key, patience_s=PATIENCE_S)

    def _read(self, ledger: Ledger) -> None:
        for line in ledger.lines[self._lines_read :]:
            try:
                self._known[ConnectionScheme.parse(line["scheme"], self.stages)] = float(line["accuracy"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{self.path} holds a line that is no score: {line}; delete the file") from error
        self._lines_read = len(ledger.lines)
