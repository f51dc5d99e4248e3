"""Searching connection schemes: strategies that ask and tell, evaluators that score, a ledger that remembers."""

from .ean import EANStrategy
from .evaluator import Evaluator, SupernetEvaluator
from .exhaustive import Exhaustive
from .heuristics import HeuristicSelection, RandomSearch
from .ledger import Ledger
from .local import LocalSearch
from .loop import SearchResult, search
from .reward import Reward
from .strategy import STRATEGIES, Evaluation, Strategy, build_strategy
from .synthetic import SyntheticEvaluator

__all__ = [
    "STRATEGIES",
    "EANStrategy",
    "Evaluation",
    "Evaluator",
    "Exhaustive",
    "HeuristicSelection",
    "Ledger",
    "LocalSearch",
    "RandomSearch",
    "Reward",
    "SearchResult",
    "Strategy",
    "SupernetEvaluator",
    "SyntheticEvaluator",
    "build_strategy",
    "search",
]
