"""Run records: the command, seed, versions and hardware behind every figure."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .text import csv_line
from .writing import replacing

#: Maximum size of a JSON or text file in bytes; parsed, it takes twenty times as much memory.
MAX_JSON = 2**26


def command() -> str:
    """Return the command line of this process, as typed in a shell."""
    program = Path(sys.argv[0])
    name = "ean" if program.name in ("ean", "cli.py") else program.name
    return shlex.join([name, *sys.argv[1:]])


def environment() -> dict[str, Any]:
    """Return package versions and hardware, as plain values."""
    import torch  # slow to import; records are also read where nothing is measured

    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in ("torch", "torchvision", "mmengine", "numpy")},
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def write_record(path: str | os.PathLike[str], **fields: Any) -> Path:
    """Write a record as JSON, atomically, with the command, the time and the environment.

    Args:
        path: file to write; its folder is created.
        fields: the record's own plain values; they come first in the file.
    """
    path = Path(path)
    record = {
        **fields,
        "command": command(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment(),
    }
    write_text(path, json.dumps(record, indent=2) + "\n")
    return path


def read_record(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read a record.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a regular file, or not a record.
    """
    record = read_json(Path(path), "is not a run record")
    if not isinstance(record, dict) or "environment" not in record:
        raise ValueError(f"{path} is not a run record: it has no 'environment'")
    return record


def read_json(path: Path, problem: str) -> Any:
    """Read a JSON file from an untrusted source.

    Args:
        path: file to read.
        problem: of a file that cannot be read, for the message.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON, nested too deeply, not a regular file, or larger than :data:`MAX_JSON`; begins
            with its path.
    """
    try:
        return json.loads(read_small(path))
    except (ValueError, RecursionError) as error:  # of JSON, UTF-8 and numbers of thousands of digits
        reason = str(error)
        own = reason.startswith(f"{path} ")
        raise ValueError(f"{path} {problem}: {f'it {reason[len(str(path)) + 1 :]}' if own else reason}") from error


def read_small(path: Path) -> bytes:
    """Read a file of at most :data:`MAX_JSON` bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a regular file, or larger.
    """
    check_regular(path)
    with path.open("rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ValueError(f"{path} has more than {MAX_JSON:,} bytes")
    return content


def check_regular(path: Path) -> None:
    """Refuse FIFOs and devices: reading those would never end.

    Raises:
        ValueError: if it exists, and is neither a regular file nor a link to one.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")


def significant(value: float) -> float:
    """Round a float to six significant digits; integers stay as they are.

    Examples:
        >>> significant(0.123456789), significant(7)
        (0.123457, 7)
    """
    return float(f"{value:.6g}") if isinstance(value, float) else value


def csv_text(header: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    """Format a table as comma-separated values; cells that would be formulas are marked, see
    :func:`~ean_core.common.text.csv_cell`.

    Examples:
        >>> csv_text(['a', 'b'], [[1, 'x, y']])
        'a,b\\n1,"x, y"\\n'
    """
    return "".join(map(csv_line, (header, *lines)))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; see :func:`~ean_core.common.writing.replacing`.

    Raises:
        CannotWriteError: if it cannot be written; an existing file of that name is left unchanged.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # mmengine's fork is a different distribution of the same module
        return str(import_module(package).__version__)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
