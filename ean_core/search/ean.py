"""The paper's strategy: a controller trained by policy gradient (Section 4.3, Algorithm 1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ean_core.common.errors import unknown_name
from ean_core.common.seeding import Stream, generator
from ean_core.scheme import ConnectionScheme

from .strategy import STRATEGIES, Evaluation, Strategy

INPUT_SIZE = 20
TEMPERATURE = 5.0

#: Faults of the authors' search code that ``compat`` can enable.
Compat = Literal["scrambled-schemes", "summed-bonus", "clipped-replay"]
FAULTS: tuple[Compat, ...] = get_args(Compat)


class Controller(nn.Module):
    """Maps a constant zero vector to the probability of connecting each block.

    With a zero input, the weights of the first layer never receive a gradient and only its biases learn; this follows
    from the paper's ``x_0 = 0`` and is kept.

    Args:
        blocks: ``m``, number of residual blocks.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(INPUT_SIZE, 50), nn.ReLU(), nn.Linear(50, 2 * blocks))
        self.register_buffer("constant", torch.zeros(INPUT_SIZE))

    def forward(self) -> Tensor:
        """Log-probabilities ``(m, 2)`` of leaving each block unconnected and of connecting it."""
        logits = self.layers(self.constant) / TEMPERATURE
        return logits.view(-1, 2).log_softmax(1)


class Curiosity(nn.Module):
    """The bonus of Random Network Distillation ("Exploration by Random Network Distillation", Burda et al., ICLR
    2019): the error of a learned network in predicting a fixed random one on a scheme, large for unseen schemes.

    Args:
        blocks: ``m``, number of residual blocks.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.target = nn.Sequential(
            nn.Linear(blocks, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4 * blocks)
        ).requires_grad_(False)
        self.predictor = nn.Sequential(nn.Linear(blocks, 32), nn.ReLU(), nn.Linear(32, 4 * blocks))

    def forward(self, bits: Tensor) -> Tensor:
        """Squared L2 distance ``(K,)`` between the two networks' outputs on schemes ``(K, m)``."""
        return (self.target(bits) - self.predictor(bits)).square().sum(1)


class Memory(NamedTuple):
    """One step of the replay buffer: schemes and their probabilities at that step ``(K, m)``, and rewards ``(K,)``."""

    bits: Tensor
    probabilities: Tensor
    rewards: Tensor


@STRATEGIES.register_module(name="ean")
class EANStrategy(Strategy):
    """Algorithm 1, with the authors' settings where the paper gives none.

    Each step samples schemes from the controller, adds the curiosity bonus to their rewards, and updates the controller
    (Eqn 5) and the predictor of the bonus. After step ``replay_from``, it also updates the controller on a past step
    (Eqn 8).

    Args:
        stages: blocks in each stage.
        seed: seed of initial weights and draws.
        evaluations: total number of evaluations: ``T``, the number of steps, times ``schemes_per_step``. The paper uses
            ``T = 300`` on ImageNet and 1000 on CIFAR-100.
        schemes_per_step: schemes sampled in each step.
        learning_rate: learning rate of the controller and of the bonus' predictor (Adam).
        curiosity: weight of the bonus, ``lambda_3`` of Eqn 7.
        baseline: ``'moving-average'`` subtracts an exponential average of past rewards; None is Eqn 5 as
            printed, which does not learn from rewards that all have the same sign, as accuracies do.
        baseline_decay: decay of that average.
        replay_from: step ``h`` after which past steps are replayed; None for never.
        replay_weight: weight of the replayed loss.
        buffer_steps: number of past steps in the replay buffer.
        compat: faults of the authors' code to reproduce, by name:

            - ``'scrambled-schemes'``: curiosity bonus and replay see all schemes of a step but the first reshaped in
              the wrong order, paired with the probabilities of the correct ones;
            - ``'summed-bonus'``: the bonuses of a step are summed and the sum is added to each of its schemes, so the
              bonus ranks nothing, and replayed rewards omit it while the baseline includes it;
            - ``'clipped-replay'``: the minimum of Eqn 8's objective and the same with ratios clipped to ``1 +- 0.1``,
              both summed over a whole step, which re-weights the step but bounds no ratio.

    Raises:
        ValueError: if an option is invalid.
    """

    rule = "mode"

    def __init__(
        self,
        stages: Sequence[int],
        seed: int = 0,
        *,
        evaluations: int = 900,
        schemes_per_step: int = 3,
        learning_rate: float = 0.05,
        curiosity: float = 1.0,
        baseline: Literal["moving-average"] | None = "moving-average",
        baseline_decay: float = 0.95,
        replay_from: int | None = 10,
        replay_weight: float = 0.1,
        buffer_steps: int = 30,
        compat: Sequence[Compat] = (),
    ) -> None:
        super().__init__(stages, seed, evaluations=evaluations)
        if schemes_per_step < 1:
            raise ValueError(f"schemes_per_step must be at least 1, got {schemes_per_step}")
        if buffer_steps < 1:
            raise ValueError(f"buffer_steps must be at least 1, got {buffer_steps}; replay_from=None disables replay")
        if baseline not in ("moving-average", None):
            raise unknown_name("baseline", baseline, ("moving-average", None))
        for fault in compat:
            if fault not in FAULTS:
                raise unknown_name("compat switch", fault, FAULTS)
        self.schemes_per_step = schemes_per_step
        self.curiosity = curiosity
        self.baseline = baseline
        self.baseline_decay = baseline_decay
        self.replay_from = replay_from
        self.replay_weight = replay_weight
        self.compat = frozenset(compat)
        self.step = 0
        self.left = evaluations
        self.draws = generator(seed, Stream.STRATEGY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.draws.initial_seed())
            self.controller = Controller(sum(self.stages))
            self.bonus = Curiosity(sum(self.stages))
        self.controller_optimizer = torch.optim.Adam(self.controller.parameters(), lr=learning_rate)
        self.bonus_optimizer = torch.optim.Adam(self.bonus.predictor.parameters(), lr=learning_rate)
        self.buffer: deque[Memory] = deque(maxlen=buffer_steps)
        self.average: float | None = None

    def ask(self) -> list[ConnectionScheme]:
        connect = self.probabilities().expand(min(self.schemes_per_step, self.left), -1)
        bits = torch.bernoulli(connect, generator=self.draws)
        return [ConnectionScheme(self.stages, tuple(int(bit) for bit in row)) for row in bits]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        bits = torch.tensor([evaluation.scheme.bits for evaluation in evaluations], dtype=torch.float32)  # (K, m)
        remembered = bits
        if "scrambled-schemes" in self.compat:
            remembered = torch.cat([bits[:1], bits[1:].T.reshape(bits[1:].shape)])
        surprise = self.bonus(remembered)  # (K,)
        bonus = self.curiosity * surprise.detach()
        plain = torch.tensor([evaluation.reward for evaluation in evaluations])
        # The sum raises all rewards equally and cannot rank schemes.
        rewards = plain + (bonus.sum() if "summed-bonus" in self.compat else bonus)
        probabilities = self._log_probabilities(bits).detach().exp()

        baseline = self._baseline(rewards)
        _descend(self.controller_optimizer, -((rewards - baseline) * self._log_probabilities(bits).sum(1)).mean())
        _descend(self.bonus_optimizer, surprise.mean())
        self.buffer.append(Memory(remembered, probabilities, plain if "summed-bonus" in self.compat else rewards))
        self.step += 1
        self.left -= len(evaluations)
        if self.replay_from is not None and self.step > self.replay_from:
            self._replay()

    def mode(self) -> ConnectionScheme:
        """The controller's most probable scheme."""
        return ConnectionScheme(self.stages, tuple(int(p > 0.5) for p in self.probabilities()))

    def probabilities(self) -> Tensor:
        """The controller's probability ``(m,)`` of connecting each block."""
        with torch.no_grad():
            return self.controller()[:, 1].exp()

    def info(self) -> Mapping[str, float]:
        """``mean_probability``: mean probability of the last step's choices under the controller that sampled them (the
        convergence curve of Figure 5)."""
        return {"mean_probability": float(self.buffer[-1].probabilities.mean())} if self.buffer else {}

    def _log_probabilities(self, bits: Tensor) -> Tensor:
        """Log-probability ``(K, m)`` of each bit of schemes ``(K, m)``, differentiable in the controller."""
        logs = self.controller()  # (m, 2)
        return torch.where(bits.bool(), logs[:, 1], logs[:, 0])

    def _baseline(self, rewards: Tensor) -> float:
        """The moving average of rewards, including this step's."""
        if self.baseline is None:
            return 0.0
        mean = float(rewards.mean())
        self.average = (
            mean if self.average is None else (self.baseline_decay * self.average + (1 - self.baseline_decay) * mean)
        )
        return self.average

    def _replay(self) -> None:
        """Update the controller on a past step, each block weighted by the ratio of new to old probability (Eqn 8)."""
        index = int(torch.randint(len(self.buffer), (1,), generator=self.draws))
        memory = self.buffer[index]
        logs = self._log_probabilities(memory.bits)
        ratios = logs.detach().exp() / memory.probabilities  # (K, m), not clipped
        # The baseline as in Eqn 5: without it, a replayed step would push towards its own past choices.
        advantages = memory.rewards - (self.average or 0.0)
        objective = (advantages * (ratios * logs).sum(1)).mean()
        if "clipped-replay" in self.compat:
            clipped = (advantages * (ratios.clamp(0.9, 1.1) * logs).sum(1)).mean()
            objective = torch.minimum(objective, clipped)
        _descend(self.controller_optimizer, -self.replay_weight * objective)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
