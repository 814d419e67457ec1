"""Exact sums of numbers over ranges of an array, by the million: integers all the way, rounded once.

A float is a whole number times a power of two, so a column of floats is a column of whole numbers in one unit, the
smallest that any of them needs. Where these fit 63 bits even when all are added, a running sum is one pass; otherwise
there is one pass for each 32 bits of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelmill.windows import TINY

Ints = NDArray[np.int64]

LIMB = 32
"""Bits of a whole number that are added up at a time."""
AT_A_TIME = 1_000_000
"""Numbers that are taken apart at a time; bounds the memory that goes into it."""
HALF = 30
"""Bits of the lower part of a number when its square is computed in parts: parts then multiply within 63 bits."""


@dataclass(frozen=True)
class ExactSums:
    """Sums as whole numbers `units`, int64 or Python's own, each to be divided by 2**scale."""

    units: NDArray[Any]
    scale: int

    def rounded(self) -> NDArray[np.float64]:
        """The sums, each rounded to the nearest float."""
        if self.units.dtype == np.int64:
            return np.ldexp(self.units.astype(np.float64), -self.scale)
        return (self.units / (1 << self.scale)).astype(np.float64)


def range_sums(values: NDArray[Any], starts: Ints, ends: Ints, *, squared: bool = False) -> ExactSums:
    """The sum of `values[start:end]`, or of their squares, for each of the ranges.

    Args:
        values: float64, finite; int64 below 10**18 in magnitude; or bool.
    """
    if squared and values.dtype == np.float64:
        values = np.where(np.abs(values) < TINY, 0.0, values)
    digits, positions, width, scale = _whole(values)
    if squared:
        width, scale = 2 * width, 2 * scale
    if width + len(values).bit_length() < 63:
        units = digits << positions
        return ExactSums(_over(units * units if squared else units, starts, ends), scale)
    total = np.zeros(len(starts), object)
    for number in range(width // LIMB + 1):
        limb = np.zeros(len(values), np.int64)
        for part in _parts(len(values)):
            at = positions[part].astype(np.int64)
            for term in _square_terms(digits[part], at) if squared else [(digits[part], at)]:
                _add_limb(limb[part], *term, number)
        total += _over(limb, starts, ends).astype(object) * (1 << LIMB * number)
    return ExactSums(total, scale)


def running(values: NDArray[Any]) -> Ints:
    """The sums of the first 0, 1, 2, ... of `values`."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _over(values: Ints, starts: Ints, ends: Ints) -> Ints:
    sums = running(values)
    return sums[ends] - sums[starts]


def _whole(values: NDArray[Any]) -> tuple[Ints, NDArray[np.int16], int, int]:
    """Whole numbers and positions with values == digits * 2**(positions - scale), positions and scale >= 0.

    Returns:
        digits, positions, how many bits digits << positions have at most, scale.
    """
    digits = np.zeros(len(values), np.int64) if values.dtype == np.float64 else values.astype(np.int64)
    positions = np.zeros(len(values), np.int16)
    width, scale = 0, 0
    if values.dtype == np.float64:
        for part in _parts(len(values)):
            mantissas, exponents = np.frexp(values[part])
            digits[part] = np.ldexp(mantissas, 53)
            trailing = _bits(digits[part] & -digits[part]) - 1  # zeros at the end would make the common unit small
            trailing[digits[part] == 0] = 0
            digits[part] >>= trailing
            positions[part] = np.where(digits[part] == 0, 0, exponents + (trailing - 53))
        scale = max(0, -int(positions.min(initial=0)))
        positions += np.int16(scale)
    for part in _parts(len(values)):
        width = max(width, int((_bits(digits[part]) + positions[part]).max(initial=0)))
    return digits, positions, width, scale


def _parts(length: int) -> Iterator[slice]:
    """Slices that together cover an array, so that what is computed on the way needs little memory."""
    return (slice(start, start + AT_A_TIME) for start in range(0, length, AT_A_TIME))


def _bits(digits: Ints) -> Ints:
    """The length of each number in bits, or one more."""
    return np.frexp(np.abs(digits).astype(np.float64))[1].astype(np.int64)


def _square_terms(digits: Ints, positions: Ints) -> Sequence[tuple[Ints, Ints]]:
    magnitudes = np.abs(digits)
    high, low = magnitudes >> HALF, magnitudes & ((1 << HALF) - 1)
    return [
        (high * high, 2 * positions + 2 * HALF),
        (high * low, 2 * positions + HALF + 1),
        (low * low, 2 * positions),
    ]


def _add_limb(limb: Ints, digits: Ints, positions: Ints, number: int) -> None:
    """Add what digits * 2**positions has in bits LIMB * number and the next `LIMB - 1`, with its sign."""
    offset = number - positions // LIMB
    chosen = np.flatnonzero((offset >= 0) & (offset <= 2))
    digits, offset, shift = digits[chosen], offset[chosen], positions[chosen] % LIMB
    magnitudes, mask = np.abs(digits), (1 << LIMB) - 1
    low, high = (magnitudes & mask) << shift, (magnitudes >> LIMB) << shift
    parts = np.choose(offset, [low & mask, (low >> LIMB) + (high & mask), high >> LIMB])
    limb[chosen] += np.sign(digits) * parts
