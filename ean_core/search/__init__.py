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
from .scorer import Difference, MeanScorer, Score, Scorer, SumScorer
from .strategy import STRATEGIES, Evaluation, Strategy, build_strategy
from .synthetic import SyntheticEvaluator
from .with_optuna import GeneticAlgorithm, OptunaStrategy, TreeParzen

__all__ = [
    "STRATEGIES",
    "Difference",
    "EANStrategy",
    "ENASStrategy",
    "Evaluation",
    "Evaluator",
    "Exhaustive",
    "GeneticAlgorithm",
    "HeuristicSelection",
    "Ledger",
    "LocalSearch",
    "MeanScorer",
    "OptunaStrategy",
    "RandomSearch",
    "Reward",
    "Score",
    "Scorer",
    "SearchResult",
    "Strategy",
    "SumScorer",
    "SupernetEvaluator",
    "SyntheticEvaluator",
    "TreeParzen",
    "build_strategy",
    "search",
]
