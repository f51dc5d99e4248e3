"""The steps of the campaign, in the order of need, and the commands that each consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

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
    minutes: ClassVar[float] = 15

    @property
    def name(self) -> str:
        return f"supernet_resnet20_{self.attention}.{self.dataset}/seed_0"

    @property
    def config(self) -> str:
        return f"supernet_resnet20_{self.attention}_{self.dataset}"

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        yield campaign.train(self.config, self.name)


@dataclass(frozen=True)
class SupernetUser:
    """What takes a trained supernet."""

    attention: str
    dataset: str
    prefix: ClassVar[str]

    @property
    def name(self) -> str:
        return f"{self.prefix}_resnet20_{self.attention}.{self.dataset}/seed_0"

    @property
    def supernet(self) -> Supernet:
        """What it takes."""
        return Supernet(self.attention, self.dataset)

    def command(self, campaign: Campaign, *words: str, record: str) -> Command:
        """``ean search`` on the supernet, resumed where it was stopped; ``{}`` among the words is its config."""
        config = f"search_resnet20_{self.attention}_{self.dataset}"
        where = (
            "--supernet",
            str(campaign.checkpoint(self.supernet.name)),
            "--work-dir",
            str(campaign.runs / self.name),
        )
        return Command(("search", *(word.format(config) for word in words), "--resume", *where), record)


class Search(SupernetUser):
    """The exhaustive search of a supernet."""

    prefix = "search"
    minutes: ClassVar[float] = 6

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        yield self.command(campaign, "{}", "--strategy", "exhaustive", record="search.json")


class Correlation(SupernetUser):
    """Random schemes trained alone, against what the supernet says of them."""

    prefix = "correlate"
    minutes: ClassVar[float] = 40

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        size = ("--schemes", "12", "--epochs", "5")
        yield self.command(campaign, "correlate", "{}", *size, "--amp", record="correlation.json")


@dataclass(frozen=True)
class Timing:
    """Vanilla, Org-full, Share-full and EAN networks side by side, and for classifiers what each connection costs."""

    attention: str
    dataset: str
    minutes: ClassVar[float] = 4

    @property
    def name(self) -> str:
        return f"time_resnet20_{self.attention}.{self.dataset}"

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        model = ModelName(20, self.dataset, "ean", self.attention)
        config, out = f"resnet20_{self.attention}_{self.dataset}", str(campaign.runs / self.name / "timing.json")
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
        return f"resnet20_{self.model.attention or 'se'}_{self.model.dataset}"

    @property
    def minutes(self) -> float:
        return {"Crowd Counting": 30, "Semantic Segmentation": 12}.get(self.model.task, 18)

    def options(self, campaign: Campaign) -> list[str]:
        """Overrides of the config: connections, first weights, seed."""
        scheme = campaign.scheme(self.model)
        options = [f"model.backbone.scheme={scheme}"]
        if self.model.variant == "org":
            options.append("model.backbone.shared=False")
        if self.model.task != "Image Classification":
            first = replace(self.model, dataset=campaign.source)
            options.append(f"model.backbone.init_cfg.checkpoint=ean://{first}")
        if self.seed:
            options.append(f"randomness.seed={self.seed}")
        return options

    def commands(self, campaign: Campaign) -> Iterator[Command]:
        overrides = self.options(campaign)
        yield campaign.train(self.config, self.name, *overrides)
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


Step = Supernet | Search | Correlation | Timing | Network


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
        return f"{step.model.attention or 'vanilla'} {step.model.dataset}"
    return f"{type(step).__name__.lower()} {step.attention} {step.dataset}"
