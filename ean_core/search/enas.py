"""The ENAS strategy: an autoregressive controller trained by policy gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ean_core.common.seeding import Stream, generator
from ean_core.scheme import ConnectionScheme

from .strategy import STRATEGIES, Evaluation, Strategy

HIDDEN_SIZE = 100
TEMPERATURE = 5.0
TANH_CONSTANT = 2.5
START = 2  # input of the first block, which has no previous decision


class AutoregressiveController(nn.Module):
    """An LSTM that decides block by block, with the previous decision as input (ENAS, Section 2.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, HIDDEN_SIZE)  # unconnected, connected, START
        self.lstm = nn.LSTM(HIDDEN_SIZE, HIDDEN_SIZE, batch_first=True)
        self.head = nn.Linear(HIDDEN_SIZE, 2, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(self, previous: Tensor) -> Tensor:
        """Logits ``(K, m, 2)`` for (unconnected, connected) of each block, given each previous decision ``(K, m)``."""
        return self._logits(self.lstm(self.embedding(previous))[0])

    def step(self, previous: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Logits ``(K, 2)`` of one block given the previous decision ``(K,)``, and the LSTM's next state."""
        state = torch.lstm_cell(self.embedding(previous), state, *self.lstm.all_weights[0])
        return self._logits(state[0]), state

    def _logits(self, hidden: Tensor) -> Tensor:
        return TANH_CONSTANT * torch.tanh(self.head(hidden) / TEMPERATURE)


@STRATEGIES.register_module(name="enas")
class ENASStrategy(Strategy):
    """The controller of "Efficient Neural Architecture Search via Parameter Sharing" (Pham et al., ICML 2018), a
    baseline of the paper in Tables 2 and 4 and Figure 5, with one decision per block: whether to connect it.

    As in ENAS: one LSTM layer of 100 units whose input is the previous decision, weights initialized uniformly in
    ``[-0.1, 0.1]``, logits divided by the temperature 5 and bounded by 2.5 with a tanh, Adam, REINFORCE with a moving
    average of past rewards as baseline, and the entropy of the sampled decisions added to the reward.

    Unlike ENAS: the baseline starts at the first rewards, not at 0, and decays by 0.95 per step instead of the 0.999 of
    the authors' code, since a search takes hundreds of steps where ENAS takes thousands. ENAS' learning rate also suits
    these hundreds: all blocks share the weights, so the controller converges quickly, often to connecting none or all
    blocks, and a larger rate only speeds this up (best rewards of 80.1, 79.0 and 78.7 after 900 evaluations with
    0.00035, 0.002 and 0.005 on four landscapes of ``benchmarks/search_strategies.py``).

    Args:
        stages: blocks in each stage.
        seed: seed of initial weights and draws.
        evaluations: total number of evaluations.
        schemes_per_step: schemes sampled in each step.
        learning_rate: learning rate of Adam.
        baseline_decay: decay of the moving average.
        entropy: weight of the entropy of a scheme's decisions, in nats. ENAS' 1e-4 is for accuracies as fractions; here
            they are in percent.

    Raises:
        ValueError: if an option is out of range.
    """

    rule = "mode"

    def __init__(
        self,
        stages: Sequence[int],
        seed: int = 0,
        *,
        evaluations: int = 900,
        schemes_per_step: int = 3,
        learning_rate: float = 3.5e-4,
        baseline_decay: float = 0.95,
        entropy: float = 0.01,
    ) -> None:
        super().__init__(stages, seed, evaluations=evaluations)
        if schemes_per_step < 1:
            raise ValueError(f"schemes_per_step must be at least 1, got {schemes_per_step}")
        self.schemes_per_step = schemes_per_step
        self.baseline_decay = baseline_decay
        self.entropy = entropy
        self.left = evaluations
        self.draws = generator(seed, Stream.STRATEGY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.draws.initial_seed())
            self.controller = AutoregressiveController()
        self.optimizer = torch.optim.Adam(self.controller.parameters(), lr=learning_rate)
        self.average: float | None = None
        self._info: dict[str, float] = {}

    def ask(self) -> list[ConnectionScheme]:
        number = min(self.schemes_per_step, self.left)
        self.left -= number
        return self._decode(torch.rand(number, sum(self.stages), generator=self.draws))

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        bits = torch.tensor([evaluation.scheme.bits for evaluation in evaluations])  # (K, m)
        previous = torch.cat([torch.full_like(bits[:, :1], START), bits[:, :-1]], 1)
        logs = self.controller(previous).log_softmax(2)  # (K, m, 2)
        chosen = logs.gather(2, bits[..., None]).squeeze(2)  # (K, m)
        self._info = {"mean_probability": float(chosen.detach().exp().mean())}

        entropies = -(logs.exp() * logs).detach().sum((1, 2))  # (K,)
        rewards = torch.tensor([evaluation.reward for evaluation in evaluations]) + self.entropy * entropies
        mean = float(rewards.mean())
        if self.average is None:
            self.average = mean
        self.average += (1 - self.baseline_decay) * (mean - self.average)
        self.optimizer.zero_grad()
        (-((rewards - self.average) * chosen.sum(1)).mean()).backward()
        self.optimizer.step()

    def mode(self) -> ConnectionScheme:
        """The scheme with the controller's more probable choice at each block, given the choices before it."""
        (scheme,) = self._decode(torch.full((1, sum(self.stages)), 0.5))
        return scheme

    def info(self) -> Mapping[str, float]:
        """``mean_probability``: mean probability of the last step's choices under the controller that sampled them (the
        convergence curve of Figure 5)."""
        return self._info

    @torch.no_grad()
    def _decode(self, draws: Tensor) -> list[ConnectionScheme]:
        """One scheme per row of ``draws`` ``(K, m)``; a block is connected if its draw is below the probability."""
        previous = torch.full((len(draws),), START)
        state = (torch.zeros(len(draws), HIDDEN_SIZE), torch.zeros(len(draws), HIDDEN_SIZE))
        columns = []
        for draw in draws.T:
            logits, state = self.controller.step(previous, state)
            previous = (draw < logits.softmax(1)[:, 1]).long()
            columns.append(previous)
        return [ConnectionScheme(self.stages, tuple(row)) for row in torch.stack(columns, 1).tolist()]
