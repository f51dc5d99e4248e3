"""The steps of the campaign, in the order of need, and the commands that each consists of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ean_core.scheme import ConnectionScheme
from zoo.names import ModelName

if TYPE_CHECKING:
    from campaign import Campaign


@dataclass(frozen=True)
class Command:
    """One command of a step.

    Args:
        arguments: behind ``ean``.
        record: the file that it leaves in the run's folder when it is done.
    """

    arguments: tuple[str, ...]
    record: str

    def __str__(self) -> str:
        return " ".join(("ean", *self.arguments))


@dataclass(frozen=True)
class Supernet:
    """A supernet, which each iteration trains with a random scheme."""

    attention: str
    dataset: str
    depth: int = 20

    @property
    def minutes(self) -> float:
        return 15 if self.depth == 20 else 7

    @property
    def name(self) -> str:
        return f"supernet_resnet{self.depth}_{self.attention}.{self.dataset}/seed_0"

    @property
    def config(self) -> str:
        return f"supernet_resnet{self.depth}_{self.attention}_{self.dataset}"

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        yield campaign.train(self.config, self.name, *compiled(self.depth))


@dataclass(frozen=True)
class SupernetUser:
    """What takes a trained supernet."""

    attention: str
    dataset: str
    depth: int = 20
    prefix: ClassVar[str]

    @property
    def name(self) -> str:
        return f"{self.prefix}_resnet{self.depth}_{self.attention}.{self.dataset}/seed_0"

    @property
    def supernet(self) -> Supernet:
        """What it takes."""
        return Supernet(self.attention, self.dataset, self.depth)

    def command(self, campaign: Campaign, *words: str, record: str) -> Command:
        """``ean search`` on the supernet, resumed where it was stopped; ``{}`` among the words is its config."""
        config = f"search_resnet{self.depth}_{self.attention}_{self.dataset}"
        where = (
            "--supernet",
            str(campaign.checkpoint(self.supernet.name)),
            "--work-dir",
            str(campaign.runs / self.name),
        )
        return Command(("search", *(word.format(config) for word in words), "--resume", *where), record)

    @property
    def scoring(self) -> tuple[str, ...]:
        """Of 54 blocks: batches that keep a GPU busy while the next kernels are launched, and scores in bf16."""
        options = ("--cfg-options", "val_dataloader.batch_size=2500", "search.precision=bf16")
        return options if self.depth == 164 else ()


class Search(SupernetUser):
    """The search of a supernet: exhaustive where all schemes can be scored, by local search of 54 blocks."""

    prefix = "search"
    minutes: ClassVar[float] = 6

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        if self.depth == 20:
            words = ("--strategy", "exhaustive")
        else:
            words = ("--strategy", "local", *self.scoring, "search.strategy.evaluations=3000")
        yield self.command(campaign, "{}", *words, record="search.json")


class Correlation(SupernetUser):
    """Random schemes trained alone, against what the supernet says of them."""

    prefix = "correlate"
    minutes: ClassVar[float] = 40

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        size = ("--schemes", "12", "--epochs", "5" if self.depth == 20 else "20")
        yield self.command(
            campaign,
            "correlate",
            "{}",
            *campaign.shorter(size),
            "--amp",
            *campaign.capture,
            *self.scoring,
            record="correlation.json",
        )


class Comparison(SupernetUser):
    """Search strategies on one supernet, with equal budgets."""

    prefix = "compare"
    minutes: ClassVar[float] = 30

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        strategies = ("--strategies", "local,ean,enas,ga,tpe,random,hsp")
        size = campaign.shorter(("--evaluations", "300", "--seeds", "2"))
        yield self.command(campaign, "compare", "{}", *strategies, *size, *self.scoring, record="compare.json")


@dataclass(frozen=True)
class Timing:
    """Vanilla, Org-full, Share-full and EAN networks side by side, and for classifiers what each connection costs."""

    attention: str
    dataset: str
    depth: int = 20
    minutes: ClassVar[float] = 4

    @property
    def name(self) -> str:
        return f"time_resnet{self.depth}_{self.attention}.{self.dataset}"

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        model = ModelName(self.depth, self.dataset, "ean", self.attention)
        config, out = (
            f"resnet{self.depth}_{self.attention}_{self.dataset}",
            str(campaign.runs / self.name / "timing.json"),
        )
        overrides = ("--cfg-options", f"model.backbone.scheme={campaign.scheme(model)}")
        if model.task != "Image Classification":
            yield Command(("time", config, "--batch", "1", "--rounds", "50", "--out", out, *overrides), "timing.json")
            return
        rounds = ("--rounds", "200", "--out", out)
        yield Command(("time", config, *rounds, *overrides), "timing.json")
        yield Command(("time", config, "--per-block", *rounds), "timing_blocks_deployed.json")


@dataclass(frozen=True)
class Network:
    """One network of the zoo: trained, measured on test images once, and published where its seed is 0."""

    model: ModelName
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.model}/seed_{self.seed}"

    @property
    def config(self) -> str:
        return f"resnet{self.model.depth}_{self.model.attention or 'se'}_{self.model.dataset}"

    @property
    def minutes(self) -> float:
        if self.model.depth == 164:
            return 6
        return {"Crowd Counting": 30, "Semantic Segmentation": 12}.get(self.model.task, 18)

    def options(self, campaign: Campaign) -> list[str]:
        """Overrides of the config: connections, first weights, seed."""
        scheme = campaign.scheme(self.model)
        options = [f"model.backbone.scheme={scheme}"]
        if self.model.variant == "org":
            options.append("model.backbone.shared=False")
        if self.model.task != "Image Classification" and self.model.depth == 20:
            first = replace(self.model, dataset=campaign.source)
            options.append(f"model.backbone.init_cfg.checkpoint=ean://{first}")
        if self.seed:
            options.append(f"randomness.seed={self.seed}")
        return options

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        overrides = self.options(campaign)
        yield campaign.train(self.config, self.name, *overrides, *compiled(self.model.depth))
        if self.model.task == "Crowd Counting":  # the official test images are kept apart
            overrides.append("test_dataloader.dataset.split=val")
        options = ("--cfg-options", *overrides)
        trained = str(campaign.checkpoint(self.name))
        test = {
            "Crowd Counting": ("crowd", "evaluate", self.config, trained, "--no-time"),
            "Semantic Segmentation": ("seg", "evaluate", self.config, trained, "--no-time"),
        }
        yield Command((*test.get(self.model.task, ("test", self.config, trained)), *options), "test.json")
        if self.seed == 0:
            best = ("--best",) if self.model.variant == "best" else ()
            timing = campaign.timing(self)
            timed = ("--timing", str(timing)) if timing else ()
            yield Command(("zoo", "publish", trained, self.config, *best, *timed, *options), "published.json")


@dataclass(frozen=True)
class Alone:
    """A scheme that is trained alone and measured on test images, for Figure 4 and Table 4."""

    attention: str
    dataset: str
    scheme: str
    depth: int = 20
    seed: ClassVar[int] = 0
    minutes: ClassVar[float] = 1

    @property
    def folder(self) -> str:
        """Of all that are trained for one comparison."""
        return f"alone_resnet{self.depth}_{self.attention}.{self.dataset}"

    @property
    def name(self) -> str:
        return f"{self.folder}/{self.scheme}/seed_{self.seed}"

    @property
    def config(self) -> str:
        return f"resnet{self.depth}_{self.attention}_{self.dataset}"

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        overrides = (f"model.backbone.scheme={self.scheme}",)
        yield campaign.train(self.config, self.name, *overrides)
        trained = str(campaign.checkpoint(self.name))
        yield Command(("test", self.config, trained, "--cfg-options", *overrides), "test.json")


Step = Supernet | Search | Correlation | Comparison | Timing | Network | Alone


def compiled(depth: int) -> tuple[str, ...]:
    """How networks are compiled whose training is long enough to make up for the minute that this takes."""
    return ("model.compile_blocks=True",) if depth == 164 else ()


def plan(dataset: str = "cifar100") -> list[Step]:
    """All steps, most needed first; each can be published by itself."""

    def family(attention: str, *more: Step) -> list[Step]:
        search = Search(attention, dataset)
        ean = Network(ModelName(20, dataset, "ean", attention))
        return [search.supernet, search, Timing(attention, dataset), *more, ean]

    vanilla, full = ModelName(20, dataset), ModelName(20, dataset, "full", "se")
    ean = replace(full, variant="ean")
    steps: list[Step] = family("se", Network(vanilla), Network(full))
    if dataset != "cifar100":
        return steps

    def transferred(target: str) -> list[Step]:
        networks = [Network(replace(model, dataset=target)) for model in (ean, vanilla, full)]
        return [Timing("se", target), *networks]

    *counters, full_counter = transferred("shanghaitech_b")
    steps += [*counters, *family("dia"), *family("sge"), full_counter, *transferred("voc2012")]
    steps += transferred("shanghaitech_a")[1:]  # their times are those of part B
    steps += [Network(model, seed) for seed in (1, 2) for model in (vanilla, full, ean)]
    steps += [Network(replace(full, variant=variant)) for variant in ("org", "best")]
    steps += [Correlation("se", dataset), Correlation("dia", dataset)]
    for attention in ("dia", "sge"):
        pair = [replace(model, attention=attention) for model in (full, ean)]
        steps += [Network(model, seed) for seed in (0, 1, 2) for model in pair if (model, seed) != (pair[1], 0)]
    return steps


def kind(step: Step) -> str:
    """Steps of one kind take about as long as each other."""
    if isinstance(step, Network):
        return f"{step.model.attention or 'vanilla'} {step.model.depth} {step.model.dataset}"
    return f"{type(step).__name__.lower()} {step.attention} {step.depth} {step.dataset}"


def gpu_plan(
    groups: Mapping[str, Sequence[ConnectionScheme]],
    trained: Collection[ConnectionScheme] = (),
    dataset: str = "cifar100",
    depth: int = 164,
) -> list[Step]:
    """What takes a GPU, most needed first; cut from the end where time ends.

    Args:
        groups: schemes of ResNet-20 with SE to train alone.
        trained: those of them that the zoo's networks are trained with.
        dataset: of all networks but the counters.
        depth: of the networks that are searched.
    """
    whole = dataset == "cifar100"

    def family(attention: str, *variants: str) -> list[Step]:
        search = Search(attention, dataset, depth)
        networks = [Network(ModelName(depth, dataset, variant, attention)) for variant in variants]
        return [search.supernet, search, Timing(attention, dataset, depth), *networks]

    schemes = dict.fromkeys(scheme for group in groups.values() for scheme in group)
    steps: list[Step] = [Alone("se", dataset, str(scheme)) for scheme in schemes if scheme not in trained]
    vanilla = Network(ModelName(depth, dataset))
    steps += [*family("se", "ean", "full"), vanilla]
    if whole:
        steps += [*family("dia", "full", "ean"), *family("sge", "full", "ean")]
        steps += [Network(ModelName(depth, dataset, "org", attention)) for attention in ("se", "sge")]
    steps += [Comparison("se", dataset, depth), Correlation("se", dataset, depth)]
    if whole:
        found = [ModelName(depth, dataset, variant, "se") for variant in ("ean", "full")]
        steps += [Network(model, seed) for seed in (1, 2) for model in (*found, vanilla.model)]
        for part in ("b", "a"):
            target = f"shanghaitech_{part}"
            counters = [ModelName(50, target), *(ModelName(50, target, name, "se") for name in ("ean", "full"))]
            steps += map(Network, counters)
    return steps
