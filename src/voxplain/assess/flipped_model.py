"""A model that is shown the mirror image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.models.model import Model
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume


class FlippedModel(Model):
    """A model whose network sees mirrored windows, and whose logits are mirrored back.

    Parameters
    ----------
    inner
        The model; its weights are shared, not copied.
    axis
        Spatial axis of a window.
    """

    def __init__(self, inner: Model, axis: int) -> None:
        self.inner, self.axis = inner, axis
        self.info = inner.info
        self.module = inner.module

    def prepare(self, image: Volume) -> Volume:
        """Prepare as the inner model does."""
        return self.inner.prepare(image)

    def describe_preparation(self) -> Mapping[str, Any]:
        """Return what the inner model's `prepare` does."""
        return self.inner.describe_preparation()

    @property
    def answers(self) -> tuple[str, ...]:
        """Classes that can be asked for."""
        return self.inner.answers

    @property
    def n_views(self) -> int:
        """Views of the inner model."""
        return self.inner.n_views

    def network(self, view: int = 0) -> nn.Module:
        """Return the network that a view runs."""
        return self.inner.network(view)

    def flips(self, view: int) -> tuple[int, ...]:
        """Axes along which the network sees a view mirrored: mirrored twice is not mirrored."""
        return tuple(sorted({*self.inner.flips(view)} ^ {self.axis}))

    def label_image(self, logits: NDArray[np.floating[Any]], grid: Grid, image: Volume) -> LabelMap:
        """Decide as the inner model does; the logits lie on the unmirrored image."""
        return self.inner.label_image(logits, grid, image)

    def forward(self, windows: torch.Tensor, view: int = 0) -> torch.Tensor:
        """Logits of a batch of windows."""
        axis = 2 + self.axis
        logits = self.inner.forward(windows.flip(axis), view)
        return logits.flip(axis) if self.info.kind == "segmentation" else logits
