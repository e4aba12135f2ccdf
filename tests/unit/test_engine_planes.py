"""Small pictures of a case: through what is predicted, upright, with the labels there."""

from __future__ import annotations

import numpy as np

from voxplain.engine.planes import planes_of
from voxplain.space import Grid, LabelMap, Volume

GRID = Grid((5, 7, 11), np.eye(4))


def test_planes_run_through_what_is_predicted() -> None:
    data = np.random.default_rng(0).normal(size=(1, *GRID.shape)).astype(np.float32)
    layer = np.zeros(GRID.shape, np.uint8)
    layer[4, 6, 10] = 7
    prediction = LabelMap(layer[None], GRID, {3: "absent", 7: "spot"})
    found = planes_of(Volume(data, GRID), prediction)
    assert found["names"].tolist() == ["background", "absent", "spot"]
    for name, shape in (("axial", (7, 5)), ("coronal", (11, 5)), ("sagittal", (11, 7))):
        labels = found[f"{name}:labels"]
        assert labels.shape == found[f"{name}:image"].shape == shape
        # the spot is at the patient's right, front and top: left and up in the picture
        assert np.argwhere(labels == 2).tolist() == [[0, 0]]
        assert found[f"{name}:image"].dtype == np.uint8


def test_a_picture_without_a_prediction() -> None:
    flat = Grid((4, 6), np.eye(3))
    data = np.arange(24.0, dtype=np.float32).reshape(1, 4, 6)
    found = planes_of(Volume(data, flat), None)
    assert set(found) == {"picture:image"}
    shown = found["picture:image"]
    assert shown[0, 0] == 0
    assert shown[-1, -1] == 255
    assert (np.diff(shown.astype(int).ravel()) >= 0).all()


def test_a_constant_image_is_black() -> None:
    flat = Grid((4, 6), np.eye(3))
    assert not planes_of(Volume(np.full((1, 4, 6), 3.0), flat), None)["picture:image"].any()
