"""Class activation maps of mirrored views lie where the image does, also of slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxplain.assess.flipped_model import FlippedModel
from voxplain.attribution import ClassTarget, Everywhere, GradCam, LayerCam, explain
from voxplain.inference.compute import Compute
from voxplain.models import load_model
from voxplain.models.model import Model
from voxplain.testing.nnunet import write_results
from voxplain.testing.phantoms import oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
TARGET = ClassTarget("liver", Everywhere())
KINDS: dict[str, tuple[dict[str, Any], int, int]] = {
    "slices": ({"name": "2d", "patch": (10, 12), "spacing": (1.2, 1.0)}, 0, 1),
    "volumes": ({"patch": (6, 10, 12), "spacing": (2.0, 1.2, 1.0)}, 2, 2),
}


@pytest.mark.parametrize("method", [GradCam(), LayerCam()], ids=lambda m: m.name)
@pytest.mark.parametrize("kind", KINDS)
def test_two_views_are_the_mean_of_each(tmp_path: Path, kind: str, method: Any) -> None:
    pytest.importorskip("nnunetv2")
    settings, axis, window_axis = KINDS[kind]
    folder = write_results(tmp_path, mirror_axes=(axis,), **settings)
    both, plain = load_model(folder), load_model(folder, mirroring=False)
    assert isinstance(both, Model)
    assert isinstance(plain, Model)
    assert [both.flips(view) for view in range(2)] == [(), (window_axis,)]
    image = volume(oblique_grid((12, 11, 5), (1.0, 1.2, 2.0)), 1, seed=2)

    def cam(model: Model) -> Any:
        return explain(model, image, TARGET, method, compute=DOUBLE)[TARGET.name].values

    apart = [cam(plain), cam(FlippedModel(plain, window_axis))]
    assert not np.allclose(*apart)
    np.testing.assert_allclose(cam(both), np.mean(apart, axis=0), atol=1e-10)
