"""Small networks whose attribution is known in closed form, or that misbehave in one way.

Each maps (batch, channels, *window) to logits (batch, classes, *window). In the formulas x_c
is the input's channel c, v a voxel of the window, k a class. They take 2D and 3D windows and
any floating-point type (``module.double()``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.nn import functional as F  # noqa: N812

from voxplain.models import CardModel, Model, wrap
from voxplain.space.windows import WindowSettings


def _parameter(values: ArrayLike) -> nn.Parameter:
    return nn.Parameter(torch.tensor(np.asarray(values), dtype=torch.get_default_dtype()))


def _spread(values: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """(n,) as (1, n, 1, …), to go with (batch, n, *window)."""
    return values.reshape(1, -1, *[1] * (windows.ndim - 2))


def _mix(weight: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """Weighted sums of the channels, (batch, classes, *window)."""
    return F.linear(windows.movedim(1, -1), weight).movedim(-1, 1)


class Linear(nn.Module):
    """Voxelwise linear: logit_k(v) = sum_c W[k, c] x_c(v) + b[k].

    The gradient of sum_v C_k(v) logit_k(v) is sum_k W[k, c] C_k(v).

    Parameters
    ----------
    weight
        (classes, channels).
    bias
        (classes,); default 0.
    """

    def __init__(self, weight: ArrayLike, bias: ArrayLike | None = None) -> None:
        super().__init__()
        self.weight = _parameter(weight)
        self.bias = _parameter(np.zeros(len(self.weight)) if bias is None else bias)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        return _mix(self.weight, windows) + _spread(self.bias, windows)


class BoxFilter(nn.Module):
    """Sum over a box that is not centred: logit_k(v) = w[k] sum_c sum_{u in box} x_c(v + u).

    The box holds the offsets -before … +after on each axis; outside the window x is 0. The
    gradient of logit_k(v) at voxel u of every channel is w[k] where u - v is in the box, else 0.

    Parameters
    ----------
    weight
        (classes,).
    before, after
        Voxels on each side, one number an axis.
    """

    def __init__(self, weight: ArrayLike, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__()
        self.weight = _parameter(weight)
        self.before = tuple(before)
        self.after = tuple(after)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        sides = [n for pair in zip(self.before, self.after, strict=True) for n in reversed(pair)]
        sums = F.pad(windows.sum(dim=1, keepdim=True), sides[::-1])
        for axis, (before, after) in enumerate(zip(self.before, self.after, strict=True), 2):
            sums = sums.unfold(axis, before + after + 1, 1).sum(dim=-1)
        return sums * _spread(self.weight, windows)


class Quadratic(nn.Module):
    """Squares: logit_k(v) = sum_c W[k, c] x_c(v)².

    The gradient of logit_k(v) is 2 W[k, c] x_c(v); integrated gradients from 0 are
    W[k, c] x_c(v)², exactly.

    Parameters
    ----------
    weight
        (classes, channels).
    """

    def __init__(self, weight: ArrayLike) -> None:
        super().__init__()
        self.weight = _parameter(weight)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        return _mix(self.weight, windows.square())


class Product(nn.Module):
    """Product of the channels: logit_k(v) = w[k] prod_c x_c(v).

    The gradient for channel c is w[k] times the product of the other channels; integrated
    gradients from 0 give each of n channels logit_k(v) / n.

    Parameters
    ----------
    weight
        (classes,).
    """

    def __init__(self, weight: ArrayLike) -> None:
        super().__init__()
        self.weight = _parameter(weight)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        return windows.prod(dim=1, keepdim=True) * _spread(self.weight, windows)


class Step(nn.Module):
    """A threshold: logit_k(v) = w[k] where x_0(v) > threshold, else 0.

    Its gradient is zero everywhere, yet removing bright voxels changes the logits.

    Parameters
    ----------
    weight
        (classes,).
    threshold
        Intensity above which the step is on.
    """

    def __init__(self, weight: ArrayLike, threshold: float = 0.0) -> None:
        super().__init__()
        self.weight = _parameter(weight)
        self.threshold = threshold

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        bright = (windows[:, :1] > self.threshold).to(windows.dtype)
        return bright * _spread(self.weight, windows) + 0.0 * windows[:, :1]


class Constant(nn.Module):
    """The same logits whatever the image: logit_k(v) = b[k]. Every attribution is zero.

    Parameters
    ----------
    values
        (classes,).
    is_connected
        Whether the logits are in the input's graph, with gradient zero; if not, automatic
        differentiation finds no path from the logits to the input at all.
    """

    def __init__(self, values: ArrayLike, *, is_connected: bool = True) -> None:
        super().__init__()
        self.values = _parameter(values)
        self.is_connected = is_connected

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        zero = 0.0 * windows[:, :1] if self.is_connected else torch.zeros_like(windows[:, :1])
        return zero + _spread(self.values, windows)


class Shortcut(nn.Module):
    """Looks at one voxel only: logit_k(v) = w[k] x_0(last corner of the window) for every v.

    The gradient of sum_v C_k(v) logit_k(v) is sum_k w[k] sum_v C_k(v) at that corner (the
    highest index on every axis) and 0 elsewhere.

    Parameters
    ----------
    weight
        (classes,).
    """

    def __init__(self, weight: ArrayLike) -> None:
        super().__init__()
        self.weight = _parameter(weight)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        corner = windows[:, 0].flatten(1)[:, -1].reshape(-1, *[1] * (windows.ndim - 1))
        return corner * _spread(self.weight, windows).expand(-1, -1, *windows.shape[2:])


class SmallNet(nn.Module):
    """Two convolutions with a tanh between: smooth, random, for finite differences.

    Parameters
    ----------
    rank
        2 or 3.
    n_channels, n_classes
        Input and output channels.
    width
        Hidden channels.
    seed
        Of the weights; the global random state is not touched.
    """

    def __init__(
        self, rank: int = 3, n_channels: int = 1, n_classes: int = 3, width: int = 4, seed: int = 0
    ) -> None:
        super().__init__()
        convolution = nn.Conv3d if rank == 3 else nn.Conv2d
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = convolution(n_channels, width, 3, padding=1)
            self.last = convolution(width, n_classes, 3, padding=1)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        hidden = torch.tanh(self.first(windows))
        return torch.as_tensor(self.last(hidden))


class InPlaceNet(nn.Module):
    """First changes its input in place: x becomes max(x, 0); then logit_k(v) = w[k] sum_c x_c(v).

    A caller that hands its own array over loses it; a leaf that requires a gradient raises. The
    gradient of logit_k(v) is w[k] where x_c(v) > 0, else 0.

    Parameters
    ----------
    weight
        (classes,).
    """

    def __init__(self, weight: ArrayLike) -> None:
        super().__init__()
        self.activation = nn.ReLU(inplace=True)
        self.weight = _parameter(weight)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        rectified: torch.Tensor = self.activation(windows)
        return rectified.sum(dim=1, keepdim=True) * _spread(self.weight, windows)


class TrainingSensitive(nn.Module):
    """Batch normalisation and dropout, then a voxelwise linear layer.

    In evaluation mode, with the running statistics m_c and s_c² that it was made with,
    logit_k(v) = sum_c W[k, c] (x_c(v) - m_c) / sqrt(s_c² + 1e-5). In training mode the result
    is random, depends on the rest of the batch, and the running statistics change.

    Parameters
    ----------
    weight
        (classes, channels).
    rank
        2 or 3.
    """

    def __init__(self, weight: ArrayLike, rank: int = 3) -> None:
        super().__init__()
        self.linear = Linear(weight)
        n_channels = self.linear.weight.shape[1]
        norm = nn.BatchNorm3d if rank == 3 else nn.BatchNorm2d
        self.norm = norm(n_channels, eps=1e-5, affine=False)
        self.norm.running_mean = torch.arange(n_channels) * 0.5 + 0.25
        self.norm.running_var = torch.arange(n_channels) * 0.5 + 2.0
        self.dropout = nn.Dropout(0.5)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of windows."""
        return torch.as_tensor(self.linear(self.dropout(self.norm(windows))))


class Wrapper(nn.Module):
    """A network around another one, `inner`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of the inner network."""
        return torch.as_tensor(self.inner(windows))


class Recorder(Wrapper):
    """Keeps a copy of every batch it is fed, and otherwise does what `inner` does.

    `wrap` and `load_model` run a network once to check it: call `clear` after them.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.batches: list[torch.Tensor] = []

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of the inner network."""
        self.batches.append(windows.detach().clone())
        return super().forward(windows)

    @property
    def n_windows(self) -> int:
        """Number of windows seen, over all batches."""
        return sum(len(batch) for batch in self.batches)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of every batch, in order."""
        return [tuple(batch.shape) for batch in self.batches]

    def clear(self) -> None:
        """Forget everything seen."""
        self.batches.clear()


class Failing(Wrapper):
    """Raises RuntimeError from its pass number `after` + 1 on."""

    def __init__(self, inner: nn.Module, after: int) -> None:
        super().__init__(inner)
        self.left = after

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of the inner network, or the error."""
        if self.left <= 0:
            raise RuntimeError("this network fails on purpose")
        self.left -= 1
        return super().forward(windows)


class OutOfMemory(Wrapper):
    """Raises ``torch.OutOfMemoryError`` for a batch of more than `limit` windows."""

    def __init__(self, inner: nn.Module, limit: int) -> None:
        super().__init__(inner)
        self.limit = limit

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of the inner network, or the error."""
        if len(windows) > self.limit:
            raise torch.OutOfMemoryError(
                f"out of memory on purpose: {len(windows)} windows, limit {self.limit}"
            )
        return super().forward(windows)


class DeepSupervision(nn.Module):
    """Gives the logits and then wrong, coarser ones, as nnU-Net does while it trains."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Full-resolution logits first."""
        full = torch.as_tensor(self.inner(windows))
        return full, -full[..., ::2, ::2]


class Pooled(Wrapper):
    """A classifier: the mean of the inner logits over the image, (batch, classes).

    The gradient is that of the sum over voxels, divided by their number.
    """

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of the image."""
        return super().forward(windows).flatten(2).mean(dim=-1)


class Mirrored(CardModel):
    """Several networks, each also run on its window flipped along each of the axes: views.

    The logits of a window are the mean of ``flip(f_k(flip(x)))`` over the networks f_k and over
    no flip and a flip of each axis.

    Parameters
    ----------
    modules
        Segmentation networks with the same channels and classes.
    axes
        Spatial axes.
    settings
        See `describe`.
    """

    def __init__(self, modules: Sequence[nn.Module], axes: Sequence[int], **settings: Any) -> None:
        one = describe(modules[0], **settings)
        assert isinstance(one, CardModel)
        self.folds = nn.ModuleList(modules)
        super().__init__(one.info, self.folds, one.settings)
        self._flips = [(), *((2 + axis,) for axis in axes)]

    @property
    def n_views(self) -> int:
        """Networks times flips."""
        return len(self.folds) * len(self._flips)

    def network(self, view: int = 0) -> nn.Module:
        """Return the network that a view runs."""
        return self.folds[view // len(self._flips)]

    def flips(self, view: int) -> tuple[int, ...]:
        """Spatial axes along which a view is mirrored."""
        return tuple(axis - 2 for axis in self._flips[view % len(self._flips)])

    def forward(self, windows: torch.Tensor, view: int = 0) -> torch.Tensor:
        """Logits in one view."""
        fold, flip = divmod(view, len(self._flips))
        axes = self._flips[flip]
        return torch.as_tensor(self.folds[fold](windows.flip(axes)).flip(axes))


def analytic_modules(
    rank: int = 3, n_channels: int = 2, n_classes: int = 3, seed: int = 0
) -> dict[str, nn.Module]:
    """Every well-behaved analytic network by name, with random weights.

    Parameters
    ----------
    rank
        2 or 3.
    n_channels, n_classes
        Input and output channels.
    seed
        Of the weights.
    """
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n_classes, n_channels))
    vector = rng.normal(size=n_classes)
    return {
        "linear": Linear(matrix, vector),
        "box_filter": BoxFilter(vector, before=(1, 0, 2)[:rank], after=(0, 2, 1)[:rank]),
        "quadratic": Quadratic(matrix),
        "product": Product(vector),
        "step": Step(vector, threshold=0.25),
        "constant": Constant(vector),
        "shortcut": Shortcut(vector),
        "small_net": SmallNet(rank, n_channels, n_classes, seed=seed),
        "in_place": InPlaceNet(vector),
        "training_sensitive": TrainingSensitive(matrix, rank).eval(),
        "deep_supervision": DeepSupervision(Linear(matrix, vector)),
    }


def analytic(
    rank: int = 3,
    n_channels: int = 2,
    n_classes: int = 3,
    window: WindowSettings | Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Model]:
    """Wrap the networks of `analytic_modules` as models that take every image as it is.

    Classes are ``background``, ``class_1``, …, channels ``channel_0``, …. The window's shape
    is (4, 5, 6) or (4, 5) by default, too small for an axis to pass unseen for another.
    """
    return {
        name: describe(
            module, rank=rank, n_channels=n_channels, n_classes=n_classes, window=window, name=name
        )
        for name, module in analytic_modules(rank, n_channels, n_classes, seed).items()
    }


def describe(
    module: nn.Module,
    *,
    rank: int = 3,
    n_channels: int = 1,
    n_classes: int = 3,
    window: WindowSettings | Sequence[int] | None = None,
    name: str | None = None,
) -> Model:
    """Wrap any network as a segmentation model that takes every image as it is; not run."""
    return wrap(
        module,
        classes=("background", *(f"class_{k}" for k in range(1, n_classes))),
        channels=[f"channel_{c}" for c in range(n_channels)],
        window=(4, 5, 6)[:rank] if window is None else window,
        activation="softmax" if n_classes > 1 else "sigmoid",
        name=name,
        check=False,
    )
