"""The one interface behind which every model family lies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.errors import ModelError
from voxplain.space.grid import Grid
from voxplain.space.labelmap import BACKGROUND, LabelMap
from voxplain.space.resample import above, best_class
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings

Activation = Literal["softmax", "sigmoid", "none"]
OutputKind = Literal["segmentation", "classification"]


@dataclass(frozen=True)
class ModelInfo:
    """What voxplain must know of a model, whatever family it is of.

    Parameters
    ----------
    name
        Name in tables and reports.
    kind
        ``segmentation`` (logits on the input's voxels) or ``classification`` (one logit a class).
    rank
        2 or 3 spatial axes.
    channel_names
        Input channels in order.
    class_names
        Output channels in order. Softmax: channel 0 is what label 0 of the prediction means
        (usually background). Sigmoid: class i is label i + 1 and classes may overlap.
    activation
        What turns logits into probabilities.
    window
        Sliding windows; None runs the whole image at once (classification, or a fully
        convolutional segmentation network).
    sha256
        Hash of the weights.
    """

    name: str
    kind: OutputKind
    rank: int
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    activation: Activation
    window: WindowSettings | None
    sha256: str

    @property
    def n_classes(self) -> int:
        """Number of output channels."""
        return len(self.class_names)

    @property
    def is_exclusive(self) -> bool:
        """Whether the largest logit decides; else each class decides alone by logit > 0."""
        return self.activation != "sigmoid" and self.n_classes > 1

    @property
    def label_names(self) -> dict[int, str]:
        """Label → name of a prediction: class i is label i if exclusive, else i + 1."""
        if self.is_exclusive:
            return dict(enumerate(self.class_names))
        names = {i + 1: name for i, name in enumerate(self.class_names)}
        if BACKGROUND in self.class_names:  # a channel of its own; label 0 is in no class
            names[0] = "in no class"
        return names


class Model(ABC):
    """A network with its preprocessing and geometry.

    Contract: `prepare` is pure numpy and does not change its argument; the grid that it returns
    has axes parallel to the image's. `forward` maps (batch, channels, *window) to logits
    (batch, classes, *window), or (batch, classes) for classification, each item of the batch on
    its own (evaluation mode), through `module`, which holds every weight. With several views
    (mirrored copies, folds of an ensemble) a window's logits are the mean over them.
    """

    info: ModelInfo
    module: nn.Module

    @abstractmethod
    def prepare(self, image: Volume) -> Volume:
        """Image on the model's grid with the intensities that the network was trained on.

        Raises
        ------
        ModelError
            If channels or rank do not fit.
        """

    def describe_preparation(self) -> Mapping[str, Any]:
        """Return what `prepare` does as plain values, for provenance."""
        return {}

    @property
    def answers(self) -> tuple[str, ...]:
        """Classes that can be asked for."""
        return self.info.class_names

    @property
    def n_views(self) -> int:
        """Number of passes whose mean is a window's logits: mirrored copies times folds."""
        return 1

    def network(self, view: int = 0) -> nn.Module:
        """Return the network that a view runs, part of `module`: one fold of an ensemble."""
        return self.module

    def flips(self, view: int) -> tuple[int, ...]:
        """Spatial axes of a window along which a view is mirrored."""
        return ()

    def label_image(self, logits: NDArray[np.floating[Any]], grid: Grid, image: Volume) -> LabelMap:
        """Return the predicted labels on the image's grid: logits are resampled, then decided.

        Parameters
        ----------
        logits
            (n_classes, *grid.shape), stitched.
        grid
            Grid of the prepared image.
        image
            As it was read.
        """
        if self.info.is_exclusive:
            return LabelMap(
                best_class(logits, grid, image.grid)[None], image.grid, self.info.label_names
            )
        masks = above(logits, grid, image.grid)
        return LabelMap(label_layers(masks), image.grid, self.info.label_names)

    def forward(self, windows: torch.Tensor, view: int = 0) -> torch.Tensor:
        """Logits of a batch of windows in one of the `n_views` views.

        Raises
        ------
        ModelError
            If the network does not return a tensor, or a sequence of tensors (deep
            supervision: full resolution comes first).
        """
        logits = self.module(windows)
        if isinstance(logits, (tuple, list)) and logits:
            logits = logits[0]
        if not isinstance(logits, torch.Tensor):
            raise ModelError(
                f"{self.info.name}: the network returns {type(logits).__name__}, expected a tensor "
                "(batch, classes, …); wrap it in a module whose forward returns the logits alone"
            )
        return logits

    def check_image(self, image: Volume) -> None:
        """Check that an image has the rank and the channels that the model needs.

        Channels are compared by number. An image that names exactly the model's channels in
        another order is refused too.

        Raises
        ------
        ModelError
            If not; the message says what was expected and what came.
        """
        self._check_rank(image.grid)
        wanted, found = self.info.channel_names, image.channels
        if len(wanted) != len(found):
            raise ModelError(
                f"the model needs {_count(wanted)}, the image has {_count(found)}: "
                "give one file a channel, in the model's order"
            )
        if wanted != found and sorted(wanted) == sorted(found):
            raise ModelError(
                f"the model needs its channels in the order {', '.join(wanted)}, the image has "
                f"{', '.join(found)}: give the files in the model's order"
            )

    def _check_rank(self, grid: Grid) -> None:
        if grid.rank != self.info.rank:
            raise ModelError(
                f"{grid.rank}D image for a {self.info.rank}D model: {self.info.name} needs "
                f"{self.info.rank} spatial axes, the image has shape {grid.shape}"
            )


def decide(logits: NDArray[np.floating[Any]], info: ModelInfo) -> NDArray[np.integer[Any]]:
    """Label layers (n_layers, ...) from logits (n_classes, ...), voxel by voxel."""
    if info.is_exclusive:
        return np.asarray(logits.argmax(0)[None], dtype=np.min_scalar_type(info.n_classes))
    return label_layers(logits > 0)


def label_layers(masks: NDArray[np.bool_]) -> NDArray[np.integer[Any]]:
    """Return one layer a class, label i + 1 where mask i of (n_classes, ...) is true."""
    labels = np.arange(1, len(masks) + 1, dtype=np.min_scalar_type(len(masks)))
    return np.asarray(masks * labels.reshape(-1, *[1] * (masks.ndim - 1)))


def _count(names: tuple[str, ...]) -> str:
    return f"{len(names)} channel{'s' * (len(names) != 1)} ({', '.join(names)})"
