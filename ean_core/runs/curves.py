"""Curves of trainings and searches for TensorBoard, through mmengine's visualizer: what ``--tensorboard`` adds."""

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
    """mmengine's backend, for runs that go on after a stop: one curve, however often a run was started.

    mmengine's own begins a folder with each start, and keeps points back for two minutes, which a kill loses. Here all
    starts write into one folder; what an earlier one wrote beyond the place where the next goes on is withdrawn, what
    it wrote of a validation that the next one repeats is left as it is, and points are in the file at once.

    Args:
        save_dir: folder of the events.
        begin: the first step of this start. Points in the folder from there on are those of a start that was stopped.
    """

    #: Logged of training by iteration and of validation by epoch, under one name, which would make one curve of both.
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
        """As in mmengine; times of a validation are called ``val/time`` and ``val/data_time``."""
        of_validation = "iter" not in scalar_dict
        if of_validation and step in self._validated:  # counted in epochs, which a purge by iterations does not reach
            return
        named = {f"val/{k}" if of_validation and k in self.SHARED else k: v for k, v in scalar_dict.items()}
        super().add_scalars(named, step, file_path, **kwargs)
        self._tensorboard.flush()


def use_tensorboard(config: Config) -> None:
    """What ``--tensorboard`` does.

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
    """Have what ``--tensorboard`` writes lie in a run's folder, beside nothing else of that name.

    Args:
        config: of the run; without such a backend it is left as it is.
        folder: of the run.
        latest: the checkpoint that this start of it goes on from.
    """
    for backend in _backends(config):
        if backend["type"] == RunTensorboardVisBackend.__name__:
            backend["save_dir"] = str(folder)
            backend["begin"] = read_meta(latest)["iter"] + 1 if latest else 0


@contextmanager
def search_curves(config: Config, folder: Path) -> Iterator[Callable[[Mapping[str, float], int], None] | None]:
    """What takes scalars and their step to the backends of a config's visualizer; None where it has none but mmengine's
    file of scalars, which a ledger makes needless.

    Args:
        config: of the search, left as it is.
        folder: of the search, which replays its ledger at each start: all points are made again, and older ones void.
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
    """Those of a config's visualizer, of which mmengine takes one or several."""
    backends = (config.get("visualizer") or {}).get("vis_backends") or []
    return [backends] if isinstance(backends, dict) else list(backends)
