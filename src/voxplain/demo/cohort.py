"""The demo's cohort: small pictures with a lesion, a strange one among them, and two networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from voxplain.data.case import Case
from voxplain.data.cohort import Cohort
from voxplain.demo.shortcuts import CLASSES, Scene, corner_mask, unseen_scenes
from voxplain.errors import DataError
from voxplain.space.write import atomic_folder

MARKER = "marker"
MODELS = ("clean", "shortcut")
SEED = 9000
"""The two networks are those of `voxplain.demo.shortcuts.train_shortcut` with this seed, kind
``marker`` and strength 0 and 1."""

N_CASES = 80
_FLUID = 0.75


@dataclass(frozen=True)
class DemoCohort:
    """What a study of the demo's cohort is asked.

    Parameters
    ----------
    folder, manifest
        Where the cases lie, and the table that lists them.
    models
        Folder of each model, by label.
    masks
        Pattern of the files of each further region; see `voxplain.engine.study.Study`.
    anomaly
        Name of the case that was made strange.
    targets, score, methods
        As texts. The score ``margin`` asks why benign and not malignant; the logit would mostly
        ask why a lesion.
    """

    folder: Path
    manifest: Path
    models: Mapping[str, Path]
    masks: Mapping[str, str]
    anomaly: str
    targets: tuple[str, ...] = ("class:organ", "class:benign", "class:malignant")
    score: str = "margin"
    methods: tuple[str, ...] = ("integrated_gradients:n=8",)


def models_path() -> Path:
    """Folder of the two shipped models, `MODELS`."""
    return Path(str(files("voxplain.demo") / "cohort_models"))


def strange(scene: Scene) -> Scene:
    """Fill the lower half of the body with something bright that no network was trained on."""
    image = scene.image.copy()
    rows = np.arange(image.shape[0])[:, None]
    inside = (scene.labels > 0) & (rows > np.nonzero(scene.labels)[0].mean())
    image[inside & (scene.labels < CLASSES.index("benign"))] = _FLUID
    return replace(scene, image=image)


def write_cohort(folder: Path | str, n: int = N_CASES, seed: int = 0) -> DemoCohort:
    """Write small pictures of a body with a lesion, with age, sex and scanner.

    Every patient has a benign or a malignant lesion, with or without a bright marker in the
    corner, the four equally often; age, sex and scanner go with nothing. One patient is made
    `strange`. The network ``shortcut`` was trained on pictures in which exactly malignant
    lesions had the marker, ``clean`` on pictures in which the marker told nothing.

    Parameters
    ----------
    folder
        Where to write; made if missing.
    n
        Patients, at least 8.
    seed
        Which patient is strange, and of the metadata.

    Returns
    -------
    DemoCohort
        What to ask of it.

    Raises
    ------
    DataError
        If there are too few patients.
    OutputError
        If the disk refuses.
    """
    if n < 8:
        raise DataError(f"the demo's cohort has at least 8 patients, got n={n}")
    rng = np.random.default_rng([seed, 83])
    odd = int(rng.integers(n))
    cases = []
    with atomic_folder(folder) as place:
        (place / "masks").mkdir()
        for i, drawn in enumerate(unseen_scenes("marker", n)):
            name = f"patient_{i + 1:03d}"
            one = strange(drawn) if i == odd else drawn
            np.save(place / f"{name}.npy", one.image)
            Image.fromarray(one.labels).save(place / f"{name}_labels.png")
            Image.fromarray(corner_mask()).save(place / "masks" / f"{name}_{MARKER}.png")
            known: dict[str, str | float] = {
                "sex": str(rng.choice(["F", "M"])),
                "age": int(rng.integers(35, 85)),
                "scanner": str(rng.choice(["A", "B"])),
            }
            labels = place / f"{name}_labels.png"
            cases.append(Case(name, (place / f"{name}.npy",), labels, None, f"P{i}", known))
        cohort = Cohort(place, "manifest", tuple(cases), ("grey",), dict(enumerate(CLASSES)))
        cohort.write_manifest(place / "manifest.csv")
    where = Path(folder)
    return DemoCohort(
        folder=where,
        manifest=where / "manifest.csv",
        models={name: models_path() / name for name in MODELS},
        masks={MARKER: str(where / "masks" / f"{{case}}_{MARKER}.png")},
        anomaly=f"patient_{odd + 1:03d}",
    )
