"""Blocks of a network that compute their activations again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from voxplain.errors import ModelError

_HEIGHT = 3  # of a block, in parts inside parts: MONAI's residual units are as deep


@contextmanager
def checkpointed(module: nn.Module) -> Iterator[list[str]]:
    """Keep, of each block, only the inputs for the backward pass; undone after.

    The backward pass runs a block forward again to get back what autograd needs, so that the
    memory of a graph is that of the blocks' inputs and of one block. Gradients are the same: the
    same operations run on the same values, random numbers included.

    Parameters
    ----------
    module
        Network, used in place; see `blocks_of` for its blocks.

    Yields
    ------
    list of str
        Names of the blocks; empty where the network has none, and nothing changes.

    Raises
    ------
    ModelError
        While the network runs, if a block changes its own input in place: it could not be run
        again.

    Notes
    -----
    Each backward pass costs one forward pass more, which is not counted in `Passes`. Without a
    graph nothing changes. A block runs as it is while a part inside it has hooks, which would
    run again too, and while a `TorchFunctionMode` is active, which is not there for the second
    run on a GPU.
    """
    blocks = blocks_of(module)
    try:
        for name, block in blocks.items():
            block.forward = partial(_forward, block, name, block.forward)
        yield list(blocks)
    finally:
        for block in blocks.values():
            vars(block).pop("forward", None)


def blocks_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the parts that are run again as one: a convolution with its norm, a residual unit.

    They are the outermost parts with parameters that hold other parts, at most three deep;
    never the whole network. Parts that are scripted, compiled or have a forward of their own are
    left, with all that is inside them.

    Returns
    -------
    dict
        Name in the network to module; a module that stands in several places comes once.
    """
    found: dict[str, nn.Module] = {}
    seen: set[nn.Module] = set()

    def search(part: nn.Module, name: str) -> None:
        if part in seen or _is_sealed(part):
            return
        seen.add(part)
        is_run = type(part).forward is not nn.Module.forward  # a list of parts is not
        is_whole = not any(_is_sealed(inner) for inner in part.modules())
        is_small = 1 <= _height(part) <= _HEIGHT and any(True for _ in part.parameters())
        if name and is_run and is_whole and is_small:
            found[name] = part
            return
        for child_name, child in part.named_children():
            search(child, f"{name}.{child_name}" if name else child_name)

    search(module, "")
    return found


def _height(part: nn.Module) -> int:
    return max((1 + _height(child) for child in part.children()), default=0)


def _is_sealed(part: nn.Module) -> bool:
    """Whether a part is scripted or compiled, or its forward was replaced (a slope may be)."""
    return (
        isinstance(part, torch.jit.ScriptModule)
        or getattr(part, "_compiled_call_impl", None) is not None
        or ("forward" in vars(part) and any(True for _ in part.children()))
    )


def _forward(
    block: nn.Module, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Run a block; with a graph, one that keeps only the block's inputs."""
    is_plain = (
        not torch.is_grad_enabled()
        or torch._C._len_torch_function_stack() > 0
        or any(_has_hooks(inner) for inner in block.modules() if inner is not block)
    )
    if is_plain:
        return forward(*args, **kwargs)
    tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
    versions = [t._version for t in tensors]
    output = checkpoint(forward, *args, use_reentrant=False, **kwargs)
    if [t._version for t in tensors] != versions:
        raise ModelError(
            f"the network's block {name} ({type(block).__name__}) changes its input in place, so "
            "it cannot be run again in the backward pass; run without checkpointing, with a "
            "smaller batch_size where memory is short"
        )
    return output


def _has_hooks(part: nn.Module) -> bool:
    return bool(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks
        or part._backward_pre_hooks
    )  # fmt: skip
