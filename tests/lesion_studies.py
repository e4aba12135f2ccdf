"""Tables of made-up studies with known effects, as ``voxplain instances`` writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from voxplain.records.lesion_tables import INSTANCES, SALIENCY, SHELLS, save_table

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def lesion_study(
    rng: np.random.Generator,
    n_patients: int = 12,
    n_lesions: int = 6,
    *,
    effect: float = 0.0,
    patient_sd: float = 0.0,
    share_false: float = 0.4,
    types: tuple[str, ...] = ("FP", "TP"),
) -> Tables:
    """Normal features; `effect` standard deviations between FP and all others in peak_positive.

    Types are drawn for each lesion: the first with the chance `share_false`, the others alike.
    """
    n = n_patients * n_lesions
    patient = np.repeat(np.arange(n_patients), n_lesions)
    chances = [share_false, *[(1 - share_false) / (len(types) - 1)] * (len(types) - 1)]
    kind = rng.choice(types, n, p=chances)
    level = patient_sd * rng.normal(size=n_patients)[patient]
    instances = pd.DataFrame(dict.fromkeys(INSTANCES, 0.0), index=range(n)).assign(
        case=[f"c{p:02}" for p in patient], patient=[f"p{p:02}" for p in patient], model="net",
        instance=[f"P{i % n_lesions + 1}" for i in range(n)], type=kind, n_voxels=9, partners="",
        volume_mm3=rng.lognormal(size=n), probability_mean=rng.random(n),
        probability_max=rng.random(n), touches_border=False, n_windows=1, **{"class": "lesion"},
    )  # fmt: skip
    which = instances[["case", "model", "instance"]].assign(method="gradient", channel="flair")
    saliency = pd.DataFrame(dict.fromkeys(SALIENCY, 0.0), index=range(n)).assign(
        **which, unit="logit per intensity",
        peak_positive=rng.normal(size=n) + level + effect * (kind == "FP"),
        peak_negative=rng.normal(size=n) + level, mean_inside=rng.normal(size=n) + level,
        share=rng.random(n), peak_distance_mm=rng.normal(size=n),
    )  # fmt: skip
    shells = [
        pd.DataFrame(dict.fromkeys(SHELLS, 0.0), index=range(n)).assign(
            **which, from_mm=low, to_mm=high, n_voxels=5, mean=rng.normal(size=n)
        )
        for low, high in ((0.0, 0.0), (0.0, 2.0), (2.0, 4.0))
    ]
    return (
        instances[list(INSTANCES)],
        saliency[list(SALIENCY)],
        pd.concat(shells, ignore_index=True)[list(SHELLS)],
    )


def save_cases(tables: Tables, folder: Path) -> list[Path]:
    """Write each case into a folder of its own, at different depths."""
    places = []
    for i, case in enumerate(sorted(tables[0]["case"].unique())):
        place = folder / ("deep/er" if i % 2 else "") / case
        place.mkdir(parents=True)
        for name, table in zip(("instances", "saliency", "shells"), tables, strict=True):
            save_table(table[table["case"] == case].reset_index(drop=True), place, name)
        places.append(place)
    return places
