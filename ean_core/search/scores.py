"""Scores that persist across searches of the same supernet."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import Timeout

from ean_core.common.errors import InUseError
from ean_core.common.output import say
from ean_core.common.tasks import Metric
from ean_core.common.writing import file_lock, open_in_place
from ean_core.scheme import ConnectionScheme

from .evaluator import Evaluator
from .scorer import Score

#: Seconds to wait for another process that is reading or writing its scores.
PATIENCE_S = 60.0


class RememberedScores:
    """An evaluator that looks up known scores and computes only the others.

    There is one file per key, that is, per supernet, data set and precision: a line with the key, then one line per
    scheme. Several searches may use it at once.

    Args:
        evaluator: computes unknown scores.
        folder: folder of the file ``scores_KEY.jsonl``.
        say: called with notices.

    Raises:
        ValueError: at first use, if the file is damaged or has another key.
        InUseError: if another process locks the file for a minute.
        LinkError: if the file is a link.
    """

    def __init__(self, evaluator: Evaluator, folder: Path, say: Callable[[str], None] = say) -> None:
        self.evaluator = evaluator
        self._key = json.dumps(evaluator.key, sort_keys=True)
        self.path = folder / f"scores_{hashlib.sha256(self._key.encode()).hexdigest()[:12]}.jsonl"
        self._say = say
        self._known: dict[ConnectionScheme, Score] = {}
        #: Number of bytes of the file read so far.
        self._end = 0

    @property
    def key(self) -> Mapping[str, Any]:
        return self.evaluator.key

    @property
    def stages(self) -> tuple[int, ...]:
        return self.evaluator.stages

    @property
    def metric(self) -> Metric:
        return self.evaluator.metric

    def standard_error(self, score: float) -> float:
        return self.evaluator.standard_error(score)

    def evaluate(self, schemes: Sequence[ConnectionScheme]) -> list[Score]:
        """Return the metric of each scheme, in the order of ``schemes``."""
        if any(scheme not in self._known for scheme in schemes):
            self._exchange()
        unknown = [scheme for scheme in dict.fromkeys(schemes) if scheme not in self._known]
        if unknown:
            start = time.perf_counter()
            scores = self.evaluator.evaluate(unknown)
            seconds = round((time.perf_counter() - start) / len(unknown), 4)
            self._exchange(
                *(
                    {
                        "scheme": str(scheme),
                        self.metric.label: float(score),
                        "standard_error": score.standard_error,
                        "seconds": seconds,
                    }
                    for scheme, score in zip(unknown, scores, strict=True)
                )
            )
            self._known.update(zip(unknown, scores, strict=True))
        return [self._known[scheme] for scheme in schemes]

    def _exchange(self, *lines: Mapping[str, Any]) -> None:
        """Read the lines added to the file since the last call, append lines and sync them to disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with file_lock(f"{self.path}.lock", timeout=PATIENCE_S), open_in_place(self.path, "a+b") as file:
                file.seek(self._end)
                *whole, torn = file.read().split(b"\n")
                for text in whole:
                    self._read(text)
                if torn:  # its writer was killed
                    self._say(f"{self.path}: dropped a torn last line of {len(torn)} bytes")
                    file.truncate(self._end)
                new = [] if self._end else [json.loads(self._key)]
                file.write("".join(json.dumps(line) + "\n" for line in (*new, *lines)).encode())
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
        except Timeout:
            raise InUseError(
                f"another process is using {self.path}; wait for it, or choose another folder with search.scores=FOLDER"
            ) from None

    def _read(self, text: bytes) -> None:
        try:
            line = json.loads(text)
            if not self._end:
                if line != json.loads(self._key):
                    raise ValueError("it belongs to another supernet, data set or precision")
            else:
                value = float(line[self.metric.label])
                error = line.get("standard_error")  # the oldest files hold accuracies only
                score = Score(value, self.standard_error(value) if error is None else float(error))
                self._known[ConnectionScheme.parse(line["scheme"], self.stages)] = score
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path} has a line that is not a score: {text[:80]!r} ({error}); delete the file to compute its "
                "scores again"
            ) from error
        self._end += len(text) + 1
