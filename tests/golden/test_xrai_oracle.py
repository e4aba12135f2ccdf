"""The authors' program (PAIR saliency) gives the same segments and the same maps in 2D."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from saliency.core import xrai
from scipy.ndimage import gaussian_filter

from voxplain.attribution import ClassTarget, explain
from voxplain.attribution.xrai import XRAI
from voxplain.inference.compute import Compute
from voxplain.models import wrap
from voxplain.regions.segments import most_telling_first, multi_scale
from voxplain.space.volume import Volume
from voxplain.testing.models import Pooled, SmallNet
from voxplain.testing.phantoms import oblique_grid

SHAPES = [(71, 58), (40, 250)]


def picture(shape: tuple[int, int], n_channels: int, seed: int) -> NDArray[np.float64]:
    """Blobs on a slope, (n_channels, *shape)."""
    rng = np.random.default_rng(seed)
    slope = np.add.outer(np.linspace(0, 1, shape[0]), np.linspace(0, 2, shape[1]))
    blobs = [gaussian_filter(rng.normal(size=shape), 4) > 0.03 for _ in range(n_channels)]
    noise = rng.normal(0, 0.05, (n_channels, *shape))
    return np.asarray(30 * np.stack(blobs) + 10 * slope + noise)


def last(channels_first: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(channels_first, 0, -1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_segments_and_the_same_attribution(shape: tuple[int, int], n_channels: int) -> None:
    x = picture(shape, n_channels, seed=1)
    masks = [m for m in xrai._get_segments_felzenszwalb(last(x)) if m.any()]
    segments = multi_scale(2 * (x - x.min()) / np.ptp(x) - 1, (1.0, 3.0))
    assert len(segments) == len(masks) > 12
    np.testing.assert_array_equal(segments.members.toarray().reshape(-1, *shape) > 0, masks)
    rng = np.random.default_rng(3)
    a = np.stack([gaussian_filter(rng.normal(size=shape), 2) for _ in range(n_channels)])
    for area in (1.0, 0.25):
        settings = xrai.XRAIParameters(area_threshold=area)
        wanted = xrai.XRAI().GetMask(
            last(x), None, segments=masks, base_attribution=last(a), extra_parameters=settings
        )
        found = most_telling_first(segments, a.max(0), area, least=50)
        assert len(np.unique(wanted)) > 4
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("n_channels", [1, 3])
def test_a_classifier_from_end_to_end(n_channels: int) -> None:
    shape, n = (48, 61), 7
    x = picture(shape, n_channels, seed=4)
    net = Pooled(SmallNet(2, n_channels, 3, seed=6))
    names = [f"channel_{c}" for c in range(n_channels)]
    model = wrap(net, classes=["a", "b", "c"], channels=names, kind="classification", rank=2,
                 check=False)  # fmt: skip
    image = Volume(x, oblique_grid(shape, (0.7, 1.1)))
    found = explain(
        model, image, ClassTarget("b"), XRAI(n=n, rule="agg2exp", extremes="image"),
        compute=Compute("cpu", precision="float64"),
    )["b"].values  # fmt: skip
    net.double()

    def call(batch: NDArray[Any], call_model_args: Any, expected_keys: Any) -> dict[str, Any]:
        leaf = torch.from_numpy(np.moveaxis(batch, -1, 1)).requires_grad_()
        (gradient,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
        return {expected_keys[0]: np.moveaxis(gradient.numpy(), 1, -1)}

    wanted = xrai.XRAI().GetMask(
        last(x), call, extra_parameters=xrai.XRAIParameters(steps=n), batch_size=n
    )
    assert len(np.unique(wanted)) > 4
    # the program sums gradients in float32
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
