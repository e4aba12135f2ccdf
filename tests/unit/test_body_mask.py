"""Where the body is, and whether a map lies in it."""

from __future__ import annotations

import numpy as np
import pytest

from voxplain.assess.energy_in_body import energy_in_body
from voxplain.attribution import ClassTarget, Everywhere, Gradient, explain
from voxplain.inference.compute import Compute
from voxplain.models import wrap
from voxplain.regions.tissue import body_mask
from voxplain.space.volume import Volume
from voxplain.testing.models import Shortcut
from voxplain.testing.phantoms import oblique_grid

GRID = oblique_grid((12, 13, 14))
BODY = (slice(2, 10), slice(3, 11), slice(0, 14))  # open at both ends, as in a CT


def image(noise: float = 0.05) -> Volume:
    rng = np.random.default_rng(0)
    data = rng.normal(0.0, noise, (1, *GRID.shape))
    data[0][BODY] += 1.0
    return Volume(data, GRID)


def test_a_body_is_told_from_the_air() -> None:
    found = body_mask(image())
    assert found is not None
    wanted = np.zeros(GRID.shape, bool)
    wanted[BODY] = True
    assert (found.mask("tissue") == wanted).mean() > 0.999


def test_lungs_belong_to_the_body_and_air_beside_it_does_not() -> None:
    with_lung = image()
    with_lung.data[0][5:8, 5:9, 4:14] -= 1.0  # open at the last plane, closed within each
    with_lung.data[0][2:4, 6, 3] -= 1.0  # a groove in the skin
    found = body_mask(with_lung)
    assert found is not None
    body = found.mask("tissue")
    assert body[5:8, 5:9, 4:14].all()
    assert not body[2, 6, 3]
    assert not body[0].any()


def test_a_large_image_is_told_from_few_voxels() -> None:
    grid = oblique_grid((90, 91, 92))
    rng = np.random.default_rng(1)
    data = rng.normal(0.0, 0.05, (1, *grid.shape))
    data[0, 20:70, 20:70] += 1.0
    found = body_mask(Volume(data, grid))
    assert found is not None
    assert found.mask("tissue").sum() == pytest.approx(50 * 50 * 92, rel=1e-3)


@pytest.mark.parametrize("kind", ["noise", "flat", "picture"])
def test_without_air_nothing_is_told(kind: str) -> None:
    rng = np.random.default_rng(2)
    images = {
        "noise": Volume(rng.normal(size=(1, *GRID.shape)), GRID),
        "flat": Volume(np.ones((1, *GRID.shape)), GRID),
        "picture": Volume(rng.normal(size=(1, 9, 8)), oblique_grid((9, 8), (1.0, 1.0))),
    }
    assert body_mask(images[kind]) is None


def test_energy() -> None:
    body = np.zeros((4, 5), bool)
    body[:2] = True
    scores = np.zeros((4, 5))
    scores[1, 2], scores[3, 3] = 3.0, 1.0
    assert energy_in_body(scores, body).value == 0.75
    assert np.isnan(energy_in_body(scores * 0, body).value)
    assert energy_in_body(np.ones((4, 5)), body).value == 0.5


def test_explain_tells_of_a_map_outside_of_the_body() -> None:
    """The network looks at the last corner of each window alone, which lies in the air."""
    model = wrap(
        Shortcut([0.5, 1.0]), classes=["background", "organ"], channels=["x"], window=GRID.shape,
        check=False,
    )  # fmt: skip
    targets = [ClassTarget("organ", Everywhere()), ClassTarget("background", Everywhere())]
    result = explain(model, image(), targets, Gradient(), compute=Compute("cpu", "float64"))
    told = [(one.code, one.target) for one in result.findings]
    assert told == [("VX204", "organ@everywhere")]
    assert "0.0% of the map lies in the body" in result.findings[0].evidence
