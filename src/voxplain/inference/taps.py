"""The layers of a network: which there are, and how to take their outputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from voxplain.errors import MethodError
from voxplain.inference.cells import Arrangement, arrange
from voxplain.space.labelmap import nearest


@dataclass(frozen=True)
class Layer:
    """A module that ran, and what it gave.

    Parameters
    ----------
    name
        Its name in the network, e.g. ``encoder.stages.3``.
    kind
        Its class, e.g. ``Conv3d``.
    shape
        Of its output for one window, without the batch; empty if that is not one tensor.
    arrangement
        Where the output lies on the window; None if it cannot be used.
    cell
        Size of a cell in voxels, along each axis; empty without arrangement.
    fault
        Why not.
    is_output
        Whether it gives the network's logits.
    is_in_head
        Whether it lies inside a module that gives the logits and has as many channels.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    arrangement: Arrangement | None
    cell: tuple[float, ...] = ()
    fault: str = ""
    is_output: bool = False
    is_in_head: bool = False


class Taps:
    """Keep the outputs of named layers while a network runs, inside a ``with`` block.

    Each layer's output is handed on as a copy, so that a function that works in place after it
    does not change what was kept. The hooks are removed on leaving, also after an error.

    Parameters
    ----------
    network
        What runs.
    names
        Layers of it.

    Raises
    ------
    MethodError
        On entering, if the network has no such layer; while it runs, if a layer gives no single
        tensor or runs twice; on leaving, if a layer did not run.

    Attributes
    ----------
    outputs
        One tensor a layer, in the order of `names`.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self._network = network
        self._names = tuple(names)
        self._kept: dict[str, torch.Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        modules = dict(self._network.named_modules())
        for name in self._names:
            if name not in modules or not name:
                known = [other for other in modules if other]
                raise MethodError(
                    f"the network has no layer {name!r}{nearest(name, known)}; voxplain layers "
                    "lists them"
                )
        for name in self._names:
            self._handles.append(modules[name].register_forward_hook(self._keeper(name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if error is None:
            for name in self._names:
                if name not in self._kept:
                    raise MethodError(
                        f"the layer {name} does not run when the network does (an unused branch, "
                        "or part of a scripted module); voxplain layers lists those that do"
                    )

    @property
    def outputs(self) -> list[torch.Tensor]:
        """What was kept."""
        return [self._kept[name] for name in self._names]

    def arrangements(self, n: int, window: Sequence[int]) -> list[Arrangement]:
        """Tell how the outputs for a batch of n windows lie on the window.

        Raises
        ------
        MethodError
            If one does not lie on it in a way that is known.
        """
        modules = dict(self._network.named_modules())
        found = []
        for name, output in zip(self._names, self.outputs, strict=True):
            place = _arrangement(modules[name], output, n, window)
            if isinstance(place, str):
                raise MethodError(f"the layer {name} cannot be used: {place}")
            found.append(place)
        return found

    def _keeper(self, name: str) -> Callable[[nn.Module, Any, Any], torch.Tensor]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> torch.Tensor:
            if not isinstance(output, torch.Tensor):
                raise MethodError(
                    f"the layer {name} gives a {type(output).__name__}, not one tensor; take a "
                    "layer inside it"
                )
            if name in self._kept:
                raise MethodError(
                    f"the layer {name} ({type(module).__name__}) runs more than once in a pass, so "
                    "it has no one output; take the layer before or around it"
                )
            self._kept[name] = output
            return output.clone()

        return keep


def _arrangement(
    module: nn.Module, output: torch.Tensor, n: int, window: Sequence[int]
) -> Arrangement | str:
    """Arrangement of a module's output for n windows, or why it has none."""
    if output.ndim < 2 or len(output) != n or not output.is_floating_point():
        return f"output of shape {tuple(output.shape)} for {n} windows of {tuple(window)}"
    is_last = any(isinstance(m, (nn.LayerNorm, nn.Linear)) for m in module.modules())
    return arrange(output.shape[1:], window, is_last=is_last)


def record_layers(
    network: nn.Module, run: Callable[[], torch.Tensor], window: Sequence[int]
) -> list[Layer]:
    """List the layers of a network in the order in which they finish.

    Parameters
    ----------
    network
        The network that `run` runs once, on one window.
    run
        Gives the logits, (1, n_classes, …).
    window
        Voxels along each axis of the network's input.

    Returns
    -------
    list of Layer
        Every module inside the network that ran. One that ran more than once stands where it
        ran last, and cannot be used.

    Notes
    -----
    One forward pass; nothing of it is kept but shapes.
    """
    seen: dict[str, Layer] = {}
    outputs: dict[str, Callable[[], torch.Tensor | None]] = {}
    logits: list[torch.Tensor] = []

    def keeper(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            kind = type(module).__name__
            is_again = seen.pop(name, None) is not None
            if not isinstance(output, torch.Tensor):
                seen[name] = Layer(name, kind, (), None, fault=f"gives a {type(output).__name__}")
                return
            outputs[name] = weakref.ref(output)
            found = _arrangement(module, output, 1, window)
            if is_again:
                found = "runs more than once in a pass"
            shape = tuple(output.shape[1:])
            if isinstance(found, str):
                seen[name] = Layer(name, kind, shape, None, fault=found)
            else:
                cell = tuple(w / n for w, n in zip(window, found.cells, strict=True))
                seen[name] = Layer(name, kind, shape, found, cell)

        return keep

    def keep_logits(module: nn.Module, inputs: Any, output: Any) -> None:
        logits[:] = [output[0] if isinstance(output, (tuple, list)) else output]

    handles = [network.register_forward_hook(keep_logits)]
    try:
        for name, module in network.named_modules():
            if name:
                handles.append(module.register_forward_hook(keeper(name)))
        run()
    finally:
        for handle in handles:
            handle.remove()
    givers = [name for name, output in outputs.items() if output() is logits[0]]
    n_classes = logits[0].shape[1]
    n_tokens = {layer.shape[0] for layer in seen.values() if len(layer.shape) == 2}
    return [
        replace(
            layer,
            arrangement=None if _is_attention(layer, n_tokens) else layer.arrangement,
            fault="an attention matrix" if _is_attention(layer, n_tokens) else layer.fault,
            is_output=layer.name in givers,
            is_in_head=any(layer.name.startswith(f"{giver}.") for giver in givers)
            and layer.shape[:1] == (n_classes,),
        )
        for layer in seen.values()
    ]


def _is_attention(layer: Layer, n_tokens: set[int]) -> bool:
    """Whether an output is (heads, tokens, tokens)."""
    return len(layer.shape) == 3 and layer.shape[1] == layer.shape[2] and layer.shape[1] in n_tokens
