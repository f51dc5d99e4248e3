import csv
import json
import math
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_ind

from ean_core import ConnectionScheme
from ean_core.common.record import read_record
from ean_core.common.tasks import Metric
from ean_core.inference.latency import BlockTimes
from ean_core.report.search import (
    comparison_rows,
    read_comparison,
    read_evaluation,
    read_search,
    write_comparison,
)
from ean_core.report.search_figures import convergence_figure, distribution_figure, front_figure
from ean_core.search.front import front
from ean_core.search.prefixes import count_bodies, walk_seconds
from ean_core.search.synthetic import SyntheticEvaluator
from ean_core.show.table import markdown_table, print_table, spread_text

ROOT = Path(__file__).resolve().parents[2]
STAGES, BATCHES, IMAGES, SEEDS = (2, 3), 4, 10_000, (0, 1, 2)
REWARD = {"accuracy": 1.0, "sparsity": 2.0, "latency": 0.0, "table": None}
SECONDS = {"bodies": 1.0, "connections": 0.1, "joins": 0.2}
ALL = [ConnectionScheme(STAGES, tuple(int(bit) for bit in f"{number:05b}")) for number in range(32)]


class Written:
    """The folder of a comparison, written by hand."""

    def __init__(self, folder, stages=STAGES, seeds=SEEDS):
        self.folder, self.stages, self.seeds = folder, stages, seeds
        self.formula = SyntheticEvaluator(stages, seed=4)
        self.strategies = []

    def line(self, step, scheme, shift=0.0, **more):
        accuracy = min(max(self.formula.evaluate([scheme])[0] + shift, 0), 100)
        accuracy = 100 * round(IMAGES * accuracy / 100) / IMAGES
        return {
            "step": step,
            "scheme": str(scheme),
            "accuracy": accuracy,
            "standard_error": math.sqrt(accuracy * (100 - accuracy) / IMAGES),
            "cost": float(scheme.connections),
            "reward": accuracy + 2 * scheme.sparsity,
            **more,
        }

    def search(self, strategy, seed, steps, rule="best-seen", infos=None, **more):
        """Write one search, given the schemes of each step."""
        if strategy not in self.strategies:
            self.strategies.append(strategy)
        key = {"strategy": {"type": strategy}, "seed": seed, "stages": list(self.stages), "reward": REWARD}
        lines = [
            self.line(step, scheme, **({"info": infos[step]} if infos else {}), seconds=0.1)
            for step, schemes in enumerate(steps)
            for scheme in schemes
        ]
        place = self.folder / strategy / f"seed_{seed}"
        write_lines(place / "ledger.jsonl", key, lines)
        best = max(lines, key=lambda line: line["reward"])
        found = {name: best[name] for name in ("scheme", "accuracy", "cost", "reward")}
        write_json(place / "search.json", kind="search", scheme=found, rule=rule, **{"training_seconds": None, **more})

    def finish(self, finalists):
        write_json(
            self.folder / "compare.json",
            kind="search comparison",
            config="search_resnet20_se_synthetic",
            supernet="epoch_10.pth",
            strategies=self.strategies,
            evaluations=24,
            seeds=list(self.seeds),
            block_times={"stages": self.stages, "stem": 0.5, "head": 0.3}
            | {name: [seconds] * sum(self.stages) for name, seconds in SECONDS.items()},
            batches=BATCHES,
            images=IMAGES,
        )
        rescored = [self.line("finalists", scheme, shift=0.3 * np.sin(k)) for k, scheme in enumerate(finalists)]
        write_lines(self.folder / "finalists.jsonl", {"comparison": self.strategies}, rescored)
        return self.folder


def write_lines(path, key, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in [key, *lines]))


def write_json(path, **fields):
    path.write_text(json.dumps({**fields, "command": "ean search compare", "environment": {}}))


def drawn(seed, count, p=0.5):
    draws = np.random.default_rng(seed).random((count, 5)) < p
    return [ConnectionScheme(STAGES, tuple(int(bit) for bit in row)) for row in draws]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    written = Written(tmp_path_factory.mktemp("comparison"))
    written.search("exhaustive", 0, [ALL], rule="front")
    written.search("hsp", 0, [[ConnectionScheme.every(STAGES, n)] for n in (1, 2)])
    for seed in SEEDS:
        written.search("random", seed, [drawn(seed, 24)])
        infos = [{"mean_probability": 0.5 + 0.05 * step} for step in range(8)]
        steps = [drawn(100 * seed + step, 3, 0.2 + 0.02 * step) for step in range(8)]
        written.search("ean", seed, steps, rule="mode", infos=infos)
        written.search("darts", seed, [[ALL[7 + seed]]], rule="mode", training_seconds=1000.0 + seed)
    return written.finish([*ALL[:12], ALL[-1]])


@pytest.fixture(scope="module")
def reported(made, tmp_path_factory):
    """Rows and folder of a report."""
    folder = tmp_path_factory.mktemp("reported") / "comparison"
    shutil.copytree(made, folder)
    return write_comparison(folder), folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def reward(scheme):
    accuracy = SyntheticEvaluator(STAGES, seed=4).evaluate([scheme])[0]
    return 100 * round(IMAGES * accuracy / 100) / IMAGES + 2 * scheme.sparsity


def row(folder, name):
    return next(row for row in comparison_rows(read_comparison(folder)) if row["strategy"] == name)


# ---------------------------------------------------------------- one search


def test_a_ledger_is_read_in_its_order_with_steps_infos_and_finalists(tmp_path):
    path = tmp_path / "ledger.jsonl"
    steps = [
        {"step": 0, "scheme": "10-000", "accuracy": 60.0, "cost": 1.0, "reward": 61.6, "info": {"p": 0.5}},
        {"step": 0, "scheme": "10-000", "accuracy": 60.0, "cost": 1.0, "reward": 61.6, "info": {"p": 0.5}},
        {"step": 1, "scheme": "00-111", "accuracy": 61.0, "standard_error": 0.4, "cost": 3.0, "reward": 61.8},
    ]
    last = {"step": "finalists", "scheme": "00-111", "supernet_accuracy": 61.0, "accuracy": 63.0}
    write_lines(path, {"seed": 7}, [*steps, {**last, "standard_error": 0.3, "cost": 3.0, "reward": 63.8}])
    with path.open("a") as file:
        file.write('{"step": 2, "sch')  # still being written
    history = read_search(path)
    assert history.key == {"seed": 7}
    assert [(str(e.scheme), e.score, e.cost, e.reward, e.standard_error) for e in history.evaluations] == [
        ("10-000", 60.0, 1.0, 61.6, 0.0),
        ("10-000", 60.0, 1.0, 61.6, 0.0),
        ("00-111", 61.0, 3.0, 61.8, 0.4),
    ]
    assert (history.steps, history.infos, history.unique) == ([0, 0, 1], {0: {"p": 0.5}}, 2)
    assert [(e.score, e.standard_error) for e in history.finalists] == [(63.0, 0.3)]
    assert history.best == history.evaluations[2]


def test_a_ledger_of_another_metric_is_read_by_its_name(tmp_path):
    path = tmp_path / "ledger.jsonl"
    metric = {"name": "count/MAE", "title": "MAE", "unit": "people", "less_is_better": True, "short": ""}
    line = {"step": 0, "scheme": "00-111", "MAE": 9.3, "standard_error": 1.2, "cost": 3.0, "reward": -9.1}
    write_lines(path, {"seed": 7, "metric": metric}, [line, {**line, "step": "finalists", "supernet_MAE": 9.3}])
    history = read_search(path)
    assert [(each.text, each.merit) for each in (*history.evaluations, *history.finalists)] == [
        ("MAE 9.30 people", -9.3)
    ] * 2
    front_figure(history.evaluations, history.finalists, tmp_path / "front.svg", fixed_norms=True)
    drawn = (tmp_path / "front.svg").read_text()
    assert "validation MAE (people), less is better" in drawn
    assert "connections, 9.30 people" in drawn
    assert "accuracy" not in drawn
    assert "re-estimated" not in drawn


@pytest.mark.parametrize("attention", ["se", "sge", "dia"])
def test_committed_ledgers_are_read(attention):
    folder = ROOT / f"benchmarks/results/campaign/search_resnet20_{attention}.cifar100/seed_0"
    history, record = read_search(folder / "ledger.jsonl"), read_record(folder / "search.json")
    assert len(history.evaluations) == record["evaluations"] == 512
    found = read_evaluation(record["scheme"], None, Metric.of(record))
    assert found in history.finalists
    assert found.text == f"accuracy {record['scheme']['accuracy']:.2f} %"


def test_a_ledger_whose_key_has_a_damaged_metric_is_refused(tmp_path):
    write_lines(tmp_path / "ledger.jsonl", {"metric": {"foo": 1}}, [])
    with pytest.raises(ValueError, match=r"ledger.jsonl, line 1: \{'foo': 1\} is not a metric"):
        read_search(tmp_path / "ledger.jsonl")


def test_a_step_walks_only_schemes_that_are_new_to_the_search(tmp_path):
    path, texts = tmp_path / "ledger.jsonl", [["10-000", "00-111", "10-000"], ["10-000"], ["11-000", "00-111"]]
    lines = [
        {"step": step, "scheme": text, "accuracy": 60.0, "cost": 1.0, "reward": 61.0}
        for step, asked in enumerate(texts)
        for text in asked
    ]
    write_lines(path, {}, lines)
    assert [[str(scheme) for scheme in walk] for walk in read_search(path).walks()] == [
        ["00-111", "10-000"],
        [],
        ["11-000"],
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"step": 0, "scheme": "10-000", "cost": 1.0, "reward": 1.0},
            r"line 2, is not an evaluation \(KeyError\('accuracy",
        ),
        ({"step": 0, "scheme": "1x", "accuracy": 1.0, "cost": 1.0, "reward": 1.0}, "line 2, .*cannot read scheme '1x'"),
    ],
)
def test_a_line_that_is_no_evaluation_is_refused_with_its_place(tmp_path, line, message):
    write_lines(tmp_path / "ledger.jsonl", {}, [line])
    with pytest.raises(ValueError, match=message):
        read_search(tmp_path / "ledger.jsonl")


def test_an_empty_ledger_is_refused(tmp_path):
    (tmp_path / "ledger.jsonl").touch()
    with pytest.raises(ValueError, match="empty; a ledger starts with the key"):
        read_search(tmp_path / "ledger.jsonl")


# ---------------------------------------------------------------- rows


def test_a_row_is_the_mean_and_deviation_over_the_seeds(made):
    found = row(made, "random")
    asked = [drawn(seed, 24) for seed in SEEDS]
    best = [max(schemes, key=reward) for schemes in asked]
    rewards = spread_text([reward(scheme) for scheme in best], 2)
    assert (found["best reward"], found["reward returned"]) == (rewards, rewards)
    assert found["connections"] == spread_text([scheme.connections for scheme in best], 1)
    assert found["accuracy (%)"] == spread_text([reward(s) - 2 * s.sparsity for s in best], 2)
    assert (found["rule"], found["evaluations"]) == ("best-seen", "24")  # no deviation if all agree
    assert found["unique"] == spread_text([len(set(schemes)) for schemes in asked], 0)
    optima = sum(max(map(reward, schemes)) == max(map(reward, ALL)) for schemes in asked)
    assert found["optimum found"] == f"{optima} of 3"


def test_bodies_and_seconds_are_those_of_the_search_alone(made):
    times = BlockTimes(STAGES, 0.5, *((seconds,) * 5 for seconds in SECONDS.values()), 0.3)
    one_walk = [set(drawn(seed, 24)) for seed in SEEDS]
    found = row(made, "random")
    assert found["block bodies"] == spread_text([BATCHES * count_bodies(walk) for walk in one_walk], 0)
    seconds = [BATCHES * walk_seconds(schemes, times) for schemes in one_walk]
    assert found["seconds"] == spread_text(seconds, 0 if statistics.mean(seconds) >= 100 else 1)
    assert row(made, "exhaustive")["block bodies"] == str(BATCHES * 31)
    # Prefixes are not shared between steps: many small steps cost more.
    runs = [run for run in read_comparison(made).runs if run.strategy == "ean"]
    for run in runs:
        steps = list(map(count_bodies, run.history.walks()))
        assert run.bodies == BATCHES * sum(steps) > BATCHES * max(steps) > 0
    assert row(made, "ean")["block bodies"] == spread_text([run.bodies for run in runs], 0)


def test_a_trainer_has_measured_seconds_and_no_bodies(made):
    found = row(made, "darts")
    assert (found["block bodies"], found["seconds"], found["evaluations"]) == ("", "1,001 ± 1", "1")


def test_strategies_that_draw_nothing_run_once(made):
    for name in ("exhaustive", "hsp"):
        assert row(made, name)["optimum found"].endswith(" of 1")
        assert "±" not in row(made, name)["best reward"]
    assert row(made, "exhaustive")["optimum found"] == "1 of 1"
    assert row(made, "exhaustive")["best reward"] == f"{max(map(reward, ALL)):.2f}"


def test_without_an_exhaustive_search_nobody_knows_the_optimum(folder):
    record = json.loads((folder / "compare.json").read_text())
    record["strategies"].remove("exhaustive")
    (folder / "compare.json").write_text(json.dumps(record))
    assert {row["optimum found"] for row in write_comparison(folder)} == {""}
    assert "optimum" not in (folder / "comparison.md").read_text()
    assert all(line["found_optimum"] == "" for line in read_csv(folder))


# ---------------------------------------------------------------- what is refused


def test_the_record_of_something_else_is_refused(folder):
    write_json(folder / "compare.json", kind="search")
    with pytest.raises(
        ValueError, match=r"not a comparison of searches \(kind 'search'\); `ean search compare` makes one"
    ):
        comparison_rows(read_comparison(folder))


@pytest.mark.parametrize("missing", ["compare.json", "finalists.jsonl", "random/seed_1/ledger.jsonl"])
def test_a_missing_part_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        comparison_rows(read_comparison(folder))


def test_a_search_without_evaluations_is_refused(folder):
    write_lines(folder / "random" / "seed_1" / "ledger.jsonl", {}, [])
    with pytest.raises(ValueError, match=r"seed_1.*holds no evaluations; run the comparison again"):
        comparison_rows(read_comparison(folder))


# ---------------------------------------------------------------- what is written


def read_csv(folder):
    with (folder / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_is_a_table_a_file_of_numbers_and_three_figures(made, reported, capsys):
    rows, folder = reported
    assert rows == comparison_rows(read_comparison(made))
    written = {path.name for path in folder.iterdir()} - {path.name for path in made.iterdir()}
    figures = {"front.png", "convergence.png", "distribution.png"}
    assert written == {"comparison.md", "comparison.csv", *figures}
    text = (folder / "comparison.md").read_text()
    assert markdown_table(rows) in text
    assert all(f"({name})" in text for name in figures)
    for said in (
        "# Search strategies on search_resnet20_se_synthetic, 5 blocks in stages of 2, 3",
        "24 evaluations per search",
        "seeds 0, 1, 2",
        "Reward: 1 x accuracy (%) + 2 x sparsity.",
        "10,000 validation images",
        "percentage points",
        "rule `front`",
        "`darts` trains, for about as many forward passes",
    ):
        assert said in text
    print_table(rows, title="compared")
    assert "exhaustive" in capsys.readouterr().out


def test_numbers_are_unrounded_with_a_line_a_search(reported):
    _, folder = reported
    lines, runs = read_csv(folder), read_comparison(folder).runs
    assert [(line["strategy"], int(line["seed"])) for line in lines] == [(run.strategy, run.seed) for run in runs]
    assert len(lines) == 2 + 3 * 3
    for line, run in zip(lines, runs, strict=True):
        assert float(line["best_reward"]) == run.history.best.reward
        assert line["best_scheme"] == str(run.history.best.scheme)
        assert float(line["seconds"]) == run.seconds
        assert line["block_bodies"] == ("" if run.bodies is None else str(run.bodies))
        assert line["found_optimum"] == str(reward(run.history.best.scheme) == max(map(reward, ALL)))


def test_equal_comparisons_make_equal_reports(reported, folder):
    write_comparison(folder)
    for path in folder.iterdir():
        assert path.is_dir() or path.read_bytes() == (reported[1] / path.name).read_bytes()


def test_a_comparison_without_random_or_controllers_has_what_figures_it_can(tmp_path):
    written = Written(tmp_path)
    for seed in SEEDS:
        written.search("ga", seed, [drawn(seed, 6)])
    write_comparison(written.finish(ALL[:3]))
    assert {path.name for path in tmp_path.glob("*.png")} == {"front.png", "convergence.png"}


@pytest.mark.parametrize("stages", [(1,), (18, 18, 18)])
def test_any_network_and_a_single_seed_can_be_reported(tmp_path, stages):
    written = Written(tmp_path, stages, seeds=(0,))
    ends = [ConnectionScheme.none(stages), ConnectionScheme.full(stages)]
    written.search("random", 0, [ends])
    written.search("ean", 0, [ends], infos=[{"mean_probability": 0.5}])
    rows = write_comparison(written.finish(ends))
    assert [row["strategy"] for row in rows] == ["random", "ean"]


# ---------------------------------------------------------------- figures


def test_accuracies_are_tested_against_random_ones(tmp_path):
    draws = np.random.default_rng(0)
    base, other = list(draws.normal(74.3, 0.8, 180)), list(draws.normal(75.1, 0.45, 40))
    distribution_figure({"ean": other, "random": base, "ga": [74.0, 75.0]}, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    p = ttest_ind(other, base, equal_var=False).pvalue
    assert f">mean {np.mean(other):.2f}, sd {np.std(other, ddof=1):.2f}<" in text
    assert f">40 schemes, p = {p:.1g}<" in text
    assert ">180 schemes<" in text
    assert ">2 schemes:<" in text
    assert ">too few to compare<" in text


def test_the_front_names_the_ends_and_shows_its_schemes(made, tmp_path):
    comparison = read_comparison(made)
    kept = front(comparison.finalists)
    front_figure(comparison.runs[0].history.evaluations, comparison.finalists, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    for expected in ("none", "full", "best reward", "their exact front", "as scored in the search (32 schemes)"):
        assert f">{expected}<" in text
    for evaluation in kept:
        assert f"connection{'s' * (evaluation.scheme.connections != 1)}, {evaluation.score:.2f} %<" in text


def test_bands_are_drawn_over_seeds_of_different_length(tmp_path):
    rewards = {"random": [[1.0, 2.0, 3.0], [1.0, 1.5]], "darts": [[2.0], [2.5]]}
    convergence_figure(rewards, {"ean": [[0.5, 0.6], [0.5]]}, tmp_path / "figure.svg", budget=3, optimum=4.0)
    text = (tmp_path / "figure.svg").read_text()
    for expected in ("random", "darts", "optimum (exhaustive)", "mean probability of sampled schemes"):
        assert f">{expected}<" in text
