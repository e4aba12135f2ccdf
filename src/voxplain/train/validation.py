"""Dice of a network on whole cases, on the grid that it works on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from voxplain.train.cases import Prepared
from voxplain.train.ranks import Rank
from voxplain.train.recipe import Recipe


def validate(
    network: nn.Module,
    cases: Prepared,
    recipe: Recipe,
    n_classes: int,
    rank: Rank,
    amp: torch.autocast,
) -> list[float | None]:
    """Return the Dice of each class but the background, mean over the cases that have it.

    Parameters
    ----------
    network
        In any mode; it is left in evaluation mode.
    cases
        Validation cases; this process takes every `rank.n_ranks`-th.
    recipe
        Shape of the windows, overlap, blend.
    n_classes
        Background included.
    rank
        This process; all processes return the same.
    amp
        Precision of the passes.

    Returns
    -------
    list[float | None]
        0 to 1; None for a class that no case has.
    """
    network.eval()
    inferer = SlidingWindowInferer(
        recipe.crop.size, 1, recipe.validation.overlap, recipe.validation.blend
    )
    sums = torch.zeros(2, n_classes, dtype=torch.float64)
    for index in range(rank.index, len(cases), rank.n_ranks):
        sample = cases[index]
        image = sample["image"][None].to(rank.device)
        with torch.inference_mode(), amp:
            logits = inferer(image, network)
        found = torch.as_tensor(logits)[0].argmax(0).cpu()
        sums += torch.stack(dice(found, sample["label"][0].long(), n_classes))
    total, n = rank.sum(sums).unbind()
    return mean_of(total[1:].tolist(), n[1:].tolist())


def dice(
    found: torch.Tensor, truth: torch.Tensor, n_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dice 2 |A ∩ B| / (|A| + |B|) of each class, and whether the truth has it.

    Parameters
    ----------
    found, truth
        Labels of one shape, int64, below `n_classes`.

    Returns
    -------
    tuple[Tensor, Tensor]
        (n_classes,) float64 each: Dice, 0 where the truth has no voxel; 1 where it has one.
    """
    n_true = torch.bincount(truth.flatten(), minlength=n_classes).double()
    n_found = torch.bincount(found.flatten(), minlength=n_classes).double()
    n_both = torch.bincount(truth[found == truth], minlength=n_classes).double()
    is_there = (n_true > 0).double()
    return is_there * 2 * n_both / (n_true + n_found).clamp(min=1), is_there


def mean_of(totals: Sequence[float], counts: Sequence[float]) -> list[float | None]:
    """Mean of each class; None where nothing was counted."""
    return [a / n if n else None for a, n in zip(totals, counts, strict=True)]
