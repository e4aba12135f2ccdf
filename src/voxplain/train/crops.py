"""Random crops, each drawn from its own seed: the same however often a training is resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandCropByLabelClassesd,
    RandRotate90d,
    RandShiftIntensityd,
    RandZoomd,
)
from torch.utils.data import Dataset, Sampler

from voxplain.train.cases import Prepared
from voxplain.train.recipe import AugmentationRecipe, CropRecipe, Recipe

_BOTH = ("image", "label")


class Draw(NamedTuple):
    """One crop of a training: of which epoch and case, and the how many-th of it."""

    epoch: int
    case: int
    crop: int


class Crops(Dataset[dict[str, torch.Tensor]]):
    """Crops of prepared cases; a `Draw` gives the same crop whenever and wherever it is asked for.

    Parameters
    ----------
    cases
        Training cases.
    recipe
        Crop, augmentation and seed.
    n_classes
        Background included.
    """

    def __init__(self, cases: Prepared, recipe: Recipe, n_classes: int) -> None:
        self.cases = cases
        self.n_classes = n_classes
        self.seed = recipe.seed
        self.transform = Compose([_crop(recipe.crop, n_classes), *_changes(recipe.augmentation)])

    def counts(self) -> list[int]:
        """Count the voxels of each class in all cases."""
        each = (self.cases[i]["label"].flatten().long() for i in range(len(self.cases)))
        total = sum(torch.bincount(labels, minlength=self.n_classes) for labels in each)
        return [int(n) for n in torch.as_tensor(total)]

    def __getitem__(self, draw: Draw) -> dict[str, torch.Tensor]:
        case = self.cases[draw.case]
        sample = {key: case[key] for key in (*_BOTH, "centres")}
        self.transform.set_random_state(seed=seed_of(self.seed, *draw))
        (changed,) = self.transform(sample)
        return {key: torch.as_tensor(changed[key]).as_subclass(torch.Tensor) for key in _BOTH}


class Order(Sampler[list[Draw]]):
    """Batches of one process in one epoch; all processes together take every crop once.

    Crops are shuffled by the seed and the epoch. The first ones come again to fill the last
    step, so that all processes have as many steps.

    Parameters
    ----------
    n_cases, per_case
        Cases, and crops of each.
    batch
        Crops in a step of one process.
    seed, rank, n_ranks
        Of the training; of the process.
    """

    def __init__(
        self, n_cases: int, per_case: int, batch: int, seed: int, rank: int = 0, n_ranks: int = 1
    ) -> None:
        self.shape = (n_cases, per_case)
        self.batch, self.rank, self.n_ranks = batch, rank, n_ranks
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(math.prod(self.shape) / (self.batch * self.n_ranks))

    def __iter__(self) -> Iterator[list[Draw]]:
        n = math.prod(self.shape)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(n)
        steps = np.resize(order, (len(self), self.n_ranks, self.batch))
        for step in steps[:, self.rank]:
            yield [Draw(self.epoch, *map(int, divmod(int(i), self.shape[1]))) for i in step]


def seed_of(*numbers: int) -> int:
    """Mix numbers into a seed of 32 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def collate(samples: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack crops to a batch."""
    return {key: torch.stack([sample[key] for sample in samples]) for key in _BOTH}


def _crop(recipe: CropRecipe, n_classes: int) -> RandCropByLabelClassesd:
    n_parts = 1 if recipe.centre == "voxel" else n_classes - 1
    ratios = [1 - recipe.foreground, *[recipe.foreground / n_parts] * n_parts]
    return RandCropByLabelClassesd(
        list(_BOTH), "label", recipe.size, ratios, indices_key="centres", warn=False
    )


def _changes(recipe: AugmentationRecipe) -> list[Any]:
    """Augmentations that can happen at all."""
    low, high = recipe.zoom_range
    zoom = RandZoomd(
        list(_BOTH), recipe.zoom, low, high, mode=("trilinear", "nearest"),
        align_corners=(True, None),
    )  # fmt: skip
    turn = RandRotate90d(list(_BOTH), recipe.rotate90, max_k=3, spatial_axes=(0, 1))
    shift = RandShiftIntensityd(["image"], recipe.shift_range, prob=recipe.shift)
    chances = {zoom: recipe.zoom, turn: recipe.rotate90, shift: recipe.shift}
    return [transform for transform, chance in chances.items() if chance > 0]
