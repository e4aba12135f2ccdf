"""Another backward pass for every rectifier, without touching the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from voxplain.errors import MethodError

Rule = Literal["guided", "deconvnet"]

_IN_PLACE = frozenset({torch.relu_, torch.Tensor.relu_, torch._C._nn.leaky_relu_})
_RELUS = frozenset({torch.relu, torch.relu_, F.relu, torch.Tensor.relu, torch.Tensor.relu_})
_LEAKY_RELUS = frozenset({F.leaky_relu, torch._C._nn.leaky_relu, torch._C._nn.leaky_relu_})
_PRELUS = frozenset({torch.prelu, torch.Tensor.prelu})
RECTIFIERS = frozenset({"relu", "leaky_relu", "prelu"})
"""Names, but for underscores, of the functions whose backward pass is changed."""
OTHER_ACTIVATIONS = frozenset({
    "celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
    "logsigmoid", "log_softmax", "mish", "relu6", "rrelu", "scaled_dot_product_attention", "selu",
    "sigmoid", "silu", "softmax", "softplus", "softshrink", "softsign", "tanh", "tanhshrink",
})  # fmt: skip
"""Names, but for underscores, of torch's other activation functions."""


class RectifierRule(TorchFunctionMode):
    """While active, rectifiers hand back only what a rule lets through; forward is unchanged.

    A rectifier is y = x where x > 0, else s·x: ReLU (s = 0), leaky ReLU, PReLU, called as a
    module, function or method, in place or not. With R = dT/dy it hands back

    - ``guided``: max(R·y'(x), 0), the positive part of the ordinary backward pass, where y' is
      1 or s; for ReLU that is R·1[x > 0]·1[R > 0];
    - ``deconvnet``: max(R, 0), whatever x.

    Parameters
    ----------
    rule
        One of the two.

    Attributes
    ----------
    n_seen
        Rectifiers that have run.

    Raises
    ------
    MethodError
        When a gradient is asked for and no rectifier has run.

    Notes
    -----
    Other activations (GELU, tanh, ELU, ReLU6, a clamp at 0) keep their backward pass. A part
    that runs again in the backward pass (reentrant checkpointing) is not seen on a GPU.

    References
    ----------
    Springenberg et al. 2015, arXiv 1412.6806, fig. 1; Zeiler & Fergus 2014, arXiv 1311.2901.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.n_seen = 0
        self._others: set[str] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function; rectifiers with the rule's backward pass."""
        kwargs = kwargs or {}
        found = _rectifier(func, args, kwargs)
        if found is not None:
            self.n_seen += 1
            x, slope, is_in_place = found
            if torch.is_grad_enabled() and x.requires_grad:
                return _Rectifier.apply(x, slope, is_in_place, self.rule)  # type: ignore[no-untyped-call]
        elif (name := getattr(func, "__name__", "").strip("_")) in OTHER_ACTIVATIONS:
            self._others.add(name)
        if func is torch.autograd.grad and self.n_seen == 0:
            others = ", ".join(sorted(self._others)) or "no activation function of torch"
            raise MethodError(
                f"the {self.rule} rule changes the backward pass of rectifiers (ReLU, leaky ReLU, "
                f"PReLU), and the network runs none; it runs {others}; use gradient, smoothgrad "
                "or integrated_gradients"
            )
        return func(*args, **kwargs)


class _Rectifier(torch.autograd.Function):
    """y = x where x > 0, else slope·x, with a rule's backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, slope: float | torch.Tensor, is_in_place: bool, rule: Rule
    ) -> torch.Tensor:
        """Return y; written over x in place."""
        ctx.rule = rule
        is_on = x > 0
        if rule == "guided":
            if isinstance(slope, torch.Tensor):
                ctx.save_for_backward(is_on, slope)
            else:
                ctx.save_for_backward(is_on)
                ctx.slope = slope
        if isinstance(slope, torch.Tensor):
            y = torch.prelu(x, slope)
        elif is_in_place:
            y = torch.relu_(x) if slope == 0 else F.leaky_relu_(x, slope)
        else:
            y = torch.relu(x) if slope == 0 else F.leaky_relu(x, slope)
        if is_in_place:
            ctx.mark_dirty(x)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return what the rule lets through."""
        if ctx.rule == "guided":
            is_on, *slopes = ctx.saved_tensors
            slope = _along_channels(slopes[0], gradient) if slopes else ctx.slope
            gradient = torch.where(is_on, gradient, gradient * slope)
        return gradient.clamp_min(0), None, None, None


def _along_channels(slope: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Slopes of a PReLU, one or one a channel, to go with (batch, channels, …)."""
    if slope.numel() == 1:
        return slope.reshape(()).to(like.dtype)
    return slope.reshape(1, -1, *[1] * (like.ndim - 2)).to(like.dtype)


def _rectifier(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[torch.Tensor, float | torch.Tensor, bool] | None:
    """Input, slope below 0, and whether it works in place; None for any other function."""
    if func in _RELUS:
        x, *others = _given(("input", "inplace"), args, kwargs)
        return x, 0.0, func in _IN_PLACE or bool(others[0])
    if func in _LEAKY_RELUS:
        x, slope, in_place = _given(("input", "negative_slope", "inplace"), args, kwargs)
        return x, 0.01 if slope is None else float(slope), func in _IN_PLACE or bool(in_place)
    if func in _PRELUS:
        x, weight = _given(("input", "weight"), args, kwargs)
        return x, weight.detach(), False
    return None


def _given(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Arguments by name or place, None where left out."""
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]


def sealed_parts(module: nn.Module) -> list[str]:
    """Names of scripted and compiled parts, whose functions cannot be seen from outside."""
    return [
        name or type(part).__name__
        for name, part in module.named_modules()
        if isinstance(part, torch.jit.ScriptModule)
        or type(part).__module__.startswith("torch._dynamo")
        or getattr(part, "_compiled_call_impl", None) is not None
    ]


def check_open(module: nn.Module, name: str) -> None:
    """Refuse a network with scripted or compiled parts.

    Raises
    ------
    MethodError
        If there are some.
    """
    sealed = sealed_parts(module)
    if sealed:
        raise MethodError(
            f"{name} changes the backward pass of activations, and cannot reach into scripted or "
            f"compiled parts of the network: {', '.join(sealed[:3])}"
            f"{'' if len(sealed) <= 3 else f' and {len(sealed) - 3} more'}; give the plain module, "
            "or use gradient, smoothgrad or integrated_gradients"
        )
