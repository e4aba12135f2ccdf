"""Temperature, reliability, calibration error: closed forms, and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss
from torch import nn

from voxplain.counterfactual.calibration import (
    HIGHEST,
    RELIABILITY_COLUMNS,
    brier_score,
    calibration,
    calibration_error,
    fit_temperature,
    fold_temperature,
    negative_log_likelihood,
    output_layer,
    reliability,
)
from voxplain.counterfactual.classifier_networks import NETWORKS, build
from voxplain.errors import ModelError, TrainingError


def _noisy(n: int = 400, seed: int = 0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.5, n)
    labels = (rng.random(n) < expit(truth)).astype(np.int8)
    return 3.0 * truth, labels  # three times too sure of itself


@pytest.mark.parametrize(("logit", "wrong"), [(3.0, 20), (6.0, 30), (2.0, 25)])
def test_the_temperature_of_logits_of_one_size_is_the_closed_form(logit, wrong):
    # ±a with a share e wrong: sigmoid(a / T) = 1 − e
    labels = np.repeat([0, 1], 100)
    logits = np.where(labels > 0, logit, -logit)
    logits[:wrong] *= -1
    logits[100 : 100 + wrong] *= -1
    error = wrong / 100
    assert fit_temperature(logits, labels) == pytest.approx(
        logit / np.log((1 - error) / error), rel=1e-6
    )


def test_the_temperature_is_that_of_a_logistic_regression_without_bias():
    logits, labels = _noisy()
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(
        logits[:, None], labels
    )
    assert fit_temperature(logits, labels) == pytest.approx(1 / fitted.coef_[0, 0], rel=1e-5)


def test_separable_logits_keep_a_temperature_of_one():
    # the likelihood would grow for ever as T falls
    labels = np.array([0, 0, 1, 1])
    assert fit_temperature(np.array([-2.0, -1.0, 1.0, 2.0]), labels) == 1.0


def test_too_modest_logits_are_not_sharpened():
    logits, labels = _noisy()
    assert fit_temperature(logits / 30, labels) == 1.0


def test_logits_that_say_the_opposite_get_the_highest_temperature():
    logits, labels = _noisy()
    assert fit_temperature(-logits, labels) == pytest.approx(HIGHEST)


def test_one_minimum_is_found_wherever_it_lies():
    logits, labels = _noisy(seed=3)
    found = fit_temperature(logits, labels)
    free = minimize_scalar(
        lambda t: negative_log_likelihood(logits, labels, t), bracket=(1.0, 3.0), tol=1e-12
    )
    assert found == pytest.approx(free.x, rel=1e-6)


@pytest.mark.parametrize("logits", [np.zeros(0), np.array([0.0, np.nan])])
def test_no_temperature_without_logits(logits):
    with pytest.raises(TrainingError, match="logits that are numbers"):
        fit_temperature(logits, np.zeros(len(logits)))


def test_likelihood_and_brier_are_those_of_scikit_learn():
    logits, labels = _noisy()
    given = expit(logits / 2)
    assert negative_log_likelihood(logits, labels, 2.0) == pytest.approx(
        log_loss(labels, given), rel=1e-12
    )
    assert brier_score(given, labels) == pytest.approx(brier_score_loss(labels, given), rel=1e-12)


def test_a_huge_logit_has_a_finite_likelihood():
    assert negative_log_likelihood(np.array([-1e4]), np.array([1])) == 1e4


def test_the_reliability_table_is_the_curve_of_scikit_learn():
    logits, labels = _noisy(150)
    given = np.concatenate([expit(logits), [0.0, 0.1, 0.5, 1.0]])  # edges too
    labels = np.concatenate([labels, [0, 1, 0, 1]])
    table = reliability(given, labels)
    share, mean = calibration_curve(labels, given, n_bins=10, strategy="uniform")
    there = table[table["n"] > 0]
    np.testing.assert_allclose(there["mean_probability"], mean, rtol=1e-12)
    np.testing.assert_allclose(there["share_abnormal"], share, rtol=1e-12)
    assert table["n"].sum() == len(given)
    assert tuple(table.columns) == RELIABILITY_COLUMNS


def test_empty_bins_are_not_numbers_and_do_not_count():
    table = reliability(np.array([0.05, 0.95, 0.95]), np.array([1, 1, 0]), n_bins=2)
    assert table["mean_probability"].tolist() == pytest.approx([0.05, 0.95])
    assert calibration_error(table) == pytest.approx((0.95 * 1 + 0.45 * 2) / 3)
    sparse = reliability(np.array([0.05]), np.array([0]))
    assert sparse["share_abnormal"].isna().sum() == 9
    assert calibration_error(sparse) == pytest.approx(0.05)


def test_the_fitted_temperature_mends_what_was_wrong():
    logits, labels = _noisy(2000)
    found = calibration(logits, labels, fit_temperature(logits, labels))
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    assert found.nll < found.nll_raw
    assert found.ece < found.ece_raw / 2
    assert found.brier < found.brier_raw
    assert found.n == 2000


@pytest.mark.parametrize(
    ("network", "layer"),
    [("small", "fc"), ("resnet18", "fc"), ("efficientnet-b0", "_fc"),
     ("densenet121", "class_layers.out")],
)  # fmt: skip
def test_the_logits_of_every_network_are_exactly_divided(network, layer):
    assert network in NETWORKS
    torch.manual_seed(0)
    module = build(network).train()
    nn.init.constant_(module.get_submodule(layer).bias, 0.7)
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        raw = module.eval()(images)
        module.train()
        assert fold_temperature(module, 4.0, (32, 32)) == layer
        assert module.training
        assert torch.equal(module.eval()(images), raw / 4)  # a power of two: no rounding
        fold_temperature(module, 1.7, (32, 32))
        torch.testing.assert_close(module(images), raw / 6.8, rtol=1e-4, atol=1e-6)
    after = module.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(after[name], value)]
    assert changed == [f"{layer}.weight", f"{layer}.bias"]
    assert not any(m._forward_hooks for m in module.modules())


def test_a_linear_layer_that_is_not_the_last_is_not_taken():
    squeezing = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    squeezing[3].register_module("unused", nn.Linear(4, 1))  # by name the last one
    assert output_layer(squeezing, (2, 2)) == "3"
    convolved = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Tanh())
    with pytest.raises(ModelError, match="calibrate=false"):
        output_layer(convolved, (2, 2))
