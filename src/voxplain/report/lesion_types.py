"""Names, order and colours of the types of lesions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from voxplain.regions.lesion import TYPES


@dataclass(frozen=True)
class LesionStyle:
    """How a type of lesion is written and drawn.

    Parameters
    ----------
    words
        What it is.
    colour
        ``#rrggbb``; those of all types stay apart for every common colour blindness (after
        Okabe and Ito, Color Universal Design, 2008).
    """

    words: str
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0…255."""
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return red, green, blue


_STYLES = {
    "TP": LesionStyle("true positive", "#0072b2"),
    "US": LesionStyle("under-segmented", "#e69f00"),
    "FP": LesionStyle("false positive", "#d55e00"),
    "FN": LesionStyle("missed (false negative)", "#b8579a"),
    "TN": LesionStyle("healthy control region", "#7a848e"),
    "lesion": LesionStyle("predicted, truth unknown", "#009e73"),
}
_OTHER = LesionStyle("other", "#3d4854")


def style(lesion_type: str) -> LesionStyle:
    """Return how a type is drawn; a type that is not known is drawn in dark grey."""
    return _STYLES.get(lesion_type, _OTHER)


def in_order(types: Iterable[str]) -> list[str]:
    """Return the types that occur, in the order of `voxplain.regions.lesion.TYPES`."""
    found = set(types)
    known = [str(t) for t in TYPES if t in found]
    return known + sorted(found - set(known))
