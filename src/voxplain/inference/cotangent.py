"""dT/dL: how a target changes with each stitched logit, given window by window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from voxplain.space.box import Box


class Cotangent(Protocol):
    """Gradient of a scalar with respect to the stitched logits.

    Contract: `support` holds every non-zero value (None: there is none); `touches` is cheap
    and false only where all values are zero, so that a window there need not be run; `crop`
    gives the values of the classes `channels` (all others are zero) on any box of the padded
    volume, zero outside the support.
    """

    support: Box | None
    channels: slice

    def touches(self, box: Box) -> bool:
        """Whether a value on the box can differ from zero."""

    def crop(self, box: Box) -> torch.Tensor:
        """Values (n of `channels`, *box.shape) on the box."""


class DenseCotangent:
    """A cotangent that is kept whole, for targets without local structure.

    Parameters
    ----------
    values
        (n_classes, *box.shape).
    box
        Where they lie in the padded volume.
    """

    channels = slice(None)

    def __init__(self, values: torch.Tensor, box: Box) -> None:
        self.values = values
        self.support: Box | None = box if bool(values.any()) else None
        self._box = box

    def touches(self, box: Box) -> bool:
        """Whether a value on the box differs from zero."""
        common = box.intersect(self._box)
        return common is not None and bool(
            self.values[(slice(None), *common.within(self._box))].any()
        )

    def crop(self, box: Box) -> torch.Tensor:
        """Values on the box (zero outside the support)."""
        full = self.values.new_zeros((len(self.values), *box.shape))
        common = box.intersect(self._box)
        if common is not None:
            part = self.values[(slice(None), *common.within(self._box))]
            full[(slice(None), *common.within(box))] = part
        return full


class SumCotangent:
    """Weighted sum of cotangents, for combinations of targets.

    Parameters
    ----------
    terms
        Factors and cotangents.
    n_classes
        Output channels.
    """

    def __init__(self, terms: Sequence[tuple[float, Cotangent]], n_classes: int) -> None:
        self.terms = [(factor, term) for factor, term in terms if term.support is not None]
        self._n_classes = n_classes
        self.support: Box | None = None
        self.channels = self.terms[0][1].channels if self.terms else slice(None)
        for _, term in self.terms:
            if term.support is not None:
                box: Box = self.support or term.support
                self.support = box.union(term.support)
            if term.channels != self.channels:
                self.channels = slice(None)

    def touches(self, box: Box) -> bool:
        """Whether one of the terms touches the box."""
        return any(term.touches(box) for _, term in self.terms)

    def crop(self, box: Box) -> torch.Tensor:
        """Sum of the terms on the box; there must be at least one."""
        first, *others = (factor * self._placed(term, box) for factor, term in self.terms)
        return sum(others, start=first)

    def _placed(self, term: Cotangent, box: Box) -> torch.Tensor:
        values = term.crop(box)
        if term.channels == self.channels:
            return values
        full = values.new_zeros((self._n_classes, *box.shape))
        full[term.channels] = values
        return full
