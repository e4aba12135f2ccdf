from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from voxplain.train.crops import Crops, Draw, Order, collate, seed_of
from voxplain.train.recipe import AugmentationRecipe, CropRecipe, Recipe

SIZE = (6, 6, 4)
ALL = AugmentationRecipe(zoom=0.7, rotate90=0.7, shift=0.7)


class Cases(torch.utils.data.Dataset):
    """Two cases whose image says where it is and whose labels follow from the image."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        image = torch.arange(11 * 9 * 8, dtype=torch.float32).reshape(1, 11, 9, 8) + 1e4 * index
        label = torch.zeros(1, 11, 9, 8, dtype=torch.int16)
        label[0, 8:, 6:, 5:] = 1
        label[0, 0, 0, 0] = 2
        centres = [np.flatnonzero(label == c) for c in range(3)]
        return {"image": image, "label": label, "centres": centres}


def crops_of(change: AugmentationRecipe | None = None, seed: int = 0, **crop) -> Crops:
    recipe = Recipe(
        crop=CropRecipe(size=SIZE, centre="class", **crop),
        augmentation=change or AugmentationRecipe(), seed=seed,
    )  # fmt: skip
    return Crops(Cases(), recipe, 3)


@given(st.integers(0, 99), st.integers(0, 1), st.integers(0, 9))
def test_a_draw_is_the_same_whenever_it_is_made(epoch, case, crop):
    one, other = crops_of(ALL), crops_of(ALL)
    other[Draw(3, 1, 4)]  # whatever was drawn before
    first, second = one[Draw(epoch, case, crop)], other[Draw(epoch, case, crop)]
    assert all(torch.equal(first[key], second[key]) for key in ("image", "label"))
    assert type(first["image"]) is torch.Tensor
    assert first["image"].shape == first["label"].shape == (1, *SIZE)


def test_draws_differ_in_epoch_case_crop_and_seed():
    crops = crops_of(ALL)
    draws = [Draw(0, 0, 0), Draw(1, 0, 0), Draw(0, 1, 0), Draw(0, 0, 1), Draw(2, 0, 0)]
    images = [crops[draw]["image"] for draw in draws] + [crops_of(ALL, 1)[draws[0]]["image"]]
    assert not any(torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])
    assert len({seed_of(0, *draw) for draw in draws}) == 5


@pytest.mark.parametrize(("foreground", "n"), [(0.0, 0), (1.0, 300), (0.5, 150)])
def test_the_share_of_crops_around_a_class_is_what_was_asked(foreground, n):
    crops = crops_of(foreground=foreground)
    around = Counter()
    for i in range(300):
        label = crops[Draw(0, 0, i)]["label"]
        around[int(label[0, SIZE[0] // 2, SIZE[1] // 2, SIZE[2] // 2])] += 1
        around["single"] += bool((label == 2).any())
    # the lone voxel lies in a corner, where a crop cannot be centred, but is in the crop
    assert abs(around["single"] - n / 2) < 60 + 30 * (foreground < 1)
    if foreground == 1:
        assert around["single"] > 100


def test_image_and_labels_are_changed_together():
    crops = crops_of(AugmentationRecipe(rotate90=1.0), foreground=1.0)
    plain = Cases()[0]
    at = {
        float(v): int(c)
        for v, c in zip(plain["image"].flatten(), plain["label"].flatten(), strict=True)
    }
    for i in range(20):
        sample = crops[Draw(0, 0, i)]
        found = [at[float(v)] for v in sample["image"].flatten()]
        assert found == sample["label"].flatten().tolist()
    turned = crops[Draw(0, 0, 0)]["image"]
    assert not torch.equal(turned, crops_of(foreground=1.0)[Draw(0, 0, 0)]["image"])


def test_a_shift_adds_one_number_of_the_stated_size():
    plain, shifted = crops_of(), crops_of(AugmentationRecipe(shift=1.0, shift_range=0.5))
    added = [
        (shifted[Draw(0, 0, i)]["image"] - plain[Draw(0, 0, i)]["image"]).unique()
        for i in range(20)
    ]
    assert all(len(a) == 1 or float(a.max() - a.min()) < 1e-3 for a in added)
    sizes = [abs(float(a[0])) for a in added]
    assert 0.25 < max(sizes) <= 0.501


def test_a_zoom_magnifies_about_the_middle():
    crops = crops_of(AugmentationRecipe(zoom=1.0, zoom_range=(1.4, 1.4)), foreground=0.0)
    for i in range(5):
        zoomed, plain = crops[Draw(0, 0, i)], crops_of(foreground=0.0)[Draw(0, 0, i)]
        spread = [float(s["image"].max() - s["image"].min()) for s in (zoomed, plain)]
        assert 0.5 < spread[0] / spread[1] < 0.9
        assert set(zoomed["label"].unique().tolist()) <= {0, 1, 2}


@given(
    n_cases=st.integers(1, 7), per_case=st.integers(1, 4), batch=st.integers(1, 5),
    n_ranks=st.integers(1, 3), epoch=st.integers(0, 3),
)  # fmt: skip
def test_all_processes_together_take_every_crop(n_cases, per_case, batch, n_ranks, epoch):
    orders = [Order(n_cases, per_case, batch, 5, rank, n_ranks) for rank in range(n_ranks)]
    taken: Counter[Draw] = Counter()
    for order in orders:
        order.epoch = epoch
        steps = list(order)
        assert len(steps) == len(order) == len(orders[0])
        assert all(len(step) == batch for step in steps)
        taken.update(draw for step in steps for draw in step)
    assert set(taken) == {Draw(epoch, c, i) for c in range(n_cases) for i in range(per_case)}
    n = n_cases * per_case
    assert sum(taken.values()) - n < batch * n_ranks
    if n >= batch * n_ranks:
        assert max(taken.values()) <= 2


def test_every_epoch_has_its_own_order_and_the_same_again():
    order = Order(20, 1, 2, 0)
    first = list(order)
    assert first == list(order)
    order.epoch = 1
    assert [d.case for b in order for d in b] != [d.case for b in first for d in b]


def test_workers_change_nothing():
    batches = []
    for workers in (0, 2):
        loader = DataLoader(
            crops_of(ALL), batch_sampler=Order(2, 3, 2, 0), num_workers=workers, collate_fn=collate
        )
        batches.append(list(loader))
    for alone, worked in zip(*batches, strict=True):
        assert all(torch.equal(alone[key], worked[key]) for key in ("image", "label"))


def test_voxels_are_counted_over_all_cases():
    n_one = 3 * 3 * 3
    assert crops_of().counts() == [2 * (11 * 9 * 8 - n_one - 1), 2 * n_one, 2]
