"""Validity, noise ratios and distances of features: closed forms, and libraries."""

import numpy as np
import pytest
import torch
from monai.metrics import FIDMetric
from scipy import linalg
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from voxplain.counterfactual.classifier import AbnormalLogit, Classifier
from voxplain.counterfactual.feature_distance import features_of, frechet_distance
from voxplain.counterfactual.validity import (
    Repaired,
    probabilities,
    psnr,
    repair_row,
    ssim,
    validity,
)
from voxplain.errors import DataError, ModelError
from voxplain.study.bootstrap import PatientDraws


def classifier_of(*layers: nn.Module) -> Classifier:
    return Classifier(AbnormalLogit(nn.Sequential(*layers), 0, False, 1.0, 0.0).eval(), "c", "x")


def test_validity_counts_what_fell_by_more_than_tau():
    before = [0.95, 0.9, 0.85, 0.6, 0.1]
    after = [0.1, 0.2, 0.05, 0.4, 0.1]
    draws = PatientDraws(["1", "1", "2", "3", "3"], 100, 0)
    found = validity(before, after, 0.8, draws)
    assert found["n_above"] == 3
    assert found["validity"] == pytest.approx(1 / 3)  # 0.85 falls; 0.7 and 0.8 do not exceed 0.8
    assert (found["n_abnormal"], found["flipped"]) == (4, 1.0)
    assert found["low"] <= 1 / 3 <= found["high"]
    assert found["note"] == ""


def test_validity_of_no_slice_is_not_defined():
    found = validity([0.4, 0.2], [0.1, 0.1], 0.8, PatientDraws(["1", "2"], 5, 0))
    assert np.isnan([found["validity"], found["low"], found["flipped"]]).all()
    assert "above 0.8" in found["note"]
    assert "no slice is called abnormal" in found["note"]


def test_psnr_as_scikit_image():
    rng = np.random.default_rng(0)
    clean = rng.uniform(-1, 1, (3, 8, 9)).astype(np.float32)
    noisy = np.clip(clean + rng.normal(0, 0.1, clean.shape), -1, 1).astype(np.float32)
    wanted = [
        peak_signal_noise_ratio(a.astype(float), b.astype(float), data_range=2.0)
        for a, b in zip(clean, noisy, strict=True)
    ]
    assert psnr(clean, noisy) == pytest.approx(wanted, rel=1e-9)
    where = rng.random(clean.shape) < 0.4
    where[2] = False
    found = psnr(clean, noisy, where)
    error = ((clean.astype(float) - noisy) ** 2)[0][where[0]].mean()
    assert found[0] == pytest.approx(10 * np.log10(4 / error))
    assert np.isnan(found[2])
    assert np.isinf(psnr(clean, clean)).all()
    assert ssim(clean, clean) == pytest.approx(1)
    assert np.isnan(ssim(clean[:, :6], clean[:, :6]))


def test_repair_row_in_closed_form():
    clean = np.zeros((2, 8, 8), np.float32)
    truth = np.zeros((2, 8, 8), bool)
    truth[:, 2:4, 2:4] = True
    before = clean + np.where(truth, 0.8, 0).astype(np.float32)
    after = clean + np.where(truth, 0.2, 0).astype(np.float32)
    after[1] = clean[1]  # one slice is repaired exactly
    normal = np.zeros((4, 8, 8), np.float32)
    changed = normal.copy()
    changed[0, 0, 0] = 1.0
    row = repair_row(
        Repaired(before, after), Repaired(normal, changed), truth=truth, clean=clean,
        called=(np.array([0.1, 0.2, 0.9, 0.3]), np.array([0.1, 0.7, 0.1, 0.3])),
        marked=np.abs(changed) > 0.25,
    )  # fmt: skip
    assert row["change_inside"] == pytest.approx((0.3 + 0.4) / 2, rel=1e-6)
    assert row["change_outside"] == 0
    assert row["change_normal"] == pytest.approx(0.5 / 256)
    assert row["marked_normal"] == pytest.approx(1 / 256)
    assert row["still_normal"] == pytest.approx(2 / 3)
    assert row["n_exact"] == 1
    assert row["psnr_inside"] == pytest.approx(10 * np.log10(4 / 0.04), rel=1e-6)
    assert row["psnr_input_inside"] == pytest.approx(10 * np.log10(4 / 0.64), rel=1e-6)
    assert np.isnan(row["psnr_outside"])  # exact everywhere
    none = repair_row(
        Repaired(before, after), Repaired(normal[:0], changed[:0]), truth=truth & False,
        clean=None, called=(np.zeros(0), np.zeros(0)), marked=None,
    )  # fmt: skip
    undefined = ("change_inside", "change_outside", "change_normal", "still_normal", "psnr", "ssim")
    assert np.isnan([none[name] for name in undefined]).all()


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated")  # MONAI's call
def test_frechet_distance_as_monai_and_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 6)), rng.normal(0.4, 1.7, size=(30, 6)) @ rng.normal(size=(6, 6))
    found = frechet_distance(a, b)
    S, T = np.cov(a.T), np.cov(b.T)
    shift = a.mean(0) - b.mean(0)
    wanted = shift @ shift + np.trace(S + T - 2 * linalg.sqrtm(S @ T).real)
    assert found == pytest.approx(wanted, rel=1e-9)
    assert found == pytest.approx(float(FIDMetric()(torch.tensor(a), torch.tensor(b))), rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2.0) == pytest.approx(24)


def test_frechet_distance_of_one_feature_and_of_few_slices():
    a, b = np.array([[0.0], [2.0]]), np.array([[5.0], [5.0], [8.0]])  # sd √2 and √3
    wanted = 25 + 2 + 3 - 2 * np.sqrt(6)
    assert frechet_distance(a, b) == pytest.approx(wanted)
    wide = np.random.default_rng(0).normal(size=(3, 20))  # singular covariance
    assert frechet_distance(wide, wide) == pytest.approx(0, abs=1e-9)
    with pytest.raises(DataError, match="2 slices a side"):
        frechet_distance(a[:1], b)


def test_features_are_what_the_last_linear_layer_gets():
    layers = nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)
    one = classifier_of(*layers)
    images = np.random.default_rng(0).uniform(-1, 1, (5, 1, 2, 2)).astype(np.float32)
    found = features_of(one, images, batch=2)
    with torch.no_grad():
        wanted = torch.relu(layers[1](torch.from_numpy(images).flatten(1)))
    assert found.values == pytest.approx(wanted.numpy(), abs=1e-6)
    assert found.name == "input of module.3 of c"
    assert features_of(one, images, batch=5).values == pytest.approx(found.values)
    assert not layers[3]._forward_pre_hooks
    p = probabilities(one, images, batch=2)
    assert p == pytest.approx(probabilities(one, images, batch=5))


def test_the_hook_is_gone_after_an_error():
    layers = nn.Flatten(), nn.Linear(4, 1)
    with pytest.raises(RuntimeError):
        features_of(classifier_of(*layers), np.zeros((2, 1, 3, 3), np.float32))
    assert not layers[1]._forward_pre_hooks
    with pytest.raises(ModelError, match="no linear layer"):
        features_of(classifier_of(nn.Conv2d(1, 1, 2), nn.Flatten()), np.zeros((2, 1, 2, 2), "f4"))
    with pytest.raises(ModelError, match="one vector"):
        features_of(classifier_of(nn.Linear(2, 1), nn.Flatten()), np.zeros((2, 1, 2, 2), "f4"))
