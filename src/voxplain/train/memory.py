"""What a step of a training needs of memory, and what to do when there is too little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from voxplain.errors import TrainingError
from voxplain.train.recipe import Recipe

_COPIES = 4  # weights, gradients, two moments of AdamW
_MARGIN = 1.3  # gradients on their way, work space of convolutions
_REFUSED = ("not enough memory", "can't allocate memory", "out of memory")


def guess_bytes(network: nn.Module, recipe: Recipe, n_channels: int) -> int:
    """Guess the memory of one step; no voxel is computed.

    Parameters
    ----------
    network
        On any device; it is moved to the ``meta`` device, where it holds no numbers.
    recipe
        Batch and shape of the crops.
    n_channels
        Of the image.

    Returns
    -------
    int
        Bytes in float32: four copies of the weights, and what the backward pass keeps, and 30 %.

    Raises
    ------
    TrainingError
        If the network cannot take crops of this shape.
    """
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    shape = (1, n_channels, *recipe.crop.size)
    shell = network.to("meta").train()
    try:
        with saved_tensors_hooks(count, lambda tensor: tensor):
            out = shell(torch.empty(shape, device="meta"))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{recipe.network.name} cannot take crops of {recipe.crop.size} voxels: {reason}; "
            "lengths that are multiples of 32 fit all of these networks"
        ) from None
    if tuple(out.shape[2:]) != recipe.crop.size:
        raise TrainingError(
            f"{recipe.network.name} gives logits of shape {tuple(out.shape[2:])} for crops of "
            f"{recipe.crop.size} voxels; lengths that are multiples of 32 fit all of these networks"
        )
    return int(_COPIES * weights + _MARGIN * recipe.batch * kept)


@contextmanager
def out_of_memory_said_plainly(recipe: Recipe) -> Iterator[None]:
    """Turn a failed allocation into advice.

    Raises
    ------
    TrainingError
        Instead of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in _REFUSED):
            raise
        ways = [
            f"batch={max(1, recipe.batch // 2)}" if recipe.batch > 1 else "",
            f"a smaller crop.size than {list(recipe.crop.size)}",
            "network.arguments.use_checkpoint=true"
            if recipe.network.name == "swin_unetr"
            and recipe.network.arguments.get("use_checkpoint") is False
            else "",
            "fewer features in network.arguments",
            "amp=auto on a GPU" if recipe.amp == "off" else "",
        ]
        raise TrainingError(
            "memory does not suffice for a step of this training; try --set "
            + ", or ".join(way for way in ways if way)
        ) from error
