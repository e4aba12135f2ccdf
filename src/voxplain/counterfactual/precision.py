"""Mixed precision of a training: autocast, and the scaling of losses that fp16 needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Precision:
    """Number type of forward passes, and steps of optimisers in it.

    Parameters
    ----------
    device
        Where it is trained.
    dtype
        float16 or bfloat16; None trains in float32.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None) -> None:
        self.device, self.dtype = device, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """Context of a forward pass."""
        dtype = self.dtype or torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.dtype is not None)

    def descend(self, loss: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
        """Take one step of an optimiser down a loss; only its weights are changed."""
        optimiser.zero_grad(set_to_none=True)
        weights = [w for group in optimiser.param_groups for w in group["params"]]
        gradients = torch.autograd.grad(self.scaler.scale(loss), weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        self.scaler.step(optimiser)
        self.scaler.update()

    def state(self) -> Mapping[str, Any]:
        """State of the scaler; empty without fp16."""
        return self.scaler.state_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the scaler as `state` had it."""
        if state:
            self.scaler.load_state_dict(dict(state))
