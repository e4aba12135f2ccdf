"""Sums of overlapping window results, given out as soon as they are final."""

from __future__ import annotations

from collections.abc import Callable

import torch

from voxplain.space.box import Box

Emit = Callable[[Box, torch.Tensor], None]
"""Receives final values: a box of the padded volume and (n_targets, n_channels, *box.shape)."""


class RollingSum:
    """Sum of window gradients that holds one window's depth of the first axis.

    Windows come in the order of their start along the first axis; what lies before the next
    start can change no more and goes to `emit`.

    Parameters
    ----------
    n_targets, n_channels
        Leading axes of the values.
    reach
        Box that holds all windows to come.
    depth
        Length of a window along the first axis.
    emit
        Receives each finished slab once; slabs together cover `reach`.
    dtype, device
        Of the sums.
    """

    def __init__(
        self, n_targets: int, n_channels: int, reach: Box, depth: int, emit: Emit,
        dtype: torch.dtype, device: torch.device,
    ) -> None:  # fmt: skip
        self._reach = reach
        self._depth = depth
        self._emit = emit
        self._start = reach.start[0]
        shape = (n_targets, n_channels, depth, *reach.shape[1:])
        self._sums = torch.zeros(shape, dtype=dtype, device=device)

    def add(self, target: int, box: Box, values: torch.Tensor) -> None:
        """Add (n_channels, *box.shape) for one target."""
        inside = box.shift([-self._start, *(-a for a in self._reach.start[1:])])
        self._sums[target][(slice(None), *inside.slices)] += values

    def advance(self, start: int) -> None:
        """Say that all further windows start at or after `start` of the first axis."""
        while self._start < min(start, self._reach.stop[0]):
            n = min(self._depth, start - self._start, self._reach.stop[0] - self._start)
            stop = self._start + n
            slab = Box((self._start, *self._reach.start[1:]), (stop, *self._reach.stop[1:]))
            self._emit(slab, self._sums[:, :, :n].clone())
            if n < self._depth:
                self._sums[:, :, : self._depth - n] = self._sums[:, :, n:].clone()
            self._sums[:, :, self._depth - n :] = 0
            self._start = stop

    def finish(self) -> None:
        """Give out what is left."""
        self.advance(self._reach.stop[0])
