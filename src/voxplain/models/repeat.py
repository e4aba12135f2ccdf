"""One grey channel for a network that takes several."""

from __future__ import annotations

import torch
from torch import nn

from voxplain.models.card import InputCard


class Repeated(nn.Module):
    """A network that is given copies of one channel.

    Being a part of the network, the copies need no thought elsewhere: the gradient of the one
    channel is the sum over the copies (chain rule), and so is a contribution.

    Parameters
    ----------
    network
        Takes (batch, n_copies, *spatial); used as it is.
    n_copies
        Number of its channels.
    mean, std
        Of each copy; the network sees (x − mean) / std.
    """

    def __init__(
        self,
        network: nn.Module,
        n_copies: int,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
    ) -> None:
        super().__init__()
        self.network = network
        self.n_copies = n_copies
        # float64, so that a pass in float64 sees the card's numbers; no part of the weights
        for name, numbers in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float64), persistent=False)
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Return what the network makes of (batch, 1, *spatial)."""
        copies = windows.repeat(1, self.n_copies, *[1] * (windows.ndim - 2))
        axes = (-1, *[1] * (windows.ndim - 2))
        mean, std = (n.to(windows).reshape(axes) for n in (self.mean, self.std))
        made: torch.Tensor = self.network((copies - mean) / std)
        return made


def repeated(network: nn.Module, settings: InputCard) -> nn.Module:
    """Return the network as `settings` feeds it: itself, or a `Repeated`."""
    if settings.repeat is None:
        return network
    step = settings.step_of_copies
    if step is None:
        return Repeated(network, settings.repeat)
    return Repeated(network, settings.repeat, *step.fixed)
