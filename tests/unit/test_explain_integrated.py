from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from voxplain.attribution import (
    Blurred,
    ClassTarget,
    Constant,
    Everywhere,
    GivenImage,
    InputXGradient,
    IntegratedGradients,
    MeanImage,
    explain,
)
from voxplain.attribution.baselines import Baseline
from voxplain.attribution.integrated import Rule, quadrature
from voxplain.attribution.method import Method
from voxplain.attribution.targets import Target
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.models import Model
from voxplain.records import Explanation
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Quadratic, SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

SHAPE = (5, 7, 11)
GRID = oblique_grid(SHAPE)
WINDOW = WindowSettings((4, 5, 6), overlap=0.4)
FLOAT64 = Compute("cpu", precision="float64", batch_size=8)
SMOOTH: Target = ClassTarget("class_1", Everywhere(), score="probability")


@pytest.fixture
def image() -> Volume:
    made = volume(GRID, n_channels=2, seed=3)
    return made.with_data(made.data.astype(np.float64))


@pytest.fixture
def model() -> Model:
    return describe(SmallNet(3, 2, 3, seed=5), n_channels=2, window=WINDOW)


def run(model: Model, image: Volume, method: Method, target: Any = SMOOTH) -> Explanation:
    return explain(model, image, target, method, compute=FLOAT64)


def gap(result: Explanation) -> float:
    value = result.targets[0].gap
    assert value is not None
    return value


# -- quadrature -----------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 2, 5])
def test_gauss_is_exact_to_its_degree(n: int) -> None:
    points, weights = quadrature("gauss_legendre", n)
    for degree in range(2 * n):
        assert (weights * points**degree).sum() == pytest.approx(1 / (degree + 1), abs=1e-14)
    assert abs((weights * points ** (2 * n)).sum() - 1 / (2 * n + 1)) > 1e-7


@pytest.mark.parametrize("n", [1, 2, 5])
def test_midpoint(n: int) -> None:
    points, weights = quadrature("midpoint", n)
    np.testing.assert_allclose(points, [(i + 0.5) / n for i in range(n)])
    assert weights.sum() == pytest.approx(1)
    assert (weights * points).sum() == pytest.approx(0.5)


@pytest.mark.parametrize("n", [2, 20])
def test_the_papers_rule_is_biased(n: int) -> None:
    points, weights = quadrature("agg2exp", n)
    assert (points[0], points[-1]) == (0.0, 1.0)
    # Σ α²/n over n points with both ends is (2n - 1) / (6 (n - 1)), not 1/3
    assert (weights * points**2).sum() == pytest.approx((2 * n - 1) / (6 * (n - 1)))
    assert (weights * points).sum() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "simpson"}, "rule is one of gauss_legendre, midpoint, agg2exp; got 'simpson'"),
        ({"n": 0}, "1 <= n <= max_n is needed, got n=0, max_n=320"),
        ({"n": 400}, "got n=400, max_n=320"),
        ({"gap_tolerance": 0.0}, "gap_tolerance is positive, got 0.0"),
        ({"gap_tolerance": float("nan")}, "gap_tolerance is positive"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        IntegratedGradients(**settings)


# -- completeness ---------------------------------------------------------------------------
def test_the_gap_is_that_of_map_and_scores(model: Model, image: Volume) -> None:
    result = run(model, image, IntegratedGradients(n=2))
    black = run(model, image.with_data(image.data * 0), IntegratedGradients(n=1))
    change = result.targets[0].score - black.targets[0].score
    (attribution,) = result.attributions.values()
    assert gap(result) == pytest.approx(attribution.total() - change, abs=1e-9)
    assert attribution.gap == gap(result)
    assert result.unit == "probability"
    assert result.kind == "contribution"


@pytest.mark.parametrize("rule", ["gauss_legendre", "midpoint"])
def test_the_gap_vanishes_with_more_points(model: Model, image: Volume, rule: Rule) -> None:
    gaps = [abs(gap(run(model, image, IntegratedGradients(n=n, rule=rule)))) for n in (2, 8, 32)]
    factor = 10 if rule == "midpoint" else 100  # midpoint: (8/2)² = 16
    assert gaps[1] < gaps[0] / factor
    assert gaps[2] < gaps[1] / factor or gaps[2] < 1e-10


def test_the_papers_rule_has_a_gap(model: Model, image: Volume) -> None:
    gauss = run(model, image, IntegratedGradients(n=20))
    paper = run(model, image, IntegratedGradients(n=20, rule="agg2exp"))
    assert abs(gap(gauss)) < 1e-8
    assert abs(gap(paper)) > 1e-3
    # a quadratic's is known: (x - b)·2W·Σα/n is exact, so b = 0 has none
    net = Quadratic([[1.0, 1.0], [0.5, 2.0], [0.0, 0.0]])
    result = run(describe(net, n_channels=2, window=WINDOW), image,
                 IntegratedGradients(n=4, rule="agg2exp"), "class:class_1@everywhere")  # fmt: skip
    assert gap(result) == pytest.approx(0, abs=1e-9)


def test_several_targets_have_their_own_gaps(model: Model, image: Volume) -> None:
    other = ClassTarget("class_2", Everywhere(), score="margin")
    both = run(model, image, IntegratedGradients(n=2), [SMOOTH, other])
    singles = [run(model, image, IntegratedGradients(n=2), t) for t in (SMOOTH, other)]
    for summary, single in zip(both.targets, singles, strict=True):
        assert summary.gap == pytest.approx(gap(single), abs=1e-10)
    assert both.unit == "unit of each target"


# -- a tolerance ----------------------------------------------------------------------------
def test_points_are_doubled_until_the_gap_is_met(model: Model, image: Volume) -> None:
    plain = [run(model, image, IntegratedGradients(n=n)) for n in (1, 2, 4, 8)]
    change = plain[-1].attributions[SMOOTH.name].total()
    relative = [abs(gap(result) / change) for result in plain]
    assert relative[0] > relative[1] > relative[2] > relative[3]
    asked = (relative[1] * relative[2]) ** 0.5
    result = run(model, image, IntegratedGradients(n=1, gap_tolerance=asked))
    assert result.provenance.parameters["n"] == 4
    assert abs(gap(result) / change) <= asked
    np.testing.assert_allclose(result[SMOOTH.name].values, plain[2][SMOOTH.name].values, atol=1e-12)
    assert not result.findings
    n_windows = result.provenance.parameters["n_windows"]
    assert result.provenance.cost.n_backward == (1 + 2 + 4) * n_windows


def test_a_gap_that_cannot_be_met_is_said(model: Model, image: Volume) -> None:
    method = IntegratedGradients(n=1, gap_tolerance=1e-12, max_n=3)
    result = run(model, image, method)
    assert result.provenance.parameters["n"] == 2
    (found,) = result.findings
    assert (found.code, found.outcome, found.target) == ("VX102", "issue", SMOOTH.name)
    assert "with 2 points, asked for 1.00e-12; raise max_n" in found.evidence


def test_a_large_gap_is_said_without_a_tolerance(model: Model, image: Volume) -> None:
    (found,) = run(model, image, IntegratedGradients(n=1)).findings
    assert (found.code, found.target) == ("VX102", SMOOTH.name)
    assert not run(model, image, IntegratedGradients(n=16)).findings


def test_an_image_that_is_its_own_baseline(model: Model, image: Volume) -> None:
    method = IntegratedGradients(n=2, baseline=GivenImage(image), gap_tolerance=1e-3)
    result = run(model, image, method)
    assert result[SMOOTH.name].total() == 0
    assert result.provenance.parameters["n"] == 2
    assert [f.code for f in result.findings] == ["VX104"]


# -- baselines ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "baseline", [Constant(0.5), MeanImage(), Blurred(2.0)], ids=lambda b: type(b).__name__
)
@pytest.mark.parametrize("shape", [SHAPE, (3, 9, 4)])
def test_complete_from_every_baseline(
    model: Model, baseline: Baseline, shape: tuple[int, ...]
) -> None:
    made = volume(oblique_grid(shape), n_channels=2, seed=3)
    image = made.with_data(made.data.astype(np.float64))
    result = run(model, image, IntegratedGradients(n=24, baseline=baseline))
    assert abs(gap(result)) < 1e-6
    assert result[SMOOTH.name].total() != pytest.approx(0, abs=1e-3)
    assert result.provenance.parameters["baseline"] == str(baseline)


def voxelwise(
    image: Volume, baseline: Baseline, window: WindowSettings = WINDOW
) -> NDArray[np.floating]:
    """(x − b)·2x of the first channel: shows the baseline that was used."""
    net = Quadratic([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    found = run(describe(net, n_channels=2, window=window), image,
                InputXGradient(baseline), "class:class_1@everywhere")  # fmt: skip
    (attribution,) = found.attributions.values()
    return image.data - attribution.values / (2 * image.data)


def test_blur_is_in_millimetres(image: Volume) -> None:
    data = np.full((2, 11, 11, 11), 1.0)
    data[:, 5, 5, 5] = 2.0
    grid = Grid((11, 11, 11), np.diag([1.0, 2.0, 4.0, 1.0]))
    b = voxelwise(Volume(data, grid), Blurred(2.0))[0] - 1
    centre = b[5, 5, 5]
    # 2 mm are two voxels of the first axis, one of the second, half a one of the third
    assert b[7, 5, 5] / centre == pytest.approx(np.exp(-0.5), rel=1e-3)
    assert b[5, 6, 5] / centre == pytest.approx(np.exp(-0.5), rel=1e-3)
    assert b[5, 5, 6] / centre == pytest.approx(np.exp(-2), rel=1e-3)


def test_the_mean_is_of_the_image_alone_not_of_its_padding(image: Volume) -> None:
    window = WindowSettings((9, 9, 14), pad_value=100.0)
    b = voxelwise(image, MeanImage(), window)
    for channel in range(2):
        np.testing.assert_allclose(b[channel], image.data[channel].mean(), rtol=1e-9)


def test_a_given_image_on_another_grid_is_refused(model: Model, image: Volume) -> None:
    other = Volume(image.data, image.grid.crop((1, 0, 0), SHAPE))
    with pytest.raises(MethodError, match="the baseline image lies on another grid than the image"):
        run(model, image, IntegratedGradients(baseline=GivenImage(other)))


def test_a_given_image_is_prepared_like_the_image(image: Volume) -> None:
    from voxplain.models import wrap

    net = Quadratic([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    model = wrap(net, classes=list("abc"), channels=list("uv"), window=WINDOW, check=False,
                 intensity=[{"scale": {"from": [0, 10], "to": [0, 1]}}])  # fmt: skip
    prepared = model.prepare(image).data
    assert prepared.max() < 1
    other = image.with_data(image.data * 0 + 5)
    b = model.prepare(other).data
    result = run(model, image, IntegratedGradients(n=1, baseline=GivenImage(other)),
                 "class:b@everywhere")  # fmt: skip
    (attribution,) = result.attributions.values()
    np.testing.assert_allclose(attribution.values, prepared**2 - b**2, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_blur_needs_a_width(sigma: float) -> None:
    with pytest.raises(MethodError, match="sigma_mm of a blurred baseline is positive"):
        Blurred(sigma)


def test_a_given_image_says_which() -> None:
    image = Volume(np.ones((1, 2, 3)), Grid((2, 3), np.eye(3)), name="healthy")
    assert str(GivenImage(image)).startswith("GivenImage(healthy, sha256=")


def test_single_precision_is_near(model: Model, image: Volume) -> None:
    wanted = run(model, image, IntegratedGradients(n=8))[SMOOTH.name].values
    found = explain(model, image, SMOOTH, IntegratedGradients(n=8), compute=Compute("cpu"))
    values = found[SMOOTH.name].values
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert torch.get_default_dtype() == torch.float32
