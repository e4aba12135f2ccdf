from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import get_args

import pytest

from voxplain.attribution import (
    METHODS,
    PRESETS,
    Blurred,
    Constant,
    GivenImage,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    MeanImage,
    SmoothGrad,
    VarGrad,
    method_of,
)
from voxplain.attribution.baselines import Baseline
from voxplain.attribution.method import Method, settings_of
from voxplain.attribution.methods import baseline_of, describe_settings
from voxplain.errors import MethodError
from voxplain.records.attribution import Kind
from voxplain.testing.phantoms import volume


@pytest.mark.parametrize("name", METHODS)
def test_by_name(name: str) -> None:
    made = method_of(name)
    assert made == METHODS[name]()
    assert made.name == name
    assert made.kind in get_args(Kind)
    assert set(describe_settings(METHODS[name])) == {f.name for f in fields(made)}  # type: ignore[arg-type]
    assert method_of(made) is made


@pytest.mark.parametrize(
    ("name", "settings", "method"),
    [
        ("smoothgrad", {"n": "8", "noise": "0.2"}, SmoothGrad(n=8, noise=0.2)),
        ("smoothgrad", {"antithetic": "TRUE", "n": "4"}, SmoothGrad(n=4, antithetic=True)),
        ("smoothgrad", {"tolerance": "0.01"}, SmoothGrad(tolerance=0.01)),
        ("smoothgrad", {"tolerance": "none", "antithetic": "false"}, SmoothGrad()),
        ("vargrad", {"n": "3"}, VarGrad(n=3)),
        ("input_x_gradient", {"baseline": "0.5"}, InputXGradient(Constant(0.5))),
        (
            "integrated_gradients",
            {"rule": "midpoint", "baseline": "blur:10", "gap_tolerance": "1e-3", "max_n": "40"},
            IntegratedGradients(rule="midpoint", baseline=Blurred(10.0), gap_tolerance=1e-3,
                                max_n=40),
        ),
    ],
)  # fmt: skip
def test_settings_from_text(name: str, settings: dict[str, str], method: Method) -> None:
    assert method_of(name, settings) == method


@pytest.mark.parametrize(
    ("text", "baseline"),
    [
        ("mean", MeanImage()),
        ("blur", Blurred()),
        ("blur:2.5", Blurred(2.5)),
        ("constant", Constant()),
        ("constant:-1", Constant(-1.0)),
        ("0.25", Constant(0.25)),
    ],
)
def test_baselines_from_text(text: str, baseline: Baseline) -> None:
    assert baseline_of(text) == baseline


@pytest.mark.parametrize("text", ["", "black", "mean:2", "blur:wide", "constant:x"])
def test_baselines_that_are_not_known(text: str) -> None:
    with pytest.raises(MethodError, match="a baseline is mean, blur:MM, noise, inpaint:MM"):
        baseline_of(text)


def test_a_blur_of_zero_is_refused_with_its_reason() -> None:
    with pytest.raises(MethodError, match="sigma_mm of a blurred baseline is positive, got 0"):
        baseline_of("blur:0")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("smoothgrat", {}, "no method 'smoothgrat'; did you mean 'smoothgrad'"),
        ("smoothgrad", {"m": "3"}, "smoothgrad has no setting 'm'"),
        ("gradient", {"n": "3"}, "gradient has no settings; got 'n'"),
        ("smoothgrad", {"n": "many"}, r"n is a number \(int\), got 'many'"),
        ("smoothgrad", {"n": "2.5"}, r"n is a number \(int\), got '2.5'"),
        ("smoothgrad", {"n": "none"}, r"n is a number \(int\), got 'none'"),
        ("smoothgrad", {"noise": "loud"}, r"noise is a number \(float\), got 'loud'"),
        ("smoothgrad", {"antithetic": "yes"}, "antithetic is true or false, got 'yes'"),
        ("integrated_gradients", {"rule": "simpson"}, "rule is one of"),
        ("agg2exp-smoothgrad", {"n": "3"}, "the preset agg2exp-smoothgrad is fixed"),
    ],
)
def test_refused(name: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        method_of(name, settings)


def test_presets_are_the_papers() -> None:
    assert PRESETS["agg2exp-gradient"] == Gradient()
    smooth = PRESETS["agg2exp-smoothgrad"]
    assert smooth == SmoothGrad(n=20, noise=0.1, antithetic=False, tolerance=None)
    integrated = PRESETS["agg2exp-integrated_gradients"]
    assert integrated == IntegratedGradients(n=20, rule="agg2exp", baseline=Constant(0.0))
    assert all(method_of(name) is preset for name, preset in PRESETS.items())


def test_settings_are_plain_for_provenance() -> None:
    assert settings_of(SmoothGrad(n=4)) == {
        "n": 4, "noise": 0.1, "antithetic": False, "tolerance": None,
    }  # fmt: skip
    assert settings_of(InputXGradient(Blurred(2.0))) == {"baseline": "Blurred(sigma_mm=2.0)"}
    image = volume()
    given = settings_of(InputXGradient(GivenImage(image)))["baseline"]
    assert given == f"GivenImage(phantom, sha256={image.sha256()[:12]})"


def test_a_method_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        SmoothGrad().n = 3  # type: ignore[misc]
