"""A network trained on lesions that only FLAIR shows: its saliency lies in FLAIR."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from voxplain.attribution import GradientMax, SmoothGrad
from voxplain.lesions.explain import explain_lesions
from voxplain.models import wrap
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings

SHAPE = (20, 22, 24)


def patient(seed: int, shown: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Tissue of its own in each channel; lesions, in those of `shown` alone, 2 brighter."""
    rng = np.random.default_rng(seed)
    tissue = np.stack([gaussian_filter(rng.normal(size=SHAPE), 2.5) for _ in range(2)])
    data = tissue / tissue.std() * 0.5 + rng.normal(0, 0.2, (2, *SHAPE))
    truth = np.zeros(SHAPE, bool)
    place = np.indices(SHAPE).reshape(3, -1).T
    for _ in range(4):
        centre = [rng.uniform(3, n - 3) for n in SHAPE]
        distance = np.sqrt(((place - centre) ** 2).sum(1)).reshape(SHAPE)
        truth |= distance < rng.uniform(1.5, 2.8)
    data[list(shown)] += 2.0 * truth
    return data.astype(np.float32), truth


def trained(shown: tuple[int, ...]) -> nn.Module:
    """A small network after a few hundred steps."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(2, 12, 3, padding=1), nn.LeakyReLU(0.1),
        nn.Conv3d(12, 12, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv3d(12, 2, 1),
    )  # fmt: skip
    # plain descent with decay: what does not help goes to zero (Adam keeps it at its step's size)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1.5e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
    for step in range(300):
        cases = [patient(1000 + 2 * step + i, shown) for i in range(2)]
        images = torch.from_numpy(np.stack([one for one, _ in cases]))
        labels = torch.from_numpy(np.stack([one for _, one in cases])).long()
        loss = nn.functional.cross_entropy(network(images), labels, torch.tensor([1.0, 6.0]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network


@pytest.mark.parametrize("shown", [(0,), (1,)])
def test_the_share_lies_in_the_channel_that_shows_the_lesions(shown: tuple[int, ...]) -> None:
    model = wrap(
        trained(shown), classes=("background", "lesion"), channels=("flair", "mprage"),
        window=WindowSettings((16, 16, 16), overlap=0.5), activation="softmax", check=False,
    )  # fmt: skip
    methods = {"average": SmoothGrad(n=2, noise=0.05), "max": GradientMax()}
    n_found = 0
    for seed in (1, 2):
        data, truth = patient(seed, shown)
        grid = Grid(SHAPE, np.diag([1.0, 1.0, 1.2, 1.0]))
        result = explain_lesions(
            model, Volume(data, grid, ("flair", "mprage"), str(seed)), methods,
            truth=LabelMap.of(truth, grid),
        )  # fmt: skip
        n_found += int((result.instances["type"] == "TP").sum())
        name = ("flair", "mprage")[shown[0]]
        shares = result.saliency[result.saliency["channel"] == name].groupby("method")["share"]
        assert shares.median().min() >= 0.9, shares.median()
    assert n_found >= 4
