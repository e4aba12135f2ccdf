"""The analytic networks have the attributions that their docstrings state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from voxplain.testing.models import (
    BoxFilter,
    Constant,
    Failing,
    InPlaceNet,
    Linear,
    OutOfMemory,
    Pooled,
    Product,
    Quadratic,
    Recorder,
    Shortcut,
    SmallNet,
    Step,
    TrainingSensitive,
    analytic,
    analytic_modules,
)

WINDOWS = {2: (4, 5), 3: (4, 5, 6)}
W = np.array([[1.0, -2.0], [0.5, 3.0], [0.0, 1.5]])
w = W[:, 1]


@pytest.fixture(params=[2, 3])
def x(request: pytest.FixtureRequest) -> torch.Tensor:
    generator = torch.Generator().manual_seed(request.param)
    shape = (2, 2, *WINDOWS[request.param])
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def cotangent(x: torch.Tensor) -> torch.Tensor:
    shape = (2, 3, *x.shape[2:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def gradient(module: nn.Module, x: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_(True)
    return torch.autograd.grad((module.double()(leaf * 1.0) * cotangent).sum(), leaf)[0]


def test_linear(x: torch.Tensor, cotangent: torch.Tensor) -> None:
    module = Linear(W, [1.0, 2.0, 3.0])
    expected = torch.einsum("kc,bk...->bc...", torch.tensor(W), cotangent)
    torch.testing.assert_close(gradient(module, x, cotangent), expected)
    at = (0,) * (x.ndim - 2)
    value = W @ x[1][:, *at].numpy() + [1.0, 2.0, 3.0]
    np.testing.assert_allclose(module(x)[1][:, *at].detach().numpy(), value)


def test_box_filter(x: torch.Tensor, cotangent: torch.Tensor) -> None:
    rank = x.ndim - 2
    before, after = (1, 0, 2)[:rank], (0, 2, 1)[:rank]
    shape = x.shape[2:]
    value = torch.zeros(2, 3, *shape, dtype=torch.float64)
    expected = torch.zeros_like(x)
    ranges = [range(-b, a + 1) for b, a in zip(before, after, strict=True)]
    for v in np.ndindex(*shape):
        for offset in itertools.product(*ranges):
            u = tuple(np.add(v, offset))
            if all(0 <= i < n for i, n in zip(u, shape, strict=True)):
                at_v, at_u = (slice(None), slice(None), *v), (slice(None), slice(None), *u)
                value[at_v] += x[at_u].sum(dim=1, keepdim=True) * torch.tensor(w)
                expected[at_u] += (cotangent[at_v] @ torch.tensor(w))[:, None]
    module = BoxFilter(w, before, after)
    torch.testing.assert_close(gradient(module, x, cotangent), expected)
    torch.testing.assert_close(module(x).detach(), value)


def test_quadratic(x: torch.Tensor, cotangent: torch.Tensor) -> None:
    expected = 2 * x * torch.einsum("kc,bk...->bc...", torch.tensor(W), cotangent)
    torch.testing.assert_close(gradient(Quadratic(W), x, cotangent), expected)


def test_product(x: torch.Tensor, cotangent: torch.Tensor) -> None:
    weighted = torch.einsum("k,bk...->b...", torch.tensor(w), cotangent)[:, None]
    torch.testing.assert_close(gradient(Product(w), x, cotangent), weighted * x.flip(1))


def test_step_and_constant_have_zero_gradient(x: torch.Tensor, cotangent: torch.Tensor) -> None:
    step, constant = Step(w, threshold=0.5), Constant(w)
    assert not gradient(step, x, cotangent).any()
    assert not gradient(constant, x, cotangent).any()
    bright = (x[:, :1] > 0.5).double() * torch.tensor(w).reshape(1, 3, *[1] * (x.ndim - 2))
    torch.testing.assert_close(step(x).detach(), bright)
    torch.testing.assert_close(constant(x).detach(), constant(x * 7).detach())


def test_a_disconnected_constant_has_no_graph_to_the_input(x: torch.Tensor) -> None:
    leaf = x.clone().requires_grad_(True)
    total = Constant(w, is_connected=False).double()(leaf).sum()
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        torch.autograd.grad(total, leaf)


def test_shortcut(x: torch.Tensor, cotangent: torch.Tensor) -> None:
    found = gradient(Shortcut(w), x, cotangent)
    corner = (slice(None), 0, *[-1] * (x.ndim - 2))
    total = cotangent.flatten(2).sum(dim=-1) @ torch.tensor(w)
    torch.testing.assert_close(found[corner], total)
    found[corner] = 0
    assert not found.any()


def test_training_sensitive(x: torch.Tensor) -> None:
    module = TrainingSensitive(W, x.ndim - 2).double().eval()
    mean = torch.tensor([0.25, 0.75]).reshape(1, 2, *[1] * (x.ndim - 2))
    var = torch.tensor([2.0, 2.5]).reshape(1, 2, *[1] * (x.ndim - 2))
    expected = Linear(W).double()((x - mean) / torch.sqrt(var + 1e-5))
    torch.testing.assert_close(module(x), expected)
    module.train()
    assert not torch.equal(module(x), module(x))


def test_in_place(x: torch.Tensor, cotangent: torch.Tensor) -> None:
    module = InPlaceNet(w).double()
    weighted = torch.einsum("k,bk...->b...", torch.tensor(w), cotangent)[:, None]
    torch.testing.assert_close(gradient(module, x, cotangent), weighted * (x > 0))
    given = x.clone()
    module(given)
    torch.testing.assert_close(given, x.clamp(min=0))


def test_small_net_is_seeded_and_smooth(x: torch.Tensor, cotangent: torch.Tensor) -> None:
    rank = x.ndim - 2
    state = torch.random.get_rng_state()
    module = SmallNet(rank, 2, 3, seed=4).double()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(module(x), SmallNet(rank, 2, 3, seed=4).double()(x))
    assert not torch.equal(module(x), SmallNet(rank, 2, 3, seed=5).double()(x))
    direction = torch.randn_like(x)
    step = 1e-5
    ends = [(module(x + s * step * direction) * cotangent).sum() for s in (1, -1)]
    slope = (gradient(module, x, cotangent) * direction).sum()
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-7, atol=1e-7)


def test_recorder_counts_and_keeps_copies() -> None:
    recorder = Recorder(InPlaceNet([1.0]))
    batch = -torch.ones(3, 1, 2, 2)
    recorder(batch)
    recorder(batch[:1])
    assert recorder.n_windows == 4
    assert recorder.shapes == [(3, 1, 2, 2), (1, 1, 2, 2)]
    assert (recorder.batches[0] == -1).all()
    recorder.clear()
    assert recorder.batches == []


def test_failing_and_out_of_memory() -> None:
    batch = torch.ones(2, 1, 3, 3)
    failing = Failing(Linear([[1.0]]), after=2)
    failing(batch)
    failing(batch)
    with pytest.raises(RuntimeError, match="fails on purpose"):
        failing(batch)
    limited = OutOfMemory(Linear([[1.0]]), limit=1)
    limited(batch[:1])
    with pytest.raises(torch.OutOfMemoryError, match="2 windows, limit 1"):
        limited(batch)


def test_pooled_is_the_mean(x: torch.Tensor) -> None:
    module = Linear(W).double()
    expected = module(x).mean(dim=tuple(range(2, x.ndim)))
    torch.testing.assert_close(Pooled(module)(x), expected)


@pytest.mark.parametrize("rank", [2, 3])
def test_analytic_gives_every_network_as_a_model(rank: int) -> None:
    models = analytic(rank, n_channels=1, n_classes=2, window=(3, 4, 5)[:rank])
    assert set(models) == set(analytic_modules(rank))
    for name, model in models.items():
        assert model.info.name == name
        assert model.info.rank == rank
        assert model.info.class_names == ("background", "class_1")
        windows = torch.ones(1, 1, *(3, 4, 5)[:rank])
        assert model.forward(windows).shape == (1, 2, *(3, 4, 5)[:rank])
