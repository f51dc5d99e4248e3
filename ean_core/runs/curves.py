"""TensorBoard curves of trainings and searches through mmengine's visualizer (``--tensorboard``)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import TensorboardVisBackend, Visualizer
from mmengine.visualization.vis_backend import force_init_env

from ean_core.weights.files import read_meta


@VISBACKENDS.register_module()
class RunTensorboardVisBackend(TensorboardVisBackend):
    """mmengine's TensorBoard backend for resumable runs: one curve, however often the run was restarted.

    mmengine's backend creates a new folder at each start and buffers points for two minutes, which are lost if the
    process is killed. Here all starts write to one folder. Points that an interrupted start wrote past the resumed step
    are purged; those of a validation that is repeated are kept; every point is flushed at once.

    Args:
        save_dir: folder of the event files.
        begin: first step of this start. Later points in the folder come from an interrupted start.
    """

    #: Logged under the same name for training (by iteration) and validation (by epoch), which would mix two curves.
    SHARED = ("time", "data_time")

    def __init__(self, save_dir: str, begin: int = 0) -> None:
        super().__init__(save_dir)
        self.begin = begin
        self._validated: set[int] = set()

    def _init_env(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self.begin:
            self._validated = _steps(Path(self._save_dir), f"val/{self.SHARED[0]}")
        self._tensorboard = SummaryWriter(self._save_dir, purge_step=self.begin)

    @force_init_env
    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """As in mmengine, but validation times are named ``val/time`` and ``val/data_time``."""
        of_validation = "iter" not in scalar_dict
        if of_validation and step in self._validated:  # counted in epochs, so a purge by iterations misses it
            return
        named = {f"val/{k}" if of_validation and k in self.SHARED else k: v for k, v in scalar_dict.items()}
        super().add_scalars(named, step, file_path, **kwargs)
        self._tensorboard.flush()


def use_tensorboard(config: Config) -> None:
    """Implement ``--tensorboard``: add the TensorBoard backend to a config.

    Raises:
        ImportError: if TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ImportError('--tensorboard needs TensorBoard: pip install "ean-zoo[tensorboard]"')
    names = (TensorboardVisBackend.__name__, RunTensorboardVisBackend.__name__)
    others = [backend for backend in _backends(config) if backend["type"] not in names]
    visualizer = config.get("visualizer") or {"type": "Visualizer"}
    config.visualizer = {**visualizer, "vis_backends": [*others, {"type": RunTensorboardVisBackend.__name__}]}


def place_curves(config: Config, folder: Path, latest: Path | None = None) -> None:
    """Direct the output of ``--tensorboard`` to a run's folder.

    Args:
        config: config of the run; unchanged if it has no such backend.
        folder: folder of the run.
        latest: checkpoint from which this start resumes.
    """
    for backend in _backends(config):
        if backend["type"] == RunTensorboardVisBackend.__name__:
            backend["save_dir"] = str(folder)
            backend["begin"] = read_meta(latest)["iter"] + 1 if latest else 0


@contextmanager
def search_curves(config: Config, folder: Path) -> Iterator[Callable[[Mapping[str, float], int], None] | None]:
    """Yield a function that writes scalars at a step to the backends of a config's visualizer.

    It is None if the only backend is mmengine's scalar file, which the ledger makes redundant.

    Args:
        config: config of the search; not modified.
        folder: folder of the search. Each start replays the ledger, so all points are written again.
    """
    config = copy.deepcopy(config)
    place_curves(config, folder)
    wanted = [backend for backend in _backends(config) if backend["type"] != "LocalVisBackend"]
    if not wanted:
        yield None
        return
    visualizer = Visualizer(name=str(folder), vis_backends=wanted, save_dir=str(folder))
    try:
        yield visualizer.add_scalars
    finally:
        visualizer.close()


def _steps(folder: Path, name: str) -> set[int]:
    """The steps of a scalar in the events of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    return {event.step for event in events.Scalars(name)} if name in events.Tags()[SCALARS] else set()


def _backends(config: Config) -> list[Any]:
    """The visualizer's backends as a list; mmengine also accepts a single one."""
    backends = (config.get("visualizer") or {}).get("vis_backends") or []
    return [backends] if isinstance(backends, dict) else list(backends)
