"""Sensitivity, stability, completeness and cost: closed forms, captum, Quantus."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from scipy.stats import spearmanr

from voxplain.assess import completeness, efficiency, sensitivity, stability
from voxplain.assess.changed_images import Change, Flip, Noise, Shift, reexplained
from voxplain.assess.completeness import completeness_gaps
from voxplain.assess.efficiency import measured_maps
from voxplain.assess.sensitivity import (
    average_sensitivity,
    average_sensitivity_agg2exp,
    max_of,
    max_sensitivity,
    mean_of,
    relative_change,
    relative_change_agg2exp,
)
from voxplain.attribution import (
    ClassTarget,
    Everywhere,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    Mask,
    Occlusion,
    SmoothGrad,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.baselines import Constant as Value
from voxplain.attribution.maps import compute_maps
from voxplain.attribution.method import Method
from voxplain.attribution.question import Question
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, NO_CHANGE, Measured
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import (
    Constant,
    Linear,
    Pooled,
    Product,
    Quadratic,
    SmallNet,
    describe,
)
from voxplain.testing.phantoms import labels, oblique_grid, volume

GRID = oblique_grid((5, 7, 9))
WINDOW = WindowSettings((4, 5, 6), overlap=0.4, blend="gaussian")
REGIONS = labels(GRID, 2, seed=1)
MASK = REGIONS.layers[0] == 1
TARGETS = [ClassTarget("class_1", Mask(REGIONS, "organ_1")), ClassTarget("class_2", Everywhere())]
W = np.array([[0.2, 0.1], [1.0, -0.5], [-0.4, 0.8]])
CHANGES: list[Change] = [Noise(0.2, n=2), Shift(0.5), Flip(0), Flip(2)]


@contextmanager
def asked(model: Model, image: Volume, targets: Any = TARGETS, batch: int = 4
          ) -> Iterator[Question]:  # fmt: skip
    with open_pipeline(model, image, Compute("cpu", "float64", batch)) as pipeline:
        yield ask(pipeline, image, targets, regions=None, seed=0)


def measured(model: Model, method: Method, changes: list[Change], batch: int = 4
             ) -> list[dict[str, Measured]]:  # fmt: skip
    with asked(model, volume(GRID, 2, seed=4), batch=batch) as question:
        return stability.stability(question, method, compute_maps(question, method), changes)


# -- sensitivity ------------------------------------------------------------------------
def test_a_linear_model_never_moves() -> None:
    for row in measured(describe(Linear(W), n_channels=2, window=WINDOW), Gradient(), CHANGES):
        assert {name: found.value for name, found in row.items()} == {
            "stability_noise": 1.0,
            "stability_shift": 1.0,
            "stability_flip": 1.0,
            "average_sensitivity": 0.0,
            "max_sensitivity": 0.0,
            "average_sensitivity_agg2exp": 0.0,
        }


def test_the_gradient_of_squares_moves_with_the_noise() -> None:
    """a = 2·W·x on the mask: ‖a − a'‖/‖a‖ = ‖W·e‖/‖W·x‖, e the noise itself."""
    model, image = describe(Quadratic(W), n_channels=2, window=WINDOW), volume(GRID, 2, seed=4)
    noise = Noise(0.2, n=3)
    with asked(model, image) as question:
        maps = compute_maps(question, Gradient())
        found = stability.stability(question, Gradient(), maps, [noise])
        copies = [noise.changed(question, k).image.data.astype(float) for k in range(3)]
    x = image.data.astype(float)
    for t, (w, mask) in enumerate([(W[1], MASK), (W[2], np.ones(GRID.shape))]):
        weights = w.reshape(-1, 1, 1, 1) * mask
        parts = [np.linalg.norm(weights * (c - x)) / np.linalg.norm(weights * x) for c in copies]
        assert found[t]["average_sensitivity"].value == pytest.approx(np.mean(parts), rel=1e-12)
        assert found[t]["max_sensitivity"].value == pytest.approx(max(parts), rel=1e-12)
        a = weights * x / np.abs(weights * x).max()
        scaled = [weights * c / np.abs(weights * c).max() for c in copies]
        parts = [np.linalg.norm(b - a) / np.linalg.norm(a) for b in scaled]
        agg2exp = found[t]["average_sensitivity_agg2exp"].value
        assert agg2exp == pytest.approx(np.mean(parts), rel=1e-12)
        ranks = [
            spearmanr(np.abs(weights * x).sum(0).ravel(), np.abs(weights * c).sum(0).ravel())[0]
            for c in copies
        ]
        assert found[t]["stability_noise"].value == pytest.approx(np.mean(ranks), rel=1e-12)


def net2d() -> tuple[Model, SmallNet, Volume, Noise]:
    grid = oblique_grid((6, 9), (0.7, 1.1))
    net = SmallNet(2, 2, 3, seed=3)
    model = wrap(Pooled(net), kind="classification", classes=("a", "b", "c"),
                 channels=["c", "d"], rank=2, check=False)  # fmt: skip
    return model, net, volume(grid, 2, seed=2), Noise(0.4, n=3)


def torch_gradient(net: SmallNet, x: torch.Tensor, k: int) -> torch.Tensor:
    leaf = x.detach().double().requires_grad_()
    with torch.enable_grad():
        total = net.double()(leaf).mean(dim=(2, 3))[:, k].sum()
    return torch.autograd.grad(total, leaf)[0]


def ours(model: Model, image: Volume, noise: Noise) -> tuple[np.ndarray[Any, Any], ...]:
    with asked(model, image, [ClassTarget("b")]) as question:
        clean = compute_maps(question, Gradient()).values[0]
        maps = [reexplained(question, Gradient(), noise, k).values[0] for k in range(3)]
        images = [noise.changed(question, k).image.data for k in range(3)]
    return clean, np.stack(maps), np.stack(images)


def test_captum_max_sensitivity() -> None:
    model, net, image, noise = net2d()
    clean, maps, images = ours(model, image, noise)
    perturbed = torch.from_numpy(images).double()

    def explained(inputs: Any) -> Any:  # a tuple for the clean image
        if isinstance(inputs, tuple):
            return (torch_gradient(net, inputs[0], 1),)
        return torch_gradient(net, inputs, 1)

    theirs = sensitivity_max(
        explained,
        torch.from_numpy(image.data).double()[None],
        perturb_func=lambda inputs: perturbed,
        n_perturb_samples=3,
    )
    assert max_sensitivity(clean, maps).value == pytest.approx(float(theirs[0]), rel=1e-10)
    assert max_sensitivity(clean, maps).value > 0.01


def test_quantus_sensitivities() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from quantus import AvgSensitivity, MaxSensitivity
        from quantus.functions.normalise_func import normalise_by_max
    model, net, image, noise = net2d()
    clean, maps, images = ours(model, image, noise)

    def theirs(metric: Any, normalise: bool) -> float:
        queue = list(images)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chosen = metric(
                nr_samples=3,
                abs=False,
                normalise=normalise,
                normalise_func=normalise_by_max,
                perturb_func=lambda arr, indices, **_: queue.pop(0).reshape(1, -1),
                disable_warnings=True,
                return_aggregate=False,
            )
            found = chosen(
                model=Pooled(net.double()),
                x_batch=image.data[None].astype(np.float64),
                y_batch=np.array([1]),
                a_batch=None,
                explain_func=lambda model, inputs, targets, **_: torch_gradient(
                    net, torch.from_numpy(np.asarray(inputs)), 1
                ).numpy(),
                channel_first=True,
            )
        assert not queue
        return float(found[0])

    for value, metric, normalise in (
        (average_sensitivity(clean, maps), AvgSensitivity, False),
        (max_sensitivity(clean, maps), MaxSensitivity, False),
        (average_sensitivity_agg2exp(clean, maps), AvgSensitivity, True),
    ):
        assert value.value == pytest.approx(theirs(metric, normalise), rel=1e-6)


def test_empty_maps() -> None:
    some, zero = np.ones((2, 3, 4)), np.zeros((2, 3, 4))
    for change in (relative_change, relative_change_agg2exp):
        value, flags = change(zero, some)
        assert math.isnan(value)
        assert flags == (EMPTY_MAP,)
        assert change(some, zero) == (1.0, (EMPTY_MAP,))
        assert change(some, some) == (0.0, ())
    assert relative_change(some, 3 * some).value == 2.0
    assert relative_change_agg2exp(some, 3 * some).value == 0.0
    with pytest.raises(ValueError, match="one shape"):
        relative_change(some, np.ones((2, 4, 3)))
    for pool in (mean_of, max_of):
        undefined = pool([Measured(2.0, ("a", "b")), Measured(math.nan, ("b",))])
        assert math.isnan(undefined.value)
        assert undefined.flags == ("a", "b")
        with pytest.raises(ValueError, match="no map"):
            pool([])
    assert mean_of([Measured(1.0), Measured(4.0)]).value == 2.5
    assert max_of([Measured(1.0), Measured(4.0)]).value == 4.0


# -- stability --------------------------------------------------------------------------
def test_empty_and_constant_maps_have_no_ranks() -> None:
    constant = describe(Constant([1.0, 2.0, 3.0]), n_channels=2, window=WINDOW)
    for row in measured(constant, Gradient(), CHANGES):
        assert all(math.isnan(found.value) for found in row.values())
        assert all(found.flags == (EMPTY_MAP,) for found in row.values())
    row = measured(describe(Linear(W), n_channels=2, window=GRID.shape), Gradient(), CHANGES)[1]
    assert row["stability_shift"].flags == (CONSTANT_MAP,)
    assert math.isnan(row["stability_shift"].value)
    assert row["average_sensitivity"] == (0.0, ())


def test_an_equivariant_network_is_stable_under_its_mirror_alone() -> None:
    net = SmallNet(3, 2, 3, seed=5)
    for layer in (net.first, net.last):
        layer.weight.data = (layer.weight.data + layer.weight.data.flip(4)) / 2
    model = describe(net, n_channels=2, window=WINDOW)
    for row in measured(model, Gradient(), [Flip(2)]):
        assert row["stability_flip"].value == pytest.approx(
            1.0, abs=1e-3
        )  # rounding may swap ranks
    for row in measured(model, Gradient(), [Flip(1)]):
        assert row["stability_flip"].value < 0.99


def test_copies_of_one_name_are_pooled() -> None:
    model = describe(SmallNet(3, 2, 3, seed=5), n_channels=2, window=WINDOW)
    first, second, both = (
        measured(model, Gradient(), flips) for flips in ([Flip(0)], [Flip(2)], [Flip(0), Flip(2)])
    )
    for a, b, mean in zip(first, second, both, strict=True):
        assert set(mean) == {"stability_flip"}
        wanted = (a["stability_flip"].value + b["stability_flip"].value) / 2
        assert mean["stability_flip"].value == pytest.approx(wanted, rel=1e-12)


def test_batch_size_moves_nothing() -> None:
    """Acceptance 10 of the trust specification."""
    model, method = describe(SmallNet(3, 2, 3, seed=5), n_channels=2, window=WINDOW), SmoothGrad(3)
    maps, rows = [], []
    for batch in (1, 3, 8):
        with asked(model, volume(GRID, 2, seed=4), batch=batch) as question:
            maps.append(compute_maps(question, method).values)
        rows.append(measured(model, method, CHANGES, batch=batch))
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-12 * np.abs(maps[0]).max())
    for others in rows[1:]:
        for a, b in zip(rows[0], others, strict=True):
            for name, found in a.items():
                tolerance = 1e-3 if name.startswith("stability") else 1e-10
                assert b[name].value == pytest.approx(found.value, rel=tolerance)


# -- completeness -----------------------------------------------------------------------
def gaps(model: Model, method: Method, n_channels: int = 2) -> list[Measured]:
    with asked(model, volume(GRID, n_channels, seed=4)) as question:
        return completeness_gaps(question, compute_maps(question, method))


def test_integrated_gradients_of_a_linear_model_are_complete() -> None:
    """Acceptance 7: the map is w·(x − b) and the gap is 0."""
    model, image = describe(Linear(W), n_channels=2, window=WINDOW), volume(GRID, 2, seed=4)
    with asked(model, image) as question:
        maps = compute_maps(question, IntegratedGradients(n=1, baseline=Value(-0.5)))
        found = completeness_gaps(question, maps)
    x = image.data.astype(float)
    wanted = [W[1].reshape(-1, 1, 1, 1) * (x + 0.5) * MASK, W[2].reshape(-1, 1, 1, 1) * (x + 0.5)]
    np.testing.assert_allclose(maps.values, np.stack(wanted), atol=1e-12)
    assert all(gap.value < 1e-12 for gap in found)


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        # each of 3 channels gets mean(α²)·Πx in place of ∫α²·Πx = Πx/3
        (IntegratedGradients(n=2, rule="midpoint"), 1 / 16),
        (IntegratedGradients(n=2, rule="agg2exp"), 1 / 2),
        (IntegratedGradients(n=2), 0.0),
        (InputXGradient(), 2.0),
    ],
)
def test_few_steps_on_a_product(method: Method, wanted: float) -> None:
    model = describe(Product([1.0, 2.0, -3.0]), n_channels=3, window=WINDOW)
    for gap in gaps(model, method, 3):
        assert gap.value == pytest.approx(wanted, abs=1e-11)


def test_input_times_gradient_of_squares_counts_twice() -> None:
    model = describe(Quadratic(W), n_channels=2, window=WINDOW)
    for gap in gaps(model, InputXGradient()):
        assert gap.value == pytest.approx(1.0, abs=1e-12)
    for gap in gaps(model, IntegratedGradients(n=1)):
        assert gap.value == pytest.approx(0.0, abs=1e-12)


def test_maps_that_need_not_sum_to_the_score_have_no_gap() -> None:
    linear = describe(Linear(W), n_channels=2, window=WINDOW)
    for method in (Gradient(), SmoothGrad(2), Occlusion(size=4, stride=4)):
        found = gaps(linear, method)
        assert len(found) == 2
        assert all(math.isnan(gap.value) and gap.flags == () for gap in found)
    constant = describe(Constant([1.0, 2.0, 3.0]), n_channels=2, window=WINDOW)
    for gap in gaps(constant, IntegratedGradients(n=2)):
        assert math.isnan(gap.value)
        assert gap.flags == (NO_CHANGE,)


# -- efficiency -------------------------------------------------------------------------
def test_costs_are_those_of_the_maps() -> None:
    model = describe(SmallNet(3, 2, 3, seed=5), n_channels=2, window=WINDOW)
    with asked(model, volume(GRID, 2, seed=4)) as question:
        method = SmoothGrad(n=3)
        maps, peak = measured_maps(question, method)
        promised = method.passes(question)
        clean = question.pipeline.passes.n_forward - maps.passes.n_forward
        assert clean == len(question.pipeline.plan)  # the clean prediction is not counted
    found = efficiency.efficiency(maps, peak)
    assert found == {
        "n_forward": (promised.n_forward, ()),
        "n_backward": (promised.n_backward, ()),
        "seconds": (maps.seconds / 2, ()),
        "peak_memory_mb": (peak / 1e6, ()),
    }
    assert peak > 2**20


def test_names_are_those_of_the_metrics() -> None:
    model = describe(SmallNet(3, 2, 3, seed=5), n_channels=2, window=WINDOW)
    named = {metric.name for metric in (*sensitivity.METRICS, *stability.METRICS)}
    assert set(measured(model, Gradient(), CHANGES)[0]) == named
    assert completeness.METRIC.name == "completeness_gap"
