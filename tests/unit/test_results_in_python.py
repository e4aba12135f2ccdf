"""Results show themselves in a notebook and turn into the types that people work with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import voxplain
from voxplain.space.grid import Grid
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import SmallNet
from voxplain.testing.phantoms import labels, oblique_grid, volume


@pytest.fixture
def explanation() -> voxplain.Explanation:
    model = voxplain.wrap(
        SmallNet(3, n_channels=1, n_classes=2, seed=0),
        classes=("background", "spot<b>"),
        channels=("ct",),
        window=WindowSettings((4, 5, 6)),
    )
    return voxplain.explain(model, volume(oblique_grid((5, 7, 11))), method="gradient")


def test_a_notebook_shows_planes_and_table(explanation: voxplain.Explanation) -> None:
    html = explanation._repr_html_()
    assert html is not None
    assert "<img" in html
    assert "<table" in html
    assert "spot&lt;b&gt;" in html
    assert "spot<b>" not in html
    alone = explanation["background"]._repr_html_()
    assert alone is not None
    assert "<img" in alone


def test_the_image_has_the_names_of_the_models_channels(explanation: voxplain.Explanation) -> None:
    assert explanation.image.channels == ("ct",)
    assert set(explanation.table.frame["channel"]) == {"ct"}


def test_metatensors_have_values_and_place(explanation: voxplain.Explanation) -> None:
    for result, values in (
        (explanation["background"], explanation["background"].values),
        (explanation.image, explanation.image.data),
        (labels(oblique_grid((5, 7, 11))), labels(oblique_grid((5, 7, 11))).layers),
    ):
        tensor = voxplain.to_metatensor(result)
        assert isinstance(tensor, MetaTensor)
        np.testing.assert_array_equal(tensor.numpy(), values)
        np.testing.assert_array_equal(tensor.affine.numpy(), result.grid.affine)
        tensor += 1  # a copy: the result does not move
        assert not np.array_equal(tensor.numpy(), values)


def test_a_plane_gets_a_complete_affine() -> None:
    affine = np.array([[0.0, 2.0, 5.0], [-3.0, 0.0, 6.0], [0.0, 0.0, 1.0]])
    tensor = voxplain.to_metatensor(volume(Grid((5, 7), affine)))
    wanted = torch.tensor([[0.0, 2, 0, 5], [-3, 0, 0, 6], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert torch.equal(tensor.affine, wanted.double())
