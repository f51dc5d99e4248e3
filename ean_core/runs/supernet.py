"""The supernet: one Share-full network trained with a random connection scheme in every iteration (Section 4.2)."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ean_core.backbone import find_backbone
from ean_core.common.seeding import Stream, generator
from ean_core.scheme import ConnectionScheme


@HOOKS.register_module()
class RandomSchemeHook(Hook):
    """Draws a scheme for each training iteration, each block connected with probability ``p`` (Alg. 1, lines 2-5).

    The draw depends only on seed and iteration, so all ranks train the same sub-network and a resumed run draws the
    same schemes as an uninterrupted one. Validation uses the fully connected network.

    Args:
        p: probability of a connection; 0.5 in the paper.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        backbone = find_backbone(runner.model)
        draw = generator(runner.seed, Stream.SCHEME, runner.iter)
        backbone.set_scheme(ConnectionScheme.random(backbone.stage_blocks, self.p, draw))

    def before_val_epoch(self, runner: Runner) -> None:
        find_backbone(runner.model).set_scheme("full")

    def after_train(self, runner: Runner) -> None:
        find_backbone(runner.model).set_scheme("full")
