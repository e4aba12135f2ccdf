"""RISE against its definition, and its memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from voxplain.attribution import ClassTarget, Everywhere, Mask, Rise, explain
from voxplain.attribution.ask import ask
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import wrap
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Mirrored, Pooled, Shortcut, SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
GRID = oblique_grid((5, 9, 13))
WINDOW = WindowSettings((4, 5, 6), overlap=0.25, blend="gaussian")


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("views", [False, True])
def test_the_definition(score: str, views: bool) -> None:
    """Σ T(x⊙M + b⊙(1−M))·M / (N·p), every masked image predicted on its own."""
    nets = [SmallNet(3, n_channels=2, seed=1), SmallNet(3, n_channels=2, seed=2)]
    model = (
        Mirrored(nets, axes=(0, 2), n_channels=2, window=WINDOW)
        if views
        else describe(nets[0], n_channels=2, window=WINDOW)
    )
    image = volume(GRID, 2, seed=3)
    targets = [
        ClassTarget("class_1", Everywhere(), score=score),  # type: ignore[arg-type]
        ClassTarget("class_2", Mask(labels(GRID, 2), "organ_2"), score=score),  # type: ignore[arg-type]
    ]
    method = Rise(n=20, grid=3, keep=0.4)
    result = explain(model, image, targets, method, compute=DOUBLE)
    wanted = np.zeros((2, *GRID.shape))
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, targets, None, seed=0)
        for i in range(20):
            mask = method.mask(question, i, GRID.shape).numpy().astype(float)
            assert mask.min() >= 0
            assert mask.max() <= 1
            shown = pipeline._padded.clone()
            shown[(slice(None), *pipeline.plan.inner().slices)] *= torch.from_numpy(mask)
            values = question.values(lambda box, x=shown: x[(slice(None), *box.slices)])
            wanted += np.multiply.outer(values, mask) / (20 * 0.4)
    for t, target in enumerate(targets):
        np.testing.assert_allclose(result[target.name].values[0], wanted[t], rtol=1e-9, atol=1e-9)


def test_masks_show_the_asked_share_and_differ() -> None:
    grid = oblique_grid((24, 30), (0.7, 1.1))
    image = volume(grid, 1, seed=2)
    with open_pipeline(describe(SmallNet(2), rank=2, window=grid.shape), image, DOUBLE) as p:
        question = ask(p, image, [ClassTarget("class_1", Everywhere())], None, seed=0)
        method = Rise(grid=5, keep=0.3)
        masks = np.stack([method.mask(question, i, grid.shape).numpy() for i in range(600)])
    # each voxel is shown with probability `keep`, wherever it lies
    assert np.abs(masks.mean(0) - 0.3).max() < 0.1
    assert masks.mean() == pytest.approx(0.3, abs=0.01)
    assert np.abs(masks[0] - masks[1]).max() > 0.5
    assert ((masks == 0) | (masks == 1)).mean() < 0.9  # smooth


def test_it_finds_the_one_pixel_that_matters() -> None:
    grid = oblique_grid((9, 11), (0.7, 1.1))
    data = np.ones((1, *grid.shape), np.float32)
    model = describe(Shortcut([0.0, 1.0, 0.0]), rank=2, window=grid.shape)
    target = ClassTarget("class_1", Everywhere())
    result = explain(model, Volume(data, grid), target, Rise(n=400, grid=4), compute=DOUBLE)
    found = result[target.name].values[0]
    assert np.unravel_index(found.argmax(), found.shape) == (8, 10)
    # a voxel far away: E[T] = keep · number of voxels
    assert found[0, 0] == pytest.approx(0.5 * grid.n_voxels, rel=0.2)


def test_the_same_whatever_the_batch_and_another_with_another_seed() -> None:
    grid = oblique_grid((9, 11), (0.7, 1.1))
    net = Pooled(SmallNet(2, seed=3))
    model = wrap(net, kind="classification", classes=("a", "b", "c"), channels=("x",), rank=2,
                 check=False)  # fmt: skip
    image = volume(grid, 1, seed=1)
    maps = [
        explain(model, image, "class:b", Rise(n=30), compute=Compute("cpu", "float64", n), seed=s)[
            "b"
        ].values
        for n, s in ((1, 0), (7, 0), (1, 1))
    ]
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-9)
    assert np.abs(maps[0] - maps[2]).max() > 1e-3 * np.abs(maps[0]).max()


def test_a_lesions_windows_alone_are_run() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[0, 0, 0] = True
    target = ClassTarget("class_1", Mask(LabelMap.of(mask, GRID)))
    image = volume(GRID, 1, seed=2)
    result = explain(
        describe(SmallNet(3), window=WINDOW), image, target, Rise(n=5), regions=labels(GRID)
    )
    assert result.provenance.cost.n_forward == 1 + 5


def test_settings_are_checked() -> None:
    for wrong, words in (({"n": 0}, "at least 1"), ({"keep": 1.0}, "between 0 and 1")):
        with pytest.raises(MethodError, match=words):
            Rise(**wrong)  # type: ignore[arg-type]


MEMORY = """
import resource
import numpy as np
from torch import nn
from voxplain.attribution import PRESETS, Rise, explain
from voxplain.models import wrap
from voxplain.space.volume import Volume
from voxplain.testing.phantoms import oblique_grid

net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                    nn.Flatten(), nn.Linear(4, 2))
model = wrap(net, kind="classification", classes=("a", "b"), channels=("x",), rank=2, check=False)
grid = oblique_grid((256, 256), (0.7, 1.1))
image = Volume(np.random.default_rng(0).normal(size=(1, 256, 256)).astype(np.float32), grid)
explain(model, image, "class:b", Rise(n=2))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
explain(model, image, "class:b", PRESETS["coin-rise"])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_six_thousand_masks_are_never_all_held() -> None:
    """6000 masks of 256² in float32 are 1.6 GB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 300  # MiB above what the program itself needs
