"""Draws of training slices and their augmentation: the same whatever else happens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.transform import AffineTransform, warp

from voxplain.counterfactual.augmentation import augmented
from voxplain.counterfactual.config import AugmentationConfig, BlobConfig
from voxplain.counterfactual.draws import Draws
from voxplain.counterfactual.slices import Slices, read_slices
from voxplain.errors import TrainingError

CPU = torch.device("cpu")
SIZE = (24, 30)
STILL = {"flip_lr": 0, "flip_ud": 0, "move": 0, "noise": 0, "blur_px": 0, "gain": 0}


def some_slices(labels=(0,) * 12, room=(True, False, True)):
    n = len(labels)
    # the value of a constant slice tells its number
    values = np.linspace(-0.9, -0.5, n).astype(np.float32)
    images = np.broadcast_to(values[:, None, None, None], (n, 1, *SIZE)).copy()
    organ = np.zeros((n, *SIZE), np.bool_)
    for i in range(n):
        organ[i, 8:14, 9 : 15 if room[i % len(room)] else 11] = True
    flat = np.ones((n, *SIZE), np.bool_)
    table = pd.DataFrame({"case": "a", "patient": 0, "plane": "axial", "index": range(n)})
    return Slices(images, np.array(labels, np.int8), ~flat, organ, flat, table)


def number_of(batch):
    values = np.linspace(-0.9, -0.5, 12)
    corner = batch.images[:, 0, 0, -1].numpy()
    return np.abs(corner[:, None] - values).argmin(1)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# -- draws ----------------------------------------------------------------------------
def test_normal_first_then_fresh_anomalies_where_there_is_room():
    draws = Draws(some_slices(), BlobConfig(), 0, CPU)
    batch = draws.batch("generator", 4, 20, 30)
    assert batch.images.shape == batch.organ.shape == (50, 1, *SIZE)
    assert batch.images.dtype == batch.labels.dtype == batch.organ.dtype == torch.float32
    assert batch.labels.tolist() == [0] * 20 + [1] * 30
    spread = batch.images.amax((1, 2, 3)) - batch.images.amin((1, 2, 3))
    assert (spread[:20] == 0).all()
    # at least 2·0.35 is added to less than 1 − 2·0.35
    assert (spread[20:] > 2 * 0.35 - 1e-6).all()
    assert set(number_of(batch)[20:] % 3) == {0, 2}
    assert set(number_of(batch)[:20] % 3) == {0, 1, 2}
    assert set(batch.organ.unique().tolist()) == {0, 1}
    assert (batch.organ.sum((1, 2, 3))[20:] == 36).all()


def test_by_label_without_anomalies():
    labels = [0, 1, 0] * 4
    slices = some_slices(labels)
    batch = Draws(slices, None, 0, CPU).batch("classifier", 0, 9, 14)
    assert batch.labels.tolist() == [0] * 9 + [1] * 14
    assert [labels[i] for i in number_of(batch)] == batch.labels.tolist()
    assert len(set(number_of(batch))) > 4
    assert torch.equal(batch.images[:, 0, 3, 3], batch.images[:, 0, -1, -1])


@pytest.mark.parametrize("blobs", [BlobConfig(), None])
def test_a_batch_does_not_depend_on_history_or_size(blobs):
    slices = some_slices() if blobs else some_slices([0, 1, 0] * 4)
    first, second = Draws(slices, blobs, 7, CPU), Draws(slices, blobs, 7, CPU)
    for step in range(3):
        second.batch("generator", step, 3, 2)
        second.mixed("generator", step, 4)
    one, two = first.batch("generator", 5, 4, 4), second.batch("generator", 5, 4, 4)
    assert same(one, two)
    few = first.batch("generator", 5, 2, 3)
    assert torch.equal(few.images[:2], one.images[:2])
    assert torch.equal(few.images[2:], one.images[4:7])
    assert same(first.mixed("x", 1, 6), second.mixed("x", 1, 6))
    assert torch.equal(first.mixed("x", 1, 3).images, first.mixed("x", 1, 6).images[:3])


def test_stream_step_and_seed_give_others():
    slices = some_slices()
    base = Draws(slices, BlobConfig(), 0, CPU)
    one = base.batch("a", 0, 4, 4)
    assert not same(one, base.batch("b", 0, 4, 4))
    assert not same(one, base.batch("a", 1, 4, 4))
    assert not same(one, Draws(slices, BlobConfig(), 1, CPU).batch("a", 0, 4, 4))


def test_mixed_is_as_often_abnormal_as_the_data():
    n = 900
    by_label = Draws(some_slices([0, 1, 0] * 4), None, 0, CPU).mixed("a", 0, n).labels
    assert abs(by_label.mean().item() - 1 / 3) < 4 * np.sqrt(2 / 9 / n)
    share = 0.5 * 2 / 3  # probability of an anomaly, share with room
    fresh = Draws(some_slices(), BlobConfig(), 0, CPU).mixed("a", 0, n)
    assert abs(fresh.labels.mean().item() - share) < 4 * np.sqrt(share * (1 - share) / n)
    spread = fresh.images.amax((1, 2, 3)) - fresh.images.amin((1, 2, 3))
    assert torch.equal(spread > 0, fresh.labels == 1)


def test_from_disk_as_from_memory(tmp_path):
    slices = some_slices()
    slices.write(tmp_path / "slices")
    stored = read_slices(tmp_path / "slices")
    assert isinstance(stored.images, np.memmap)
    one = Draws(stored, BlobConfig(), 0, CPU).batch("a", 0, 3, 5)
    assert same(one, Draws(slices, BlobConfig(), 0, CPU).batch("a", 0, 3, 5))


def test_none_to_draw_is_said_at_once():
    with pytest.raises(TrainingError, match=r"no normal one among 3.*abnormal\.min_pixels"):
        Draws(some_slices([1, 1, 1]), None, 0, CPU)
    with pytest.raises(TrainingError, match=r"no abnormal one among 3.*abnormal\.labels"):
        Draws(some_slices([0, 0, 0]), None, 0, CPU)
    with pytest.raises(TrainingError, match=r"none of 12 slices.*37 pixels.*min_organ_px"):
        Draws(some_slices(), BlobConfig(min_organ_px=37), 0, CPU)
    with pytest.raises(TrainingError, match="1 of 3 are abnormal already"):
        Draws(some_slices([0, 1, 0]), BlobConfig(), 0, CPU)
    with pytest.raises(TrainingError, match="there are none"):
        Draws(some_slices().at(np.arange(0)), None, 0, CPU)


# -- augmentation ---------------------------------------------------------------------
def noise(n=6, seed=0):
    values = np.random.default_rng(seed).uniform(-1, 1, (n, 1, *SIZE))
    return gaussian_filter(values, (0, 0, 1, 1)).astype(np.float32)


def rng(*key):
    return np.random.default_rng([9, *key])


def test_nothing_asked_nothing_done():
    images = noise()
    result = augmented(images, AugmentationConfig(**STILL), rng())
    assert np.array_equal(result, images)
    assert result is not images


def test_mirrors():
    images = noise()
    right = augmented(images, AugmentationConfig(**(STILL | {"flip_lr": 1})), rng())
    assert np.array_equal(right, images[..., ::-1])
    down = augmented(images, AugmentationConfig(**(STILL | {"flip_ud": 1})), rng())
    assert np.array_equal(down, images[..., ::-1, :])


def test_the_lowest_moves_in():
    images = np.ones((40, 1, *SIZE), np.float32)
    config = AugmentationConfig(**(STILL | {"move": 1}), shift=0.3, scale=0, rotate_degrees=0)
    result = augmented(images, config, rng())
    assert set(np.unique(result)) == {-1, 1}
    assert not np.isclose(result, 0).any()
    n_rows = (result == -1).all((1, 3)).sum(1)
    assert n_rows.max() <= np.ceil(0.3 * SIZE[0])
    assert n_rows.max() > 3


def test_a_move_is_that_of_scikit_image():
    images = noise(8)
    config = AugmentationConfig(
        **(STILL | {"move": 1}), shift=0.2, scale=0.3, rotate_degrees=40
    )  # fmt: skip
    result = augmented(images, config, rng(1))
    for i, child in enumerate(rng(1).spawn(8)):
        child.random(5)
        turn, zoom, down, right, _ = child.uniform(-1, 1, 5)
        middle = (np.array(SIZE) - 1)[::-1] / 2
        shift = np.array([0.2 * right * SIZE[1], 0.2 * down * SIZE[0]])
        # scikit-image has (x, y): rows towards columns is the other way round there
        move = (
            AffineTransform(translation=-middle)
            + AffineTransform(rotation=-np.deg2rad(40 * turn), scale=1 + 0.3 * zoom)
            + AffineTransform(translation=middle + shift)
        )
        known = warp(images[i, 0], move.inverse, order=1, cval=-1, preserve_range=True)
        # at the border scikit-image blends with what is outside, scipy does not
        covered = warp(np.ones(SIZE), move.inverse, order=1, cval=0)
        whole = (covered > 1 - 1e-9) | (covered == 0)
        assert whole.mean() > 0.7
        np.testing.assert_allclose(result[i, 0][whole], known[whole], atol=1e-5)


def test_contrast_noise_and_blur_as_said():
    images = np.full((400, 1, *SIZE), -0.2, np.float32)
    gained = augmented(images, AugmentationConfig(**(STILL | {"gain": 0.5})), rng(2))
    factor = (gained[:, 0, 0, 0] + 1) / 0.8
    assert (np.ptp(gained, axis=(1, 2, 3)) == 0).all()
    assert 0.5 <= factor.min() < 0.55
    assert 1.45 < factor.max() <= 1.5
    noisy = augmented(images, AugmentationConfig(**(STILL | {"noise": 0.1})), rng(3))
    spread = noisy.std((1, 2, 3))
    assert spread.max() < 0.11
    assert spread.mean() == pytest.approx(0.05, rel=0.15)
    assert noisy.mean() == pytest.approx(-0.2, abs=1e-3)
    blurred = augmented(images, AugmentationConfig(**(STILL | {"blur_px": 2})), rng(4))
    np.testing.assert_allclose(blurred, images, atol=1e-6)


def test_what_leaves_the_range_is_clipped():
    bright = augmented(np.ones((9, 1, *SIZE), np.float32), AugmentationConfig(noise=0.5), rng(5))
    assert bright.min() >= -1
    assert bright.max() == 1


def test_an_item_does_not_depend_on_how_many_there_are():
    images, config = noise(6), AugmentationConfig(flip_ud=0.5)
    every = augmented(images, config, rng(6))
    few = augmented(images[:2], config, rng(6))
    assert np.array_equal(few, every[:2])
    assert not np.array_equal(every, images)
    assert not np.array_equal(augmented(images, config, rng(7)), every)


def test_a_tensor_gives_a_tensor_of_the_same_values():
    images = noise()
    before = torch.from_numpy(images.copy())
    result = augmented(torch.from_numpy(images), AugmentationConfig(), rng(8))
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float32
    assert np.array_equal(result.numpy(), augmented(images, AugmentationConfig(), rng(8)))
    assert torch.equal(torch.from_numpy(images), before)
