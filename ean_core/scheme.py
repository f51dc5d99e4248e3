"""Connection schemes: which residual blocks of a network connect to their attention module."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

EXAMPLE = "010-0010-110011-001"


@dataclass(frozen=True, order=True)
class ConnectionScheme:
    """The vector ``a`` of Eqn 4: ``a_l = 1`` connects block ``l`` to its attention module.

    A scheme is an immutable value: it is hashable, ordered (by stages, then bits) and can be used as a key.
    Its text form has one digit per block and joins stages with ``-``.

    Args:
        stages: number of residual blocks in each stage, e.g. ``(3, 4, 6, 3)`` for ResNet-50.
        bits: one 0 or 1 per block, in order; the length is ``sum(stages)``.

    Raises:
        ValueError: if a stage is empty, a bit is neither 0 nor 1, or the lengths do not fit.

    Examples:
        >>> scheme = ConnectionScheme.parse("010-0010-110011-001")
        >>> scheme.stages, scheme.connections, scheme.sparsity
        ((3, 4, 6, 3), 7, 0.5625)
        >>> str(ConnectionScheme.full((3, 3, 3)))
        '111-111-111'
    """

    stages: tuple[int, ...]
    bits: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", _check_stages(self.stages))
        object.__setattr__(self, "bits", tuple(self.bits))
        if len(self.bits) != sum(self.stages):
            raise ValueError(
                f"scheme {''.join(map(str, self.bits))!r} of {len(self.bits)} blocks does not fit stages "
                f"{self.stages}, which have {sum(self.stages)} blocks; for example {_example(self.stages)!r} does"
            )
        wrong = [bit for bit in self.bits if bit not in (0, 1)]
        if wrong:
            raise ValueError(f"scheme bits are 0 or 1, got {wrong[0]!r}; for example {_example(self.stages)!r}")
        object.__setattr__(self, "bits", tuple(int(bit) for bit in self.bits))

    # ---------------------------------------------------------------- construction

    @classmethod
    def parse(cls, value: Any, stages: Sequence[int] | None = None) -> ConnectionScheme:
        """Read a scheme from any of its written forms.

        Args:
            value: one of

                - the text form ``'010-0010-110011-001'``;
                - ``'full'`` or ``'none'`` (``stages`` required);
                - a plain string or flat sequence of bits (``stages`` required);
                - a nested sequence of bits, one sequence per stage;
                - a NumPy array or tensor of bits;
                - one integer per stage (``stages`` required), as in the authors' code: its binary digits, most
                  significant first, are the bits of the stage's blocks;
                - a :class:`ConnectionScheme`, returned unchanged.
            stages: blocks in each stage, which the scheme must fit. Optional where ``value`` implies it.

        Raises:
            ValueError: if ``value`` cannot be read or does not fit ``stages``.

        Examples:
            >>> ConnectionScheme.parse([4, 11, 19, 3], stages=(3, 4, 6, 3))
            ConnectionScheme('100-1011-010011-011')
            >>> ConnectionScheme.parse('100101', stages=(3, 3))
            ConnectionScheme('100-101')
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
        """Number of connected blocks, ``||a||_0``."""
        return sum(self.bits)

    @property
    def sparsity(self) -> float:
        """Fraction of blocks without a connection, ``1 - ||a||_0 / m``, in ``[0, 1]`` (Eqn 6)."""
        return 1 - self.connections / len(self.bits)

    @property
    def by_stage(self) -> tuple[tuple[int, ...], ...]:
        """The bits, one tuple per stage."""
        ends = [sum(self.stages[: k + 1]) for k in range(len(self.stages))]
        return tuple(self.bits[end - n : end] for end, n in zip(ends, self.stages, strict=True))

    def neighbours(self) -> Iterator[ConnectionScheme]:
        """The schemes that differ in exactly one block, in block order."""
        for i, bit in enumerate(self.bits):
            yield ConnectionScheme(self.stages, (*self.bits[:i], 1 - bit, *self.bits[i + 1 :]))

    def leading(self, num_stages: int) -> ConnectionScheme:
        """The scheme of a network that keeps only the first ``num_stages`` stages."""
        if not 1 <= num_stages <= len(self.stages):
            raise ValueError(f"{str(self)!r} has {len(self.stages)} stages, cannot keep the first {num_stages}")
        stages = self.stages[:num_stages]
        return ConnectionScheme(stages, self.bits[: sum(stages)])

    def __str__(self) -> str:
        return "-".join("".join(map(str, stage)) for stage in self.by_stage)

    def __repr__(self) -> str:
        return f"ConnectionScheme({str(self)!r})"

    # ---------------------------------------------------------------- parsing

    @classmethod
    def _from_text(cls, text: str, stages: tuple[int, ...] | None) -> ConnectionScheme:
        if text in ("full", "none"):
            if stages is None:
                raise ValueError(f"{text!r} needs the stages of a network, e.g. stages=(3, 4, 6, 3)")
            return cls.full(stages) if text == "full" else cls.none(stages)
        if not re.fullmatch(r"[01]+(-[01]+)*", text):
            raise ValueError(
                f"cannot read scheme {text!r}: write one 0 or 1 per block and '-' between stages, "
                f"for example {_example(stages)!r}, or 'full' or 'none'"
            )
        if "-" in text or stages is None or len(stages) == 1:
            parts = text.split("-")
            if len(parts) == 1 and stages is None:
                raise ValueError(
                    f"{text!r} does not say where stages end: separate them with '-' as in {EXAMPLE!r}, "
                    "or pass stages=(3, 4, 6, 3)"
                )
            return cls(tuple(map(len, parts)), tuple(int(bit) for bit in text.replace("-", "")))
        return cls(stages, tuple(int(bit) for bit in text))

    @classmethod
    def _from_sequence(cls, value: Sequence[Any], stages: tuple[int, ...] | None) -> ConnectionScheme:
        if all(isinstance(part, (Sequence, str)) for part in value):
            bits = tuple(int(bit) if bit in ("0", "1") else bit for part in value for bit in part)
            return cls(tuple(len(part) for part in value), bits)
        if not all(isinstance(number, Integral) for number in value):
            raise ValueError(f"cannot read a scheme from {value!r}: it mixes numbers with other types")
        if stages is None:
            raise ValueError(f"{value!r} does not say where stages end: nest it by stage, or pass stages=(3, 4, 6, 3)")
        if len(value) != len(stages) or len(value) == sum(stages):
            return cls(stages, tuple(value))
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
