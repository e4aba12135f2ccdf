"""A made-up cohort: shares around a mean composition, one strange patient, one biased region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.records.cohort_table import CohortTable

TARGETS = ("heart", "aorta", "liver")
EXTRA = "effusion"
STRANGE = "case 003"


def cohort_table(
    n: int = 40,
    targets: Sequence[str] = TARGETS,
    *,
    model: str = "net",
    method: str = "gradient",
    seed: int = 0,
    shift: float = 0.0,
    extra: bool = True,
    per_patient: int = 1,
    metadata: bool = True,
    dice: bool = True,
    strange: bool = True,
) -> CohortTable:
    """Shares of each target: mostly itself, then its neighbours; the rest background.

    Parameters
    ----------
    shift
        Added to the logarithm of the last part's concentration: differs between models.
    """
    rng = np.random.default_rng(seed)
    parts = ("background", *targets)
    regions = (*parts, EXTRA) if extra else parts
    share = np.empty((n, len(targets), len(regions)))
    own = np.eye(len(targets))
    for t in range(len(targets)):
        weights = np.r_[4.0, 1.0 + 8 * own[t]]
        weights[-1] *= np.exp(shift)
        share[:, t, : len(parts)] = rng.dirichlet(6 * weights, n)
    is_female = rng.random(n) < 0.5
    if strange and n > 3:
        share[3, :, : len(parts)] = np.r_[0.94, np.full(len(targets), 0.06 / len(targets))]
    if metadata:  # women lean more on the background of the last target
        last = share[:, -1, : len(parts)]
        last[is_female, 0] *= 1.6
        share[:, -1, : len(parts)] = last / last.sum(axis=1, keepdims=True)
    if extra:
        share[..., -1] = rng.beta(2, 6, (n, len(targets)))
    scale = rng.gamma(9.0, 10.0, (n, 1, 1))
    cases = pd.DataFrame(
        {"patient": [f"secret-{i // per_patient:06d}" for i in range(n)]},
        index=pd.Index([f"case {i:03d}" for i in range(n)], name="case"),
    )
    if metadata:
        cases["sex"] = np.where(is_female, "F", "M")
        cases["age"] = rng.integers(30, 90, n).astype(float)
        cases["scanner"] = rng.choice(["A", "B", "C"], n)
    overlap = pd.DataFrame()
    if dice:
        overlap = pd.DataFrame(
            np.clip(0.95 - 0.05 * rng.random((n, len(targets))), 0, 1),
            index=cases.index, columns=list(targets),
        )  # fmt: skip
        if strange and n > 3:
            overlap.iloc[3] = 0.3
    return CohortTable(
        model, method, cases, tuple(targets), tuple(regions),
        {"share": share, "positive": 0.7 * share * scale, "negative": -0.3 * share * scale},
        overlap, (EXTRA,) if extra else (),
    )  # fmt: skip


def planes(side: int = 96) -> dict[str, NDArray[np.generic]]:
    """Three pictures with two outlined regions."""
    rows, columns = np.mgrid[:side, : side + 20]
    found: dict[str, NDArray[np.generic]] = {"names": np.array(["background", *TARGETS])}
    for i, name in enumerate(("axial", "coronal", "sagittal")):
        far = np.hypot(rows - side / 2, columns - side / 2 - 5 * i)
        found[f"{name}:image"] = np.clip(220 - 3 * far, 0, 255).astype(np.uint8)
        labels = np.where(far < 14, 1, np.where(far < 28, 2, 0))
        found[f"{name}:labels"] = labels.astype(np.uint16)
    return found
