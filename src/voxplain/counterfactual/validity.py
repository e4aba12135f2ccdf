"""Whether repairs do what they should: turn the classifier, and leave the rest alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skimage.metrics import structural_similarity

from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.generator import Generator
from voxplain.counterfactual.overlap import LEVEL
from voxplain.study.bootstrap import PatientDraws, interval

Floats = NDArray[np.float64]
_SSIM_SIDE = 7  # of its window


def repaired(
    generator: Generator,
    images: NDArray[np.float32],
    *,
    device: torch.device | str = "cpu",
    batch: int = 32,
) -> NDArray[np.float32]:
    """Repair slices, (n, 1, rows, columns) in [−1, 1]; the generator is already on `device`.

    No result depends on `batch`.
    """
    found = np.empty(images.shape, np.float32)
    with torch.no_grad():
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.array(images[start : start + batch])).to(device)
            found[start : start + batch] = generator.repair(part).image.float().cpu().numpy()
    return found


def probabilities(
    classifier: Classifier,
    images: NDArray[np.float32],
    *,
    device: torch.device | str = "cpu",
    batch: int = 32,
) -> Floats:
    """Probability of abnormal of slices, (n,); the classifier is already on `device`."""
    found = np.empty(len(images))
    with torch.no_grad():
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.array(images[start : start + batch])).to(device)
            values = classifier.probability(part).double().cpu().numpy()
            found[start : start + batch] = values
    return found


def validity(
    before: ArrayLike, after: ArrayLike, tau: float, draws: PatientDraws
) -> dict[str, Any]:
    """Counterfactual validity CV(τ), and the share of decisions that turned.

    Of the slices with p(x) > τ the share with |p(x) − p(x′)| > τ; of those with p(x) > 0.5 the
    share with p(x′) < 0.5.

    Parameters
    ----------
    before, after
        (n,) p(x), p(x′).
    tau
        τ in [0, 1].
    draws
        Of the patients of these slices.

    Returns
    -------
    dict
        tau, n_slices, n_above, validity, low, high, n_abnormal, flipped, note; NaN and a note
        where no slice qualifies.

    References
    ----------
    arXiv 2404.12832. A confident p(x) must fall below p(x) − τ: with τ = 0.8 below 0.2 at most.
    """
    p, q = np.asarray(before, np.float64), np.asarray(after, np.float64)
    above, abnormal = p > tau, p > 0.5
    share = low = high = flipped = np.nan
    notes = []
    if above.any():
        turned = (np.abs(p - q) > tau)[above].astype(np.float64)
        owner = draws.owner[above]
        share = float(turned.mean())
        low, high = interval(draws.means(turned, owner), len(np.unique(owner)), LEVEL)
    else:
        notes.append(f"no slice has a probability above {tau:g}")
    if abnormal.any():
        flipped = float((q < 0.5)[abnormal].mean())
    else:
        notes.append("no slice is called abnormal")
    return {
        "tau": tau, "n_slices": len(p), "n_above": int(above.sum()), "validity": share, "low": low,
        "high": high, "n_abnormal": int(abnormal.sum()), "flipped": flipped,
        "note": "; ".join(notes),
    }  # fmt: skip


def psnr(
    clean: NDArray[np.float32], found: NDArray[np.float32], where: NDArray[np.bool_] | None = None
) -> Floats:
    """Peak signal-to-noise ratio of each slice in dB, 10 log10(4 / mean (x − y)²).

    Parameters
    ----------
    clean, found
        (n, rows, columns) in [−1, 1], so that the range is 2.
    where
        Pixels that count, (n, rows, columns); default all.

    Returns
    -------
    numpy.ndarray
        (n,); infinite where both are equal, NaN where no pixel counts.
    """
    chosen = np.ones(clean.shape, bool) if where is None else where
    error = (clean.astype(np.float64) - found) ** 2
    n_pixels = chosen.sum((1, 2))
    mean = np.full(len(clean), np.nan)
    np.divide((error * chosen).sum((1, 2)), n_pixels, out=mean, where=n_pixels > 0)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(4 / mean))


def ssim(clean: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Mean structural similarity over slices (7 × 7 windows); NaN of smaller pictures."""
    if min(clean.shape[1:]) < _SSIM_SIDE or not len(clean):
        return np.nan
    each = [structural_similarity(a, b, data_range=2.0) for a, b in zip(clean, found, strict=True)]
    return float(np.mean(each))


@dataclass(frozen=True, eq=False)
class Repaired:
    """Slices of one kind and what a generator made of them, (n, rows, columns) each.

    Parameters
    ----------
    before, after
        x and x′ in [−1, 1].
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]

    @property
    def change(self) -> NDArray[np.float32]:
        """|x − x′|/2, in [0, 1]."""
        return np.asarray(np.abs(self.before - self.after) / 2)


def repair_row(
    abnormal: Repaired,
    normal: Repaired,
    *,
    truth: NDArray[np.bool_],
    clean: NDArray[np.float32] | None,
    called: tuple[Floats, Floats],
    marked: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    """Measure what a generator changed, beside the classifier's answer.

    Parameters
    ----------
    abnormal, normal
        Evaluated slices of both kinds.
    truth
        Of the abnormal ones; slices without a pixel of it count for no inside and outside.
    clean
        Pictures behind the abnormal ones.
    called
        Probabilities of the normal slices, before and after.
    marked
        Masks of the normal slices; None if there is no threshold.

    Returns
    -------
    dict
        The columns of `voxplain.records.counterfactual_evaluation.REPAIRS` without method and
        Fréchet distances; NaN where there is nothing to measure.
    """
    change, known = abnormal.change, np.asarray(truth.any(axis=(1, 2)))
    was, now = called
    still = was < 0.5
    row: dict[str, Any] = {
        "n_abnormal": len(change), "n_normal": len(normal.before),
        "change_inside": _mean(change[truth]),
        "change_outside": _mean(change[known][~truth[known]]),
        "change_normal": _mean(normal.change),
        "marked_normal": np.nan if marked is None else _mean(marked),
        "still_normal": _mean(now[still] < 0.5),
        **dict.fromkeys(
            ("psnr", "psnr_inside", "psnr_outside", "psnr_input", "psnr_input_inside", "ssim"),
            np.nan,
        ),
        "n_exact": 0,
    }  # fmt: skip
    if clean is None:
        return row
    whole = psnr(clean, abnormal.after)
    inside = psnr(clean, abnormal.after, truth)
    outside = psnr(clean, abnormal.after, ~truth & known[:, None, None])
    return row | {
        "psnr": _finite_mean(whole),
        "psnr_inside": _finite_mean(inside),
        "psnr_outside": _finite_mean(outside),
        "psnr_input": _finite_mean(psnr(clean, abnormal.before)),
        "psnr_input_inside": _finite_mean(psnr(clean, abnormal.before, truth)),
        "n_exact": int(np.isinf(whole).sum()),
        "ssim": ssim(clean, abnormal.after),
    }


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else np.nan


def _finite_mean(values: Floats) -> float:
    return _mean(values[np.isfinite(values)])
