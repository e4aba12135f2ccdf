"""A faster PReLU for networks whose parameters need no gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.nn import functional as F  # noqa: N812


@contextmanager
def fixed_slopes(module: nn.Module) -> Iterator[None]:
    """Run each one-parameter `torch.nn.PReLU` as a leaky ReLU of the same slope; undone after.

    The function is the same to the last bit. PReLU's backward pass also computes the slope's
    gradient, needed or not, and takes a quarter of the backward time of a MONAI UNet on a CPU.

    Parameters
    ----------
    module
        Network; a PReLU whose `forward` was replaced already, or of a derived class, is left.
    """
    changed = [
        m
        for m in module.modules()
        if type(m) is nn.PReLU and m.num_parameters == 1 and "forward" not in vars(m)
    ]
    try:
        for m in changed:
            m.forward = partial(F.leaky_relu, negative_slope=m.weight.item())  # type: ignore[method-assign]
        yield
    finally:
        for m in changed:
            vars(m).pop("forward", None)
