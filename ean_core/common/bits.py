"""One bit per image as text, for records."""

from __future__ import annotations

from collections.abc import Sequence


def pack_bits(flags: Sequence[bool]) -> str:
    """Pack one flag per image into hexadecimal digits, four images per digit; the last byte is filled with zeros.

    Hexadecimal rather than base64: the slashes of base64 would look like paths when a record is published.

    Examples:
        >>> pack_bits([True, False, False, False, True, True, True, True, True])
        '8f80'
    """
    digits = "".join("1" if flag else "0" for flag in flags)
    return "".join(f"{int(digits[start : start + 8].ljust(8, '0'), 2):02x}" for start in range(0, len(digits), 8))


def unpack_bits(text: str, count: int) -> list[bool]:
    """Return the ``count`` flags that :func:`pack_bits` packed.

    Raises:
        ValueError: if the text is not hexadecimal, or not that of ``count`` flags.

    Examples:
        >>> unpack_bits('8f80', 9)
        [True, False, False, False, True, True, True, True, True]
    """
    packed = bytes.fromhex(text)
    digits = "".join(f"{byte:08b}" for byte in packed)
    if len(packed) != -(-count // 8) or "1" in digits[count:]:
        raise ValueError(f"{len(text)} hexadecimal digits are not the bits of {count} images")
    return [digit == "1" for digit in digits[:count]]
