from __future__ import annotations

import pytest
import torch
from torch import nn

from voxplain.inference.slopes import fixed_slopes


class Own(nn.PReLU):
    """A derived class may mean something else."""


def gradient(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, str]:
    leaf = x.clone().requires_grad_()
    y = net(leaf)
    (g,) = torch.autograd.grad((y**2).sum(), leaf)
    return y.detach(), g, type(y.grad_fn).__name__


@pytest.mark.parametrize("slope", [0.25, -0.3, 1.7, 0.0])
def test_same_values_and_gradients_to_the_last_bit(slope: float) -> None:
    net = nn.PReLU(init=slope)
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0] = 0.0
    y, g, name = gradient(net, x)
    assert name.startswith("Prelu")
    with fixed_slopes(net):
        fast_y, fast_g, fast_name = gradient(net, x)
    assert fast_name.startswith("LeakyRelu")
    assert torch.equal(y, fast_y)
    assert torch.equal(g, fast_g)


def test_it_is_undone_also_after_an_error() -> None:
    net = nn.Sequential(nn.PReLU(), nn.PReLU(3), Own())
    before = [dict(vars(m)) for m in net.modules()]

    def forward_changes() -> None:
        with fixed_slopes(net):
            assert ["forward" in vars(m) for m in net] == [True, False, False]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forward_changes()
    assert [set(vars(m)) for m in net.modules()] == [set(b) for b in before]


def test_a_forward_of_ones_own_is_left() -> None:
    net = nn.PReLU()
    mine = net.forward = lambda x: x  # type: ignore[method-assign]
    with fixed_slopes(net):
        assert net.forward is mine
    assert net.forward is mine
