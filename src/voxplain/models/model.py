"""The one interface behind which every model family lies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from voxplain.errors import ModelError
from voxplain.space.grid import Grid
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


class Model(ABC):
    """A network with its preprocessing and geometry.

    Contract: `prepare` is pure numpy and does not change its argument; `module` maps
    (batch, channels, *window) to logits (batch, classes, *window), or (batch, classes) for
    classification, each item of the batch on its own (evaluation mode); grids returned by
    `prepare` have axes parallel to the image's.
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

    @abstractmethod
    def grid_of(self, image_grid: Grid) -> Grid:
        """Grid that `prepare` gives for an image on `image_grid`.

        Raises
        ------
        ModelError
            If the rank does not fit.
        """

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows.

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


def _count(names: tuple[str, ...]) -> str:
    return f"{len(names)} channel{'s' * (len(names) != 1)} ({', '.join(names)})"
