"""One tiny forward pass that shows whether a network fits its description."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from voxplain.errors import ModelError
from voxplain.models.model import Model

_BATCH = 2  # a batch of one could hide a channel axis that was taken for the batch
_TRIES = (32, 64, 128)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each of its parts back into its own mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def probe(model: Model, size: tuple[int, ...] | None = None) -> None:
    """Run the network once on noise and compare the result with `model.info`.

    Small inputs are tried first; a network may refuse them (fixed shape, deep pooling), so
    only the last try counts, but for the number of classes, which does not depend on the size.

    Parameters
    ----------
    model
        Its module is run in evaluation mode without gradients; modes and the state of the
        random generator are restored.
    size
        The one spatial shape that the network takes; None tries 32, 64 (and 128) voxels an
        axis, then the window.

    Raises
    ------
    ModelError
        If the network fails, or returns another number of classes, of axes or of voxels than
        its description says.
    """
    fault = ""
    for shape in _shapes(model, size):
        fault = _fault(model, shape)
        if not fault:
            return
    raise ModelError(f"{model.info.name}: {fault}{_hint(model, size)}")


def _shapes(model: Model, size: tuple[int, ...] | None) -> list[tuple[int, ...]]:
    if size is not None:
        return [size]
    if model.info.window is None:
        return [(n,) * model.info.rank for n in _TRIES]
    full = model.info.window.size
    smaller = [tuple(min(n, f) for f in full) for n in _TRIES]
    return list(dict.fromkeys([*smaller, full]))


def _fault(model: Model, shape: tuple[int, ...]) -> str:
    info = model.info
    tensors = [*model.module.parameters(), *model.module.buffers()]
    like = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    given = (_BATCH, len(info.channel_names), *shape)
    windows = torch.randn(given, generator=torch.Generator().manual_seed(0)).to(like)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(model.module):
            logits = model.forward(windows)
    except ModelError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        return f"the network fails on an input of shape {given}: {type(error).__name__}: {reason}"
    found = tuple(logits.shape)
    names = ", ".join(info.class_names)
    expected = (_BATCH, info.n_classes, *(shape if info.kind == "segmentation" else ()))
    if found == expected:
        return ""
    if len(found) == len(expected) and found[1] != info.n_classes:
        raise ModelError(
            f"{info.name}: the network gives {found[1]} classes, {info.n_classes} are named "
            f"({names})"
        )
    return (
        f"a {info.kind} model must turn {given} into {expected} (batch, classes, …), the "
        f"network gives {found}"
    )


def _hint(model: Model, size: tuple[int, ...] | None) -> str:
    """Say what the network's first convolution expects, where the description differs."""
    missing = size is None and model.info.kind == "classification"
    otherwise = "; if the network takes one shape only, say so: input.size" if missing else ""
    convolution = next(
        (m for m in model.module.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))), None
    )
    if convolution is None:
        return otherwise
    rank, wanted = len(convolution.kernel_size), convolution.in_channels
    if rank != model.info.rank:
        return f". Its first convolution is {rank}D, the model is described as {model.info.rank}D"
    names = model.info.channel_names
    if wanted != len(names):
        advice = f"; if they are copies of it: repeat: {wanted}" if len(names) == 1 else ""
        return (
            f". Its first convolution takes {wanted} channels, the description names {len(names)} "
            f"({', '.join(names)}){advice}"
        )
    return otherwise
