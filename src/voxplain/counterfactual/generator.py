"""What every generator is, to whoever uses it or trains it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import nn

from voxplain.counterfactual.precision import Precision


class Repair(NamedTuple):
    """What a generator makes of a batch.

    Parameters
    ----------
    image
        x′, (batch, 1, rows, columns) in [−1, 1].
    mask, fill
        m and r of x′ = (1 − m)·x + m·r, like `image`; None for generators without them.
    """

    image: torch.Tensor
    mask: torch.Tensor | None = None
    fill: torch.Tensor | None = None


class Generator(nn.Module, ABC):
    """Repairs pictures until a classifier calls them normal.

    Contract: `repair` takes (batch, 1, rows, columns) in [−1, 1], treats each item on its own
    in evaluation mode, changes nothing, and gives values in [−1, 1]. Rows and columns are
    divisible by `multiple`.
    """

    multiple: int

    @abstractmethod
    def repair(self, images: torch.Tensor) -> Repair:
        """Repair a batch towards normal."""


class Batch(NamedTuple):
    """Slices of one training step, on the device.

    Parameters
    ----------
    images
        (batch, 1, rows, columns) in [−1, 1].
    labels
        (batch,) float, 1 for abnormal.
    organ
        (batch, 1, rows, columns) float, 1 inside the organ.
    """

    images: torch.Tensor
    labels: torch.Tensor
    organ: torch.Tensor


class Source(Protocol):
    """Gives training slices, the same ones for the same step."""

    def batch(self, stream: str, step: int, n_normal: int, n_abnormal: int) -> Batch:
        """Slices of a step: normal ones first, then abnormal ones.

        Parameters
        ----------
        stream
            What they are for; streams draw independently.
        step
            Number of the step.
        n_normal, n_abnormal
            How many of each.
        """

    def mixed(self, stream: str, step: int, n: int) -> Batch:
        """Slices of a step, as often abnormal as the data are."""


class Learner(Protocol):
    """One generator in training: everything that a step changes, and the step.

    Contract: a step depends only on its number, what `networks` and `optimisers` hold, and the
    source: every draw comes from a generator seeded by the run's seed and the step. So state
    and number are enough to continue exactly.
    """

    networks: Mapping[str, nn.Module]
    """All that learns or is averaged, by name; ``generator`` is the one to be used."""
    optimisers: Mapping[str, torch.optim.Optimizer]
    precision: Precision
    """Of forward passes; its `state` is kept with the networks'."""
    n_steps: int
    """Steps in all, of every stage."""

    @property
    def generator(self) -> Generator:
        """What is used: averaged weights where they are averaged."""

    def step(self, number: int) -> dict[str, float]:
        """Learn from one batch; number counts from 0. Returns each term of the loss by name."""

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Return the terms, of a validation batch, that need no discriminator, and ``total``."""
