"""Results printed in the paper (Huang et al., arXiv 2011.14058), for comparison with ours.

Increments are relative inference time increments (Eqn 9), batch 50 on a V100, over the paper's own vanilla networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Connection = Literal["vanilla", "Org-full", "Share-full", "EAN"]


@dataclass(frozen=True)
class PaperRow:
    """One network of the paper.

    Args:
        table: table number.
        data: name of the data set.
        network: the backbone.
        attention: ``SE``, ``SGE`` or ``DIA``; empty for the plain network.
        connection: how its blocks are connected.
        metrics: values by metric name in test records.
        parameters: in millions, as printed; None if the table has none.
        increment: in percent; None if the table has none.
    """

    table: int
    data: str
    network: str
    attention: str
    connection: Connection
    metrics: dict[str, float] = field(hash=False)
    parameters: float | None = None
    increment: float | None = None


def _rows(table: int, data: str, network: str, columns: str, *lines: tuple[Any, ...]) -> Iterator[PaperRow]:
    """Lines of a table: attention, connection, and one value per column."""
    for attention, connection, *values in lines:
        metrics = dict(zip(columns.split(), values, strict=True))
        parameters, increment = metrics.pop("parameters", None), metrics.pop("increment")
        yield PaperRow(table, data, network, attention, connection, metrics, parameters, increment)


#: The rows in the paper's order.
PAPER: tuple[PaperRow, ...] = (
    *_rows(
        1,
        "CIFAR-100",
        "ResNet-164",
        "accuracy/top1 parameters increment",
        ("", "vanilla", 74.29, 1.727, 0.0),
        ("SE", "Org-full", 75.80, 1.929, 54.46),
        ("SE", "Share-full", 76.09, 1.739, 52.09),
        ("SE", "EAN", 76.93, 1.739, 23.52),
        ("SGE", "Org-full", 75.75, 1.728, 93.60),
        ("SGE", "Share-full", 76.17, 1.727, 93.41),
        ("SGE", "EAN", 76.36, 1.727, 50.49),
        ("DIA", "Share-full", 77.26, 1.946, 121.11),
        ("DIA", "EAN", 77.12, 1.946, 65.46),
    ),
    *_rows(
        1,
        "ImageNet-1k",
        "ResNet-50",
        "accuracy/top1 parameters increment",
        ("", "vanilla", 76.01, 25.584, 0.0),
        ("SE", "Org-full", 77.01, 28.115, 25.94),
        ("SE", "Share-full", 77.35, 26.284, 25.92),
        ("SE", "EAN", 77.40, 26.284, 10.35),
        ("SGE", "Org-full", 77.20, 25.586, 40.60),
        ("SGE", "Share-full", 77.51, 25.584, 40.50),
        ("SGE", "EAN", 77.62, 25.584, 19.66),
        ("DIA", "Share-full", 77.24, 28.385, 27.26),
        ("DIA", "EAN", 77.56, 28.385, 16.58),
    ),
    *_rows(
        3,
        "ShanghaiTech B",
        "ResNet-50",
        "count/MAE count/RMSE increment",
        ("SE", "Org-full", 9.5, 15.93, 19.19),
        ("SE", "Share-full", 8.9, 14.6, 19.19),
        ("SE", "EAN", 8.6, 14.7, 6.16),
        ("DIA", "Share-full", 9.1, 14.9, 16.93),
        ("DIA", "EAN", 8.2, 13.9, 8.71),
    ),
    *_rows(
        3,
        "ShanghaiTech A",
        "ResNet-50",
        "count/MAE count/RMSE increment",
        ("SGE", "Org-full", 93.9, 144.5, 58.98),
        ("SGE", "Share-full", 91.6, 143.1, 58.85),
        ("SGE", "EAN", 88.4, 140.0, 30.55),
        ("SE", "Org-full", 89.9, 140.2, 49.50),
        ("SE", "Share-full", 89.9, 140.2, 49.00),
        ("SE", "EAN", 79.4, 127.7, 21.07),
        ("DIA", "Share-full", 92.5, 130.4, 51.75),
        ("DIA", "EAN", 90.3, 141.6, 29.43),
    ),
    *_rows(
        5,
        "Pascal VOC 2012",
        "ResNet-50",
        "mIoU mAcc aAcc increment",
        ("", "vanilla", 69.39, 78.87, 92.97, None),
        ("SE", "Share-full", 73.03, 82.13, 93.74, 48.16),
        ("SE", "EAN", 73.68, 83.08, 93.79, 16.43),
        ("DIA", "Share-full", 74.02, 83.11, 93.92, 64.86),
        ("DIA", "EAN", 73.91, 82.93, 93.92, 7.68),
    ),
)


class PaperScheme(NamedTuple):
    """A line of Table 2: scheme found by a search for SE in ResNet-164 on CIFAR-100, and the accuracy of the network
    trained with it, in percent."""

    method: str
    scheme: str
    accuracy: float

    @property
    def whole(self) -> bool:
        """Whether each stage has 18 digits; one line was printed with a wrong number of digits."""
        return {len(stage) for stage in self.scheme.split("-")} == {18}


class PaperMethod(NamedTuple):
    """A line of Table 4: accuracy and relative inference time increment (Eqn 9) of a search method's scheme, for SE in
    ResNet-164 on CIFAR-100, in percent."""

    method: str
    accuracy: float
    increment: float


#: Table 2.
SCHEMES: tuple[PaperScheme, ...] = (
    PaperScheme("ENAS (a)", "-".join(["001" * 6] * 3), 75.80),
    PaperScheme("ENAS (b)", "100100101100100100-101101100100101101-100100101101100100", 75.11),
    PaperScheme("ENAS (c)", "-".join(["110" * 6] * 3), 76.08),
    PaperScheme("EAN (a)", "0011001001011110101-001100000111001111-1011000001111110001", 76.93),
    PaperScheme("EAN (b)", "001100000001010111-011100001000010111-101000100110000000", 76.71),
)

#: Table 4.
METHODS: tuple[PaperMethod, ...] = (
    PaperMethod("EAN", 76.93, 23.52),
    PaperMethod("DARTS", 75.41, 35.03),
    PaperMethod("GA", 76.09, 26.10),
    PaperMethod("ENAS", 76.08, 35.07),
    PaperMethod("HSP (101010…)", 75.02, 26.62),
    PaperMethod("HSP (010101…)", 74.87, 26.62),
    PaperMethod("HSP (100100…)", 75.29, 18.13),
    PaperMethod("HSP (010010…)", 74.01, 18.13),
)

#: Numbers behind Figure 4, from the text (Section 6.1): accuracies of networks trained from scratch.
DISTRIBUTION = (
    "In the paper (SE, ResNet-164, CIFAR-100, each scheme trained from scratch): 180 random schemes, mean 74.29, "
    "standard deviation 0.81, from 71 to 75.6; 40 schemes of its search, mean 75.10, standard deviation 0.45; "
    "p = 4e-7."
)
#: Statement about Figure 5 in the text (Section 6.2).
CONVERGENCE = (
    "In the paper (SE, ResNet-164, CIFAR-100), ENAS's controller concentrates on one scheme from about step 20 and has "
    "converged by step 100; the paper's own controller remains undecided for longer."
)
