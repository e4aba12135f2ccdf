"""What is said about a result, unasked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from voxplain.attribution import (
    ClassTarget,
    Difference,
    Everywhere,
    FunctionTarget,
    Gradient,
    InputXGradient,
    Mask,
    Predicted,
    SmoothGrad,
    explain,
)
from voxplain.attribution.method import Method
from voxplain.attribution.targets import Target
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.models import wrap
from voxplain.records import Explanation
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.testing.models import Linear
from voxplain.testing.phantoms import oblique_grid

GRID = oblique_grid((5, 7, 11))
MASK = Mask(LabelMap.of(np.random.default_rng(0).random(GRID.shape) < 0.3, GRID))


@pytest.fixture
def image() -> Volume:
    """Positive everywhere: the last class is nowhere the largest."""
    return Volume(np.random.default_rng(1).uniform(0.5, 1.5, (1, *GRID.shape)), GRID)


def run(image: Volume, target: str | Target | list[Any], scale: float = 1.0,
        method: Method | None = None, activation: str = "softmax") -> Explanation:  # fmt: skip
    weight = scale * np.array([[1.0], [2.0], [-3.0]])
    model = wrap(Linear(weight), classes=["other", "organ", "absent"], channels=["ct"],
                 window=(4, 5, 6), activation=activation, check=False)  # type: ignore[arg-type]  # fmt: skip
    return explain(model, image, target, method or Gradient(), compute=Compute("cpu", "float64"))


def codes(result: Explanation) -> list[tuple[str, str | None]]:
    return [(finding.code, finding.target) for finding in result.findings]


def test_nothing_to_say(image: Volume) -> None:
    assert codes(run(image, ["class:organ", ClassTarget("organ", MASK, score="probability")])) == []


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_saturated_probability(image: Volume, activation: str) -> None:
    target = ClassTarget("organ", Everywhere(), score="probability")
    logit = ClassTarget("organ", Everywhere())
    result = run(image, [target, logit], scale=30.0, activation=activation)
    assert codes(result) == [("VX101", target.name)]
    assert result.findings[0].outcome == "issue"
    assert "explain the logit, margin or log-odds instead" in result.findings[0].evidence
    other = ClassTarget("organ", Everywhere(), score="log_odds")
    assert codes(run(image, other, scale=30.0, activation=activation)) == []


@pytest.mark.parametrize("p", [0.999, 0.9999])
def test_the_limit_of_saturation(p: float) -> None:
    """Softmax over two classes at one probability: |dp/dL| sums to 2p(1 - p)."""
    flat = Volume(np.full((1, *GRID.shape), np.log(p / (1 - p))), GRID)
    model = wrap(Linear([[0.0], [1.0]]), classes=["a", "b"], channels=["ct"], window=(4, 5, 6),
                 check=False)  # fmt: skip
    result = explain(model, flat, ClassTarget("b", score="probability"), Gradient(),
                     compute=Compute("cpu", "float64"))  # fmt: skip
    slope = 2 * p * (1 - p)
    assert codes(result) == ([("VX101", "b[probability]")] if slope < 1e-3 else [])
    if result.findings:
        assert f"{slope:.1e} per unit of logit" in result.findings[0].evidence


@pytest.mark.parametrize(
    "target",
    [
        ClassTarget("absent"),
        ClassTarget("absent", score="probability"),
        ClassTarget("absent", reduction="mean"),
        ClassTarget("absent", reduction="dice"),
        ClassTarget("absent", Predicted(hold=False)),
        ClassTarget("absent", Predicted(hold=False), score="probability"),
        ClassTarget("absent", Predicted(hold=False), score="margin", reduction="mean"),
    ],
    ids=lambda target: target.name,
)
@pytest.mark.parametrize("method", [Gradient(), SmoothGrad(n=2, noise=0.01), InputXGradient()],
                         ids=lambda m: m.name)  # fmt: skip
def test_an_absent_class_is_said(image: Volume, target: ClassTarget, method: Method) -> None:
    result = run(image, target, method=method)
    assert codes(result) == [("VX103", target.name)]
    assert result.findings[0].outcome == "not applicable"
    assert result.targets[0].score == 0
    assert result.table.frame["share"].isna().all()
    assert (result.table.frame["positive"] == 0).all()


def test_an_absent_class_among_others(image: Volume) -> None:
    result = run(image, "all")
    assert codes(result) == [("VX103", "other"), ("VX103", "absent")]
    assert result.table.matrix().loc["organ"].sum() == pytest.approx(1)
    assert result.targets[2].n_windows == 0
    assert not result["absent"].values.any()


def test_the_weighted_reduction_is_defined_for_an_absent_class(image: Volume) -> None:
    result = run(image, ClassTarget("absent", reduction="weighted"))
    assert codes(result) == []
    assert result.targets[0].score < 0


def test_a_map_of_zeros(image: Volume) -> None:
    zero = Difference(ClassTarget("organ", MASK), ClassTarget("organ", MASK, label="again"))
    assert codes(run(image, zero)) == [("VX104", zero.name)]
    flat = FunctionTarget(lambda L: 0 * L.sum() + 3, "flat")
    result = run(image, flat)
    assert codes(result) == [("VX104", "flat")]
    assert result.targets[0].score == 3
    assert "score 3, every voxel's value is 0" in result.findings[0].evidence


def test_a_gap_of_input_x_gradient(image: Volume) -> None:
    target = ClassTarget("organ", Everywhere(), score="probability")
    result = run(image, target, method=InputXGradient())
    assert codes(result) == [("VX102", target.name)]
    total = result[target.name].total()
    assert f"the map sums to {total:.6g}" in result.findings[0].evidence


def test_values_that_are_not_finite_are_refused(image: Volume) -> None:
    def infinite(L: Any) -> Any:
        return (L[0] - L[0]).abs().sqrt().sum()

    with pytest.raises(MethodError, match="holds NaN or infinite values"):
        run(image, FunctionTarget(infinite, "infinite"))


def test_a_healthy_dice_of_a_small_lesion_is_not_called_saturated() -> None:
    image = Volume(np.zeros((1, 12, 13, 14)), Grid((12, 13, 14), np.eye(4)))
    image.data[0, 3:6, 4:6, 5:7] = 1.0
    lesion = LabelMap((image.data > 0.5).astype(np.uint8), image.grid, {1: "lesion"})
    # p = 0.9 in the lesion, 1e-6 elsewhere
    inside, outside = np.log(9.0), np.log(1e-6)
    net = Linear([[0.0], [inside - outside]], [0.0, outside])
    model = wrap(net, classes=("background", "lesion"), channels=("ct",), window=(6, 6, 6))
    target = ClassTarget("lesion", Mask(lesion), reduction="dice")
    result = explain(model, image, target, "gradient", regions=lesion)
    assert result.targets[0].score > 0.9
    assert "VX101" not in {found.code for found in result.findings}


def test_an_absent_part_of_a_difference_is_named() -> None:
    image = Volume(np.ones((1, 5, 6, 7)), Grid((5, 6, 7), np.eye(4)))
    net = Linear([[1.0], [-1.0]])
    model = wrap(net, classes=("background", "organ"), channels=("ct",), window=(4, 4, 4))
    target = Difference(ClassTarget("background"), ClassTarget("organ"))
    result = explain(model, image, target, "gradient")
    (found,) = result.findings
    assert found.code == "VX103"
    assert "organ" in found.evidence
