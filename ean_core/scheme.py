"""Connection schemes: which residual blocks of a network connect to their attention module."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

EXAMPLE = "010-0010-110011-001"
Blocks = TypeVar("Blocks", str, tuple[int, ...])

#: What a scheme's text has for a block with a constant gate.
CONSTANT = "c"


@dataclass(frozen=True, order=True)
class ConnectionScheme:
    """The vector ``a`` of Eqn 4: ``a_l = 1`` connects block ``l`` to its attention module.

    A third kind of block has a *constant gate*: one learned factor per channel, the same for every image, which the
    deployed network folds into its last convolution. Such a block is not a connection: ``bits`` has a 0 there.

    A scheme is an immutable value: it is hashable, ordered (by stages, then bits) and can be used as a key.
    Its text form has one character per block, ``0``, ``1``, or ``c`` for a constant gate, and joins stages with ``-``.

    Args:
        stages: number of residual blocks in each stage, e.g. ``(3, 4, 6, 3)`` for ResNet-50.
        bits: one 0 or 1 per block, in order; the length is ``sum(stages)``.
        constant_bits: 1 where a block has a constant gate, and 0 elsewhere; empty if no block has one.

    Raises:
        ValueError: if a stage is empty, a bit is neither 0 nor 1, the lengths do not fit, or a block is both connected
            and constant.

    Examples:
        >>> scheme = ConnectionScheme.parse("010-0010-110011-001")
        >>> scheme.stages, scheme.connections, scheme.sparsity
        ((3, 4, 6, 3), 7, 0.5625)
        >>> str(ConnectionScheme.full((3, 3, 3)))
        '111-111-111'
        >>> folded = ConnectionScheme.parse("010-1c0-c00")
        >>> folded.connections, folded.constants, folded.bits
        (2, 2, (0, 1, 0, 1, 0, 0, 0, 0, 0))
    """

    stages: tuple[int, ...]
    bits: tuple[int, ...]
    constant_bits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", _check_stages(self.stages))
        object.__setattr__(self, "bits", self._checked(self.bits, "bits"))
        constant = tuple(self.constant_bits) or (0,) * len(self.bits)
        object.__setattr__(self, "constant_bits", self._checked(constant, "constant_bits"))
        if any(map(min, self.bits, self.constant_bits)):
            raise ValueError(
                f"a block is either connected or has a constant gate, not both: bits={self.bits}, constant_bits="
                f"{self.constant_bits}"
            )

    def _checked(self, bits: Sequence[int], name: str) -> tuple[int, ...]:
        bits = tuple(bits)
        if len(bits) != sum(self.stages):
            raise ValueError(
                f"scheme {''.join(map(str, bits))!r} of {len(bits)} blocks does not fit stages "
                f"{self.stages}, which have {sum(self.stages)} blocks; for example {_example(self.stages)!r} does"
            )
        wrong = [bit for bit in bits if bit not in (0, 1)]
        if wrong:
            raise ValueError(f"scheme {name} are 0 or 1, got {wrong[0]!r}; for example {_example(self.stages)!r}")
        return tuple(int(bit) for bit in bits)

    # ---------------------------------------------------------------- construction

    @classmethod
    def parse(cls, value: Any, stages: Sequence[int] | None = None) -> ConnectionScheme:
        """Read a scheme from any of its written forms.

        Args:
            value: one of

                - the text form ``'010-0010-110011-001'``, with ``c`` for constant gates: ``'010-1c0-c00'``;
                - ``'full'`` or ``'none'`` (``stages`` required);
                - a plain string or flat sequence of bits (``stages`` required);
                - a nested sequence of bits, one sequence per stage;
                - a NumPy array or tensor of bits;
                - one integer per stage (``stages`` required), as in the authors' code: its binary digits, most
                  significant first, are the bits of the stage's blocks, none of which has a constant gate;
                - a :class:`ConnectionScheme`, returned unchanged.

                Where bits are written one by one, ``'c'`` is a constant gate.
            stages: blocks in each stage, which the scheme must fit. Optional where ``value`` implies it.

        Raises:
            ValueError: if ``value`` cannot be read or does not fit ``stages``.

        Examples:
            >>> ConnectionScheme.parse([4, 11, 19, 3], stages=(3, 4, 6, 3))
            ConnectionScheme('100-1011-010011-011')
            >>> ConnectionScheme.parse('100101', stages=(3, 3))
            ConnectionScheme('100-101')
            >>> ConnectionScheme.parse([[1, 'c', 0], '00c'])
            ConnectionScheme('1c0-00c')
        """
        if stages is not None:
            stages = _check_stages(stages)
        if hasattr(value, "tolist"):  # NumPy arrays, tensors
            value = value.tolist()
        if isinstance(value, cls):
            scheme = value
        elif isinstance(value, str):
            scheme = cls._from_text(value.strip(), stages)
        elif isinstance(value, Sequence) and len(value):
            scheme = cls._from_sequence(value, stages)
        else:
            raise ValueError(
                f"cannot read a scheme from {value!r} ({type(value).__name__}); give text with '-' between stages "
                f"such as {_example(stages)!r}, 'full', 'none', or a sequence of bits"
            )
        if stages is not None and scheme.stages != stages:
            raise ValueError(
                f"scheme {str(scheme)!r} has stages {scheme.stages} ({len(scheme.bits)} blocks), but the network "
                f"has stages {stages} ({sum(stages)} blocks); for example {_example(stages)!r} fits"
            )
        return scheme

    @classmethod
    def full(cls, stages: Sequence[int]) -> ConnectionScheme:
        """Every block connected: Share-full, Org-full, and the supernet."""
        return cls(tuple(stages), (1,) * sum(stages))

    @classmethod
    def none(cls, stages: Sequence[int]) -> ConnectionScheme:
        """No block connected: the vanilla residual network."""
        return cls(tuple(stages), (0,) * sum(stages))

    @classmethod
    def random(
        cls, stages: Sequence[int], p: float = 0.5, generator: torch.Generator | None = None
    ) -> ConnectionScheme:
        """Each block connected with probability ``p``, independently (Alg. 1, line 3).

        Raises:
            ValueError: if ``p`` is outside ``[0, 1]``.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"the probability of a connection must be in [0, 1], got p={p}")
        import torch  # slow to import, and needed here only

        draw = torch.rand(sum(stages), generator=generator) < p
        return cls(tuple(stages), tuple(int(bit) for bit in draw))

    @classmethod
    def every(cls, stages: Sequence[int], n: int, phase: int = 0) -> ConnectionScheme:
        """Every ``n``-th block of the whole network, the heuristic selection policy (HSP) of Table 4.

        Args:
            stages: blocks in each stage.
            n: period, at least 1.
            phase: index of the first connected block, ``0 <= phase < n``.

        Examples:
            >>> ConnectionScheme.every((3, 3, 3), n=2, phase=1)
            ConnectionScheme('010-101-010')
        """
        if n < 1 or not 0 <= phase < n:
            raise ValueError(f"needs n >= 1 and 0 <= phase < n, got n={n}, phase={phase}; for example n=2, phase=0")
        return cls(tuple(stages), tuple(int(i % n == phase) for i in range(sum(stages))))

    # ---------------------------------------------------------------- properties and derived schemes

    @property
    def connections(self) -> int:
        """Number of connected blocks, ``||a||_0``: those whose gate is computed from the image."""
        return sum(self.bits)

    @property
    def constants(self) -> int:
        """Number of blocks with a constant gate."""
        return sum(self.constant_bits)

    @property
    def gates(self) -> int:
        """Number of blocks with a gate, computed or constant; 0 for the vanilla residual network only."""
        return self.connections + self.constants

    @property
    def sparsity(self) -> float:
        """Fraction of blocks without a connection, ``1 - ||a||_0 / m``, in ``[0, 1]`` (Eqn 6).

        A constant gate takes no time in the deployed network, and is not a connection.
        """
        return 1 - self.connections / len(self.bits)

    @property
    def marks(self) -> str:
        """One character per block: ``1`` if it is connected, ``c`` if its gate is constant, otherwise ``0``."""
        pairs = zip(self.bits, self.constant_bits, strict=True)
        return "".join(CONSTANT if constant else str(bit) for bit, constant in pairs)

    @property
    def by_stage(self) -> tuple[tuple[int, ...], ...]:
        """The bits, one tuple per stage."""
        return self._split(self.bits)

    @property
    def marks_by_stage(self) -> tuple[str, ...]:
        """The :attr:`marks`, one string per stage."""
        return self._split(self.marks)

    def _split(self, values: Blocks) -> tuple[Blocks, ...]:
        ends = [sum(self.stages[: k + 1]) for k in range(len(self.stages))]
        return tuple(values[end - n : end] for end, n in zip(ends, self.stages, strict=True))

    def with_constants(self, blocks: Collection[int]) -> ConnectionScheme:
        """The scheme with constant gates in the place of those of some blocks, given by index from 0.

        Raises:
            ValueError: if one of them has no gate.

        Examples:
            >>> ConnectionScheme.parse('110-1').with_constants([0, 3])
            ConnectionScheme('c10-c')
        """
        without = [block for block in blocks if self.marks[block] == "0"]
        if without:
            raise ValueError(f"block {without[0]} of {str(self)!r} has no gate that could be constant")
        marks = "".join(CONSTANT if i in blocks else mark for i, mark in enumerate(self.marks))
        return ConnectionScheme.parse(marks, self.stages)

    def neighbours(self) -> Iterator[ConnectionScheme]:
        """The schemes that differ in the connection of exactly one block, in block order.

        A block with a constant gate has two neighbors, without and with a connection; no neighbor has more constants.
        """
        for i, mark in enumerate(self.marks):
            constant = (*self.constant_bits[:i], 0, *self.constant_bits[i + 1 :])
            for bit in {"0": (1,), "1": (0,), CONSTANT: (0, 1)}[mark]:
                yield ConnectionScheme(self.stages, (*self.bits[:i], bit, *self.bits[i + 1 :]), constant)

    def leading(self, num_stages: int) -> ConnectionScheme:
        """The scheme of a network that keeps only the first ``num_stages`` stages."""
        if not 1 <= num_stages <= len(self.stages):
            raise ValueError(f"{str(self)!r} has {len(self.stages)} stages, cannot keep the first {num_stages}")
        stages = self.stages[:num_stages]
        return ConnectionScheme(stages, self.bits[: sum(stages)], self.constant_bits[: sum(stages)])

    def __str__(self) -> str:
        return "-".join(self.marks_by_stage)

    def __repr__(self) -> str:
        return f"ConnectionScheme({str(self)!r})"

    # ---------------------------------------------------------------- parsing

    @classmethod
    def _from_text(cls, text: str, stages: tuple[int, ...] | None) -> ConnectionScheme:
        if text in ("full", "none"):
            if stages is None:
                raise ValueError(f"{text!r} needs the stages of a network, e.g. stages=(3, 4, 6, 3)")
            return cls.full(stages) if text == "full" else cls.none(stages)
        if not re.fullmatch(r"[01c]+(-[01c]+)*", text):
            raise ValueError(
                f"cannot read scheme {text!r}: write one 0 or 1 per block, or c for a constant gate, and '-' between "
                f"stages, for example {_example(stages)!r}, or 'full' or 'none'"
            )
        if "-" in text or stages is None or len(stages) == 1:
            parts = text.split("-")
            if len(parts) == 1 and stages is None:
                raise ValueError(
                    f"{text!r} does not say where stages end: separate them with '-' as in {EXAMPLE!r}, "
                    "or pass stages=(3, 4, 6, 3)"
                )
            return cls._from_marks(tuple(map(len, parts)), text.replace("-", ""))
        return cls._from_marks(stages, text)

    @classmethod
    def _from_marks(cls, stages: tuple[int, ...], marks: Iterable[Any]) -> ConnectionScheme:
        """Read one 0, 1 or ``'c'`` per block; 0 and 1 may be text as well."""
        marks = tuple(marks)
        bits = tuple(0 if mark == CONSTANT else int(mark) if mark in ("0", "1") else mark for mark in marks)
        return cls(stages, bits, tuple(int(mark == CONSTANT) for mark in marks))

    @classmethod
    def _from_sequence(cls, value: Sequence[Any], stages: tuple[int, ...] | None) -> ConnectionScheme:
        if all(isinstance(part, (Sequence, str)) for part in value):
            return cls._from_marks(tuple(len(part) for part in value), (bit for part in value for bit in part))
        if not all(isinstance(number, Integral) or number == CONSTANT for number in value):
            raise ValueError(f"cannot read a scheme from {value!r}: it mixes numbers with other types")
        if stages is None:
            raise ValueError(f"{value!r} does not say where stages end: nest it by stage, or pass stages=(3, 4, 6, 3)")
        if len(value) != len(stages) or len(value) == sum(stages):
            return cls._from_marks(stages, value)
        if CONSTANT in value:
            raise ValueError(
                f"{list(value)} has an integer per stage, as in the authors' code, which cannot express a constant "
                f"gate ({CONSTANT!r}); write text such as {_constant_example(stages)!r}"
            )
        digits = ""
        for number, n in zip(value, stages, strict=True):
            if not 0 <= number < 2**n:
                raise ValueError(
                    f"{number} in {list(value)} does not fit a stage of {n} blocks, whose integers are 0 to {2**n - 1}"
                )
            digits += f"{number:0{n}b}"
        return cls(stages, tuple(int(bit) for bit in digits))


def _check_stages(stages: Sequence[int]) -> tuple[int, ...]:
    stages = tuple(stages)
    if not stages or any(not isinstance(n, Integral) or n < 1 for n in stages):
        raise ValueError(f"stages must be positive numbers of blocks, e.g. (3, 4, 6, 3), got {stages}")
    return tuple(int(n) for n in stages)


def _example(stages: Sequence[int] | None) -> str:
    if stages is None:
        return EXAMPLE
    return str(ConnectionScheme.every(stages, 2))


def _constant_example(stages: Sequence[int]) -> str:
    return str(ConnectionScheme.every(stages, 2).with_constants([0]))
