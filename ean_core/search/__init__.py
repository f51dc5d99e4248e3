"""Search for connection schemes: ask-and-tell strategies, evaluators, and a ledger of all evaluations."""

from .ean import EANStrategy
from .enas import ENASStrategy
from .evaluator import Evaluator, SupernetEvaluator
from .exhaustive import Exhaustive
from .heuristics import HeuristicSelection, RandomSearch
from .ledger import Ledger
from .local import LocalSearch
from .loop import SearchResult, search
from .reward import Reward
from .strategy import STRATEGIES, Evaluation, Strategy, build_strategy
from .synthetic import SyntheticEvaluator
from .with_optuna import GeneticAlgorithm, OptunaStrategy, TreeParzen

__all__ = [
    "STRATEGIES",
    "EANStrategy",
    "ENASStrategy",
    "Evaluation",
    "Evaluator",
    "Exhaustive",
    "GeneticAlgorithm",
    "HeuristicSelection",
    "Ledger",
    "LocalSearch",
    "OptunaStrategy",
    "RandomSearch",
    "Reward",
    "SearchResult",
    "Strategy",
    "SupernetEvaluator",
    "SyntheticEvaluator",
    "TreeParzen",
    "build_strategy",
    "search",
]
