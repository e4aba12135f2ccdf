"""Words of --methods from methods, and back."""

from __future__ import annotations

import pytest

from voxplain.assess.method_words import text_of
from voxplain.attribution import IntegratedGradients, Shapley, SmoothGrad
from voxplain.attribution.baselines import Blurred, Constant, GivenImage, MeanImage
from voxplain.attribution.fills import Inpainted, NoiseFill
from voxplain.attribution.method import Method
from voxplain.attribution.methods import METHODS, PRESETS
from voxplain.attribution.words import methods_of
from voxplain.testing.phantoms import oblique_grid, volume


def back(text: str | None) -> Method:
    assert text is not None
    (method,) = methods_of([text], "--methods").values()
    return method


@pytest.mark.parametrize("name", METHODS)
def test_a_method_as_it_is_has_its_name(name: str) -> None:
    assert text_of("any", METHODS[name]()) == name


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_their_name_and_can_be_written_out(name: str) -> None:
    assert text_of(name, PRESETS[name]) == name
    assert back(text_of("another label", PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize(
    "baseline", [Constant(-1.5), MeanImage(), Blurred(4.0), NoiseFill(0.5), Inpainted(3.0)]
)
def test_fills(baseline) -> None:
    assert back(text_of("x", Shapley(fill=baseline))) == Shapley(fill=baseline)


def test_settings() -> None:
    assert text_of("x", SmoothGrad(n=3)) == "smoothgrad:n=3"
    game = Shapley("cubes:64", samples=20, tolerance=0.125, interactions=True)
    assert back(text_of("x", game)) == game


def test_an_image_has_no_words() -> None:
    given = IntegratedGradients(baseline=GivenImage(volume(oblique_grid((3, 3, 3)))))
    assert text_of("x", given) is None
