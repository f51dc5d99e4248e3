"""Optuna samplers as strategies: a genetic algorithm, TPE, and any other by name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ean_core.common.errors import unknown_name
from ean_core.common.seeding import Stream, generator
from ean_core.scheme import ConnectionScheme

from .strategy import STRATEGIES, Evaluation, Strategy

#: These enumerate all schemes, as ``exhaustive`` does, and end by stopping Optuna's own loop, which is not used here.
ENUMERATING = ("BruteForceSampler", "GridSampler")
#: These handle numbers only. The others treat 0 and 1 as categories, which is faster for them.
NUMERIC = ("CmaEsSampler", "QMCSampler")


@STRATEGIES.register_module(name="optuna")
class OptunaStrategy(Strategy):
    """Any sampler of `Optuna <https://optuna.readthedocs.io>`_ (``pip install "ean-zoo[search]"``).

    A scheme is a trial with one parameter per block, ``b0`` to ``b{m-1}``, each 0 or 1.

    With a ``storage``, several searches, possibly on several machines, share a study and learn from each other's
    evaluations. The schemes they ask for then depend on timing: such a search is not deterministic and cannot resume by
    replaying its ledger (``replayable`` is False). Its evaluations are kept in the study.

    Args:
        stages: blocks in each stage.
        seed: seed of the sampler. Searches that share a study need different seeds.
        evaluations: total number of evaluations by this search, including repeated schemes.
        sampler: name of a class in ``optuna.samplers``.
        options: arguments of the sampler.
        schemes_per_step: number of trials open at a time.
        pareto: optimize the metric and minimize cost instead of maximizing the reward; needs a multi-objective sampler.
        storage: URL of a database, e.g. ``'sqlite:///study.db'``, or path of a journal file, which suits a shared file
            system; None for memory.
        study_name: name of the study in the storage; created if it does not exist.

    Raises:
        ImportError: if Optuna is not installed.
        ValueError: if the sampler is unknown, an option is invalid, or the study belongs to another search.
    """

    def __init__(
        self,
        stages: Sequence[int],
        seed: int = 0,
        *,
        evaluations: int = 900,
        sampler: str = "TPESampler",
        options: Mapping[str, Any] | None = None,
        schemes_per_step: int = 10,
        pareto: bool = False,
        storage: str | None = None,
        study_name: str | None = None,
    ) -> None:
        super().__init__(stages, seed, evaluations=evaluations)
        if schemes_per_step < 1:
            raise ValueError(f"schemes_per_step must be at least 1, got {schemes_per_step}")
        if (storage is None) != (study_name is None):
            raise ValueError(
                f"storage and study_name must be given together, got {storage!r} and {study_name!r}; "
                "for example storage='study.journal', study_name='resnet20_se'"
            )
        optuna = _import_optuna()
        self.replayable = storage is None
        self.schemes_per_step = schemes_per_step
        self.pareto = pareto
        self.left = evaluations
        kinds = optuna.distributions
        bit = kinds.IntDistribution(0, 1) if sampler in NUMERIC else kinds.CategoricalDistribution((0, 1))
        self._distributions = {f"b{block}": bit for block in range(sum(self.stages))}
        self._open: list[Any] = []
        with _quiet():
            self.study = optuna.create_study(
                sampler=_sampler_class(sampler)(
                    **{"seed": generator(seed, Stream.STRATEGY).initial_seed() % 2**32, **(options or {})}
                ),
                directions=["maximize", "minimize"] if pareto else ["maximize"],
                storage=storage if storage is None or "://" in storage else _journal(storage),
                study_name=study_name,
                load_if_exists=True,
            )
        search = {"stages": list(self.stages), "pareto": pareto, "numeric": sampler in NUMERIC}
        if (found := self.study.user_attrs.get("search", search)) != search:
            raise ValueError(
                f"study {study_name!r} in {storage} belongs to another search, with {found}, not {search}; "
                "choose another study_name"
            )
        self.study.set_user_attr("search", search)

    def ask(self) -> list[ConnectionScheme]:
        number = min(self.schemes_per_step, self.left)
        self.left -= number
        with _quiet():
            self._open = [self.study.ask(self._distributions) for _ in range(number)]
        decisions = [trial.params for trial in self._open]  # each access copies all parameters
        return [
            ConnectionScheme(self.stages, tuple(bits[block] for block in self._distributions)) for bits in decisions
        ]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        with _quiet():
            for trial, evaluation in zip(self._open, evaluations, strict=True):
                values = [evaluation.merit, evaluation.cost] if self.pareto else [evaluation.reward]
                self.study.tell(trial, values)


@STRATEGIES.register_module(name="ga")
class GeneticAlgorithm(OptunaStrategy):
    """NSGA-II ("A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", Deb et al., 2002), which optimizes
    accuracy and cost together, as the GA of Table 4 does for accuracy and size.

    Args:
        stages: blocks in each stage.
        seed: seed of the sampler.
        evaluations: total number of evaluations; the last generation may be incomplete.
        population: schemes per generation, which is a step; if None, chosen for six generations, within 10 to 50.
        options: further arguments of ``optuna.samplers.NSGAIISampler``.
        study: ``storage`` and ``study_name`` of :class:`OptunaStrategy`.

    Raises:
        ImportError: if Optuna is not installed.
        ValueError: if an option is invalid, or the study belongs to another search.
    """

    def __init__(
        self,
        stages: Sequence[int],
        seed: int = 0,
        *,
        evaluations: int = 900,
        population: int | None = None,
        options: Mapping[str, Any] | None = None,
        **study: Any,
    ) -> None:
        if population is None:
            population = min(max(evaluations // 6, 10), 50)
        super().__init__(
            stages,
            seed,
            evaluations=evaluations,
            sampler="NSGAIISampler",
            options={"population_size": population, **(options or {})},
            schemes_per_step=population,
            pareto=True,
            **study,
        )


@STRATEGIES.register_module(name="tpe")
class TreeParzen(OptunaStrategy):
    """The tree-structured Parzen estimator ("Algorithms for Hyper-Parameter Optimization", Bergstra et al., NeurIPS
    2011), on the reward.

    Args:
        stages: blocks in each stage.
        seed: seed of the sampler.
        evaluations: total number of evaluations.
        options: arguments of ``optuna.samplers.TPESampler``; by default blocks are modeled jointly, and open trials
            count as bad ones, so that a step does not ask for the same scheme ten times.
        study: ``schemes_per_step``, ``storage`` and ``study_name`` of :class:`OptunaStrategy`.

    Raises:
        ImportError: if Optuna is not installed.
        ValueError: if an option is invalid, or the study belongs to another search.
    """

    def __init__(
        self,
        stages: Sequence[int],
        seed: int = 0,
        *,
        evaluations: int = 900,
        options: Mapping[str, Any] | None = None,
        **study: Any,
    ) -> None:
        super().__init__(
            stages,
            seed,
            evaluations=evaluations,
            sampler="TPESampler",
            options={"multivariate": True, "constant_liar": True, **(options or {})},
            **study,
        )


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError('this strategy needs Optuna: pip install "ean-zoo[search]"') from error
    return optuna


def _sampler_class(name: str) -> Any:
    """The class of ``optuna.samplers`` with this name, if it draws random samples."""
    classes = {key: value for key, value in vars(_import_optuna().samplers).items() if inspect.isclass(value)}
    drawing = [key for key, value in classes.items() if "seed" in inspect.signature(value).parameters]
    valid = set(drawing).difference(ENUMERATING)
    if name not in valid:
        raise unknown_name("sampler", name, valid)
    return classes[name]


def _journal(path: str) -> Any:
    """Storage of a study in a journal file."""
    storages = _import_optuna().storages
    before_4 = not hasattr(storages, "journal")
    backend = storages.JournalFileStorage if before_4 else storages.journal.JournalFileBackend
    return storages.JournalStorage(backend(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's log lines and its warnings about experimental samplers."""
    optuna = _import_optuna()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
