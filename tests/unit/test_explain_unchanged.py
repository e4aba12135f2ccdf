"""The model comes back as it was: after success, an error, an interruption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from voxplain.attribution import ClassTarget, Everywhere, Gradient, SmoothGrad, explain
from voxplain.errors import ModelError, VoxplainError
from voxplain.inference.compute import Compute, Precision
from voxplain.records import Explanation
from voxplain.space.volume import Volume
from voxplain.testing.models import Failing, describe
from voxplain.testing.phantoms import oblique_grid, volume

SHAPE = (5, 7, 11)


class Mixed(nn.Module):
    """Modes, flags, gradients, buffers and hooks that are each set in one place and not another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv3d(4, 3, 1)
        self.register_buffer("scale", torch.full((1,), 2.0), persistent=False)
        self.register_buffer("nothing", None)
        self.train()
        self.norm.eval()
        self.norm.running_mean.uniform_(-1, 1)
        self.last.bias.requires_grad_(False)
        self.first.weight.grad = torch.ones_like(self.first.weight)
        self.calls: list[int] = []
        self.last.register_forward_hook(lambda *_: self.calls.append(1))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        hidden = self.drop(torch.tanh(self.norm(self.first(windows))))
        return torch.as_tensor(self.scale * self.last(hidden))


def state(net: nn.Module) -> list[Any]:
    """Everything that a caller could notice."""
    tensors = {
        **dict(net.named_parameters()),
        **{name: b for name, b in net.named_buffers() if b is not None},
    }
    hooks = [
        (key, list(values))
        for module in net.modules()
        for key, values in vars(module).items()
        if key.endswith("_hooks")
    ]
    return [
        {n: (id(t), t.data_ptr(), t.dtype, t.stride()) for n, t in tensors.items()},
        {n: t.requires_grad for n, t in tensors.items()},
        {n: t.detach().clone().numpy().tobytes() for n, t in tensors.items()},
        {n: None if p.grad is None else (id(p.grad), p.grad.sum().item())
         for n, p in net.named_parameters()},
        [(name, m.training) for name, m in net.named_modules()],
        [sorted(vars(m)) for m in net.modules()],
        hooks,
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.random.get_rng_state().tolist(),
    ]  # fmt: skip


@pytest.fixture
def image() -> Volume:
    return volume(oblique_grid(SHAPE), seed=4)


@pytest.fixture
def net() -> Mixed:
    return Mixed()


def run(net: nn.Module, image: Volume, precision: Precision = "float32",
        progress: Callable[[int, int], None] | None = None) -> Explanation:  # fmt: skip
    targets = [ClassTarget("class_1", Everywhere(), score="probability"), ClassTarget("class_2")]
    return explain(
        describe(net), image, targets, SmoothGrad(n=2), progress=progress,
        compute=Compute("cpu", precision, batch_size=2),
    )  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "float64", "bf16", "fp16"])
def test_after_success(net: Mixed, image: Volume, precision: Precision) -> None:
    before = state(net)
    run(net, image, precision)
    assert state(net) == before
    assert net.calls  # the user's own hooks work as ever


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("after", [0, 1, 9, 20])
def test_after_an_error_in_forward(
    net: Mixed, image: Volume, precision: Precision, after: int
) -> None:
    failing = Failing(net, after=after)
    before = state(failing.inner)
    with pytest.raises(ModelError, match=r"fails on an input of shape .* fails on purpose"):
        run(failing, image, precision)
    assert state(failing.inner) == before
    assert failing.training


@pytest.mark.parametrize("at", [2, 30])
def test_after_an_interruption(net: Mixed, image: Volume, at: int) -> None:
    def interrupt(done: int, _: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    before = state(net)
    with pytest.raises(KeyboardInterrupt):
        run(net, image, "float64", interrupt)
    assert state(net) == before


def test_after_a_refused_target(net: Mixed, image: Volume) -> None:
    before = state(net)
    with pytest.raises(VoxplainError):
        explain(describe(net), image, "class:nothing", Gradient())
    assert state(net) == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_inside_a_context_without_gradients(
    net: Mixed, image: Volume, context: Callable[[], Any]
) -> None:
    wanted = run(net, image)["class_2"].values
    with context():
        before = state(net)
        found = run(net, image)["class_2"].values
        assert state(net) == before
    assert np.array_equal(found, wanted)


def test_the_mode_and_the_flags_do_not_matter(net: Mixed, image: Volume) -> None:
    training = run(net, image)["class_2"].values
    net.eval().requires_grad_(False)
    assert np.array_equal(run(net, image)["class_2"].values, training)


def test_the_image_and_its_record_are_not_changed(net: Mixed, image: Volume) -> None:
    before = image.sha256()
    result = run(net, image)
    assert image.sha256() == before == result.provenance.image_sha256
    assert result.image.data is image.data


def test_the_global_random_state_is_not_drawn_from(net: Mixed, image: Volume) -> None:
    numpy_before = np.random.get_state()[1].tolist()  # noqa: NPY002
    one = run(net, image)["class_2"].values
    assert np.random.get_state()[1].tolist() == numpy_before  # noqa: NPY002
    torch.manual_seed(99)
    assert np.array_equal(run(net, image)["class_2"].values, one)
