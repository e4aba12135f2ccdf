"""What a number about an explanation means: its direction, unit, range and policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Family = Literal[
    "faithfulness", "stability", "complexity", "utility", "randomisation", "agreement", "efficiency"
]
Direction = Literal["higher", "lower", "none"]

EMPTY_MAP = "empty map"
CONSTANT_MAP = "constant map"
EMPTY_MASK = "empty mask"
FULL_MASK = "full mask"
NO_CHANGE = "no change"
FLAGS = (EMPTY_MAP, CONSTANT_MAP, EMPTY_MASK, FULL_MASK, NO_CHANGE)
"""What can be said of a value beside its number: the map is zero everywhere, has one value
everywhere, the mask has no voxel or every voxel, the score moved under no perturbation."""


class Measured(NamedTuple):
    """A value, NaN where it is not defined, and what there is to say of it."""

    value: float
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A metric by its meaning; the function that computes it stands beside it.

    Parameters
    ----------
    name
        Name in tables: lower case and ``_``.
    family
        Question that it helps to answer.
    direction
        Which values speak for the explanation; ``none``: neither do by themselves.
    unit
        ``1`` for a plain number.
    low, high
        Range; infinite where there is no end.
    summary
        One sentence: the formula in words.
    policy
        What is told of empty and constant maps and of empty masks.
    source
        Paper and equation.

    Raises
    ------
    ValueError
        If family or direction is unknown: a fault of the program, not of the user.
    """

    name: str
    family: Family
    direction: Direction
    unit: str
    low: float
    high: float
    summary: str
    policy: str
    source: str

    def __post_init__(self) -> None:
        if self.family not in get_args(Family) or self.direction not in get_args(Direction):
            raise ValueError(f"{self.name}: no such family or direction")
