"""DeepLIFT through captum, window by window."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import Question
from voxplain.errors import MethodError, needs_extra
from voxplain.inference.cotangent import Cotangent
from voxplain.inference.pipeline import Job, Passes, Pipeline, targets_in
from voxplain.inference.rectifiers import OTHER_ACTIVATIONS, RECTIFIERS, check_open
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.records.finding import Finding, finding

_GAP = 0.01
_KNOWN: frozenset[type[nn.Module]] = frozenset(
    {
        nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus,
        nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    }
)  # fmt: skip
_NONLINEAR_FILES = {"activation", "instancenorm", "normalization", "rnn", "transformer"}
_NONLINEAR = RECTIFIERS | OTHER_ACTIVATIONS | {
    "abs", "absolute", "amax", "amin", "clamp", "clamp_min", "clamp_max", "clip", "exp", "log",
    "max", "maximum", "min", "minimum", "prod", "pow", "square", "sqrt", "rsqrt", "reciprocal",
    "rtruediv", "rdiv", "std", "var", "norm", "normalize", "threshold", "group_norm", "layer_norm",
    "instance_norm", "rms_norm", "max_pool1d", "max_pool2d", "max_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
}  # fmt: skip
_BILINEAR = {
    "mul", "rmul", "imul", "multiply", "div", "divide", "truediv", "matmul", "rmatmul", "mm",
    "bmm", "baddbmm", "einsum",
}  # fmt: skip


@dataclass(frozen=True)
class DeepLift:
    """(x − b)·m, with multipliers m = Δout/Δin in place of slopes (DeepLIFT's rescale rule).

    Each window's part of a target, Σ C·(g_w/Σg)·ℓ_w, is split over the window's voxels by
    captum's `DeepLift` against the same window of the baseline, and the windows are added up:
    the voxels of all windows sum to T(x) − T(b).

    Parameters
    ----------
    baseline
        b; default 0 in the model's intensities.

    Notes
    -----
    Cost: for each view, window and target two forward and two backward passes (image and
    baseline run together), and one value at the baseline. Memory: the graph of two windows,
    and copies of what goes into and out of each activation.

    Needs captum (``pip install 'voxplain[captum]'``), which has rules for ReLU, leaky ReLU, ELU,
    sigmoid, tanh, softplus and max pooling, as modules that are each used once. Other
    activations, norms with statistics of the image (instance, group, layer), activations called
    as functions, products of two activations, modules used twice, scripted or compiled parts
    are refused. Other non-linear steps, and max pooling with overlap, show in the completeness
    gap (VX102). A target that is not linear in the logits is refused.

    Differs from the paper, whose RevealCancel rule is not in captum. Differs from captum alone,
    whose hooks disturb each other where a module's input is used elsewhere too (a skip
    connection, max pooling right after ReLU); here each module has an input of its own.

    References
    ----------
    Shrikumar et al. 2017, arXiv 1704.02685, section 3.5.2; Ancona et al. 2018, arXiv 1711.06104.
    """

    baseline: Baseline = field(default_factory=Constant)

    name: ClassVar[str] = "deep_lift"
    is_adaptive: ClassVar[bool] = False
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    has_channels: ClassVar[bool] = True

    def passes(self, question: Question) -> Passes:
        """Two forward and two backward a window and target, one value at the baseline."""
        _check(question)
        pipeline = question.pipeline
        active = pipeline.active_windows([cotangent for _, cotangent in question.linear])
        n_pairs = pipeline.model.n_views * sum(map(len, active.values()))
        n_values = question.passes_for(0, n_values=1).n_forward
        return Passes(n_forward=2 * n_pairs + n_values, n_backward=2 * n_pairs)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        _check(question)
        captum = needs_extra("captum.attr", "captum", "DeepLIFT")
        pipeline = question.pipeline
        sources = [pipeline.clean, self.baseline.input(question)]
        cotangents = [cotangent for _, cotangent in question.linear]
        active = pipeline.active_windows(cotangents)
        totals = np.zeros(len(cotangents))

        def maps(jobs: Sequence[Job]) -> list[tuple[int, torch.Tensor]]:
            found = []
            n_pairs = sum(len(active[w]) for _, w, _ in jobs)
            for t in targets_in(jobs, active):
                values = torch.zeros(
                    (len(jobs), pipeline.image.n_channels, *pipeline.plan.settings.size),
                    dtype=pipeline.compute.dtype, device=pipeline.device,
                )  # fmt: skip
                for row, (view, w, _) in enumerate(jobs):
                    if t in active[w]:
                        pair = pipeline.batch([(view, w, 0), (view, w, 1)], sources)
                        part = _Part(pipeline, view, w, cotangents[t])
                        values[row] = part.contributions(captum.DeepLift, pair)
                found.append((t, values))
            for t, values in found:
                totals[t] += float(values.sum(dtype=torch.float64))
            # beside one forward pass a job and one backward pass a job and target
            pipeline.count(2 * n_pairs - len(jobs), n_pairs)
            return found

        pipeline.sum_windows(active, len(totals), pipeline.image.n_channels, 1, maps, emit)
        start = question.values(sources[1])
        return Outcome(baseline_values=start, findings=_gaps(question, totals, start))


class _Part(nn.Module):
    """A network with one number a window: what a window in one view adds to a target."""

    def __init__(self, pipeline: Pipeline, view: int, window: int, cotangent: Cotangent) -> None:
        super().__init__()
        self.network = pipeline.model.network(view)
        self._pipeline = pipeline
        self._view = view
        self._channels = cotangent.channels
        self._outputs = pipeline.weighted(cotangent, window)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Σ C·g_w/Σg·ℓ_w of each window of a batch, (batch,)."""
        with _Watch(self.network) as watch:
            logits = self._pipeline.forward_with_graph(windows, self._view)
        watch.check(self._pipeline.info.name)
        return (logits[:, self._channels] * self._outputs).flatten(1).sum(1)

    def contributions(self, deep_lift: Callable[[nn.Module], Any], pair: torch.Tensor) -> Any:
        """Return the contributions (n_channels, *window) of an image's and a baseline's window."""
        image = pair[:1].requires_grad_()
        with _attributes_kept(self.network), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting forward, backward hooks", UserWarning)
            return deep_lift(self).attribute(image, pair[1:])[0].detach()


class _Watch(TorchFunctionMode):
    """Notes, during one pass, what captum's rules would take for linear, or take twice."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._names = {module: name for name, module in network.named_modules()}
        self._n_calls: Counter[nn.Module] = Counter()
        self._depth = 0
        self._functions: set[str] = set()
        self._handles: list[Any] = []

    def __enter__(self) -> _Watch:
        for module in self._names:
            if type(module) in _KNOWN:
                self._handles.append(module.register_forward_pre_hook(self._before, prepend=True))
                self._handles.append(module.register_forward_hook(self._after, always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self._n_calls[module] += 1
        self._depth += 1
        # captum's hook replaces the whole gradient of this tensor, also where others use it
        return tuple(x.clone() if isinstance(x, torch.Tensor) else x for x in inputs)

    def _after(self, *_: Any) -> None:
        self._depth -= 1

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function, and note it if it is not linear."""
        given = (*args, *(kwargs or {}).values())
        if self._depth == 0:
            name = getattr(func, "__name__", "").strip("_")
            n_moving = sum(isinstance(a, torch.Tensor) and a.requires_grad for a in given)
            if (name in _NONLINEAR and n_moving) or (name in _BILINEAR and n_moving > 1):
                self._functions.add(name)
        return func(*args, **(kwargs or {}))

    def check(self, name: str) -> None:
        """Raise if something was noted."""
        faults = [f"it calls {function}()" for function in sorted(self._functions)]
        faults += [
            f"it uses {self._names[module]} {n} times"
            for module, n in self._n_calls.items()
            if n > 1
        ]
        if faults:
            raise _refusal(name, faults)


def _check(question: Question) -> None:
    """Refuse targets that windows do not add up to, and networks that captum has no rules for."""
    pipeline = question.pipeline
    if moving := [target.name for target in question.targets if not target.is_fixed]:
        raise MethodError(
            "deep_lift adds up the contributions of windows, which needs targets that are linear "
            f"in the logits; not so: {', '.join(moving)}; explain the logit over a held mask, or "
            "use integrated_gradients"
        )
    check_open(pipeline.model.module, DeepLift.name)
    kinds: Counter[str] = Counter()
    hooked: list[str] = []
    for name, module in pipeline.model.module.named_modules():
        if type(module) in _KNOWN:
            if module._backward_hooks:
                hooked.append(f"{name} has a backward hook, beside which captum sets none")
        elif _is_nonlinear(module):
            kinds[type(module).__name__] += 1
    if faults := [f"it has {kind} ({n} times)" for kind, n in sorted(kinds.items())] + hooked:
        raise _refusal(pipeline.info.name, faults)


def _is_nonlinear(module: nn.Module) -> bool:
    """Whether a module is one of torch's non-linear ones, or derived from one."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return True
    for kind in type(module).__mro__:
        package, _, file = kind.__module__.rpartition(".")
        if package == "torch.nn.modules":
            is_pool = file == "pooling" and ("Max" in kind.__name__ or "LP" in kind.__name__)
            return is_pool or file in _NONLINEAR_FILES
    return False


def _refusal(name: str, faults: Sequence[str]) -> MethodError:
    return MethodError(
        f"deep_lift has no rule for a step of {name}: {'; '.join(faults)}. It takes "
        f"{', '.join(sorted(kind.__name__ for kind in _KNOWN))} as modules that are each used "
        "once, between linear layers; integrated_gradients and input_x_gradient are contributions "
        "too, and fit any network"
    )


@contextmanager
def _attributes_kept(network: nn.Module) -> Iterator[None]:
    """Undo what captum writes on modules: ``input`` and ``output``, left after an error."""
    keys = ("input", "output")
    before = [(vars(m), {k: vars(m)[k] for k in keys if k in vars(m)}) for m in network.modules()]
    try:
        yield
    finally:
        for attributes, kept in before:
            for key in keys:
                attributes.pop(key, None)
            attributes.update(kept)


def _gaps(
    question: Question, totals: NDArray[np.float64], start: Sequence[float]
) -> tuple[Finding, ...]:
    """Return a remark for each target whose contributions do not sum to its change."""
    found = []
    changes = [value - first for (value, _), first in zip(question.linear, start, strict=True)]
    for target, total, change in zip(question.targets, totals, changes, strict=True):
        if abs(total - change) > _GAP * abs(change):
            found.append(
                finding(
                    "VX102",
                    "issue",
                    f"the map sums to {total:.6g}, the score changes by {change:.6g} from the "
                    "baseline: a step of the network is not linear and has no rule, or max "
                    "pooling overlaps; use integrated_gradients",
                    target.name,
                )
            )
    return tuple(found)
