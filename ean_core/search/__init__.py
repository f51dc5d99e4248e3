"""Searching connection schemes: strategies that ask and tell, evaluators that score, a ledger that remembers."""

from .ean import EANStrategy
from .evaluator import Evaluator, SupernetEvaluator
from .ledger import Ledger
from .loop import SearchResult, search
from .strategy import STRATEGIES, Evaluation, Reward, Strategy, build_strategy

__all__ = [
    "STRATEGIES",
    "EANStrategy",
    "Evaluation",
    "Evaluator",
    "Ledger",
    "Reward",
    "SearchResult",
    "Strategy",
    "SupernetEvaluator",
    "build_strategy",
    "search",
]
