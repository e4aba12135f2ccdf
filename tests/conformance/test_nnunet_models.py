"""Every kind of nnU-Net is a model like every other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxplain.models import Model, load_model
from voxplain.space import Grid, Volume
from voxplain.testing.conformance import check_model
from voxplain.testing.nnunet import REGIONS, write_results
from voxplain.testing.phantoms import oblique_grid

pytest.importorskip("nnunetv2")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"name": "2d", "patch": (10, 12), "spacing": (1.2, 1.0)},
        {"spacing": (5.0, 1.0, 1.0)},
        {"labels": REGIONS},
        {"transpose": (2, 0, 1), "reader": "NibabelIOWithReorient"},
        {"n_folds": 2, "channels": ("a", "b"), "mirror_axes": (1,)},
    ],
)
def test_volumes(settings: dict[str, Any], tmp_path: Path) -> None:
    model = load_model(write_results(tmp_path, **settings))
    assert isinstance(model, Model)
    shape = (17, 13, 11)
    data = np.random.default_rng(0).normal(size=(len(model.info.channel_names), *shape))
    check_model(model, Volume(data.astype(np.float32), oblique_grid(shape)))


def test_pictures(tmp_path: Path) -> None:
    folder = write_results(
        tmp_path, name="2d", patch=(10, 12), spacing=(1.0, 1.0), reader="NaturalImage2DIO"
    )
    model = load_model(folder)
    assert isinstance(model, Model)
    data = np.random.default_rng(0).normal(size=(1, 19, 23)).astype(np.float32)
    check_model(model, Volume(data, Grid((19, 23), np.diag([0.8, 1.1, 1.0]))))
