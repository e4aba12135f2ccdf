"""Fills that continue the image against fills that do not: which agree more on Shapley values.

Two inpainting networks (`voxplain.counterfactual`, kind ``inpaint-mask``, seeds 0 and 1) are
trained on images as the demo's network prepares them. Then, of patients whom neither they nor the
demo's network have seen: Shapley values of the predicted organs and the background (exact; the
mean logit of each target class over its predicted mask) under seven fills, and Spearman's
correlation of all values, players × targets, between every two fills, once with the background's
values and once without; Pearson's too, for the many values near 0 have chance ranks. And how far
each fill that looks at the surroundings is from the image, where balls of it are removed (mean
absolute error in HU): a check that the networks have learned.

``python -m benchmarks.fills --out DIR`` keeps the networks in a folder and goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from voxplain.attribution import Blurred, ClassTarget, Inpainted, Mask, MeanImage, Shapley, explain
from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.fills import NoiseFill, PartFill
from voxplain.attribution.learned_fill import LearnedInpainting
from voxplain.counterfactual.config import Config
from voxplain.counterfactual.training import train_run
from voxplain.data import read_data
from voxplain.demo import model_path, patient, write_patients
from voxplain.inference.predict import predict
from voxplain.models import Model, load_model
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

PLAYERS = {
    "lungs": ("lung_right", "lung_left"),
    "heart": ("heart",),
    "vessels and airways": ("aorta", "trachea", "esophagus"),
    "bones": ("vertebrae", "spinal_cord", "ribs", "sternum", "scapulae"),
    "abdominal organs": ("liver", "spleen", "stomach"),
}
"""Organs that are present or absent together; all else is the player ``background``."""
TARGETS = ("lung_left", "heart", "aorta", "vertebrae", "liver", "stomach")
OFF, ON = ("mean", "blur", "noise", "constant"), ("inpaint:5", "learned 0", "learned 1")
UNSEEN = (901, 902, 903)
TRAINING, VALIDATION = range(100, 122), range(130, 133)
N_SLICES = 30  # of each patient: heart to liver, one window high
BALLS_MM, N_BALLS = (15.0, 30.0, 45.0), 8
Kind = Literal["spearman", "pearson"]
HU = 1024.0  # of one unit of prepared intensity


@dataclass(frozen=True)
class Effort:
    """How much is trained.

    Parameters
    ----------
    steps
        Of each inpainting network.
    width
        Of its first level.
    patients, validation
        Seeds of patients.
    slices
        Of each of them.
    """

    steps: int = 1000
    width: int = 8
    patients: Sequence[int] = TRAINING
    validation: Sequence[int] = VALIDATION
    slices: int = 32


def run_config(seed: int, effort: Effort) -> Config:
    """Return settings of a run that learns to continue the demo network's prepared images."""
    organs = [name for names in PLAYERS.values() for name in names]
    blobs = {"probability": 0.5, "radius_px": [4, 7], "amplitude": [0.6, 0.9]}
    return Config.model_validate(
        {
            "name": f"fill {seed}",
            "data": {
                "size": [96, 112],
                "pixel_mm": 3.75,
                "organ": organs,
                "max_slices": effort.slices,
                "intensity": {"model": str(model_path()), "window": [-1.0, 0.5]},
                "abnormal": {"synthetic": blobs},
            },
            # only the fill is wanted: the classifier and the mask are as short as they may be
            "classifier": {"steps": 20, "batch": 16, "validate_every": 20},
            "judge": None,
            "generators": {
                "inpaint-mask": {
                    "kind": "inpaint-mask",
                    "inpaint_steps": effort.steps,
                    "width": effort.width,
                    "hole_share": [0.02, 0.5],
                    "steps": 1,
                }
            },
            "seed": seed,
        }
    )


def learned_fill(folder: Path, seed: int, effort: Effort) -> LearnedInpainting:
    """Train an inpainting network, or go on with what the folder holds of it."""
    data = folder / "data"
    if not (data / "manifest.csv").exists():
        seeds = [*effort.patients, *effort.validation, effort.validation[-1] + 1]
        files = write_patients(data, seeds)
        rows = [
            (file.name[:-7], file.name, f"{file.name[:-7]}_labels.nii.gz",
             "train" if one in effort.patients else
             "validation" if one in effort.validation else "test")
            for file, one in zip(files, seeds, strict=True)
        ]  # fmt: skip
        frame = pd.DataFrame(rows, columns=["case", "image", "label", "split"])
        frame.to_csv(data / "manifest.csv", index=False)
    run = train_run(run_config(seed, effort), read_data(data), folder / f"run{seed}")
    return LearnedInpainting(run.place("inpaint-mask"))


def whole_model() -> Model:
    """Load the demo's network."""
    model = load_model(model_path())
    assert isinstance(model, Model)
    return model


def chest(seed: int) -> Volume:
    """Return a patient's slices around the border of heart and liver."""
    image, labels = patient(seed)
    heights = [np.argwhere(labels.mask(name))[:, 2].mean() for name in ("heart", "liver")]
    first = round(float(np.mean(heights))) - N_SLICES // 2
    first = min(max(first, 0), image.grid.shape[2] - N_SLICES)
    grid = image.grid.crop((0, 0, first), (*image.grid.shape[:2], N_SLICES))
    return image.with_data(image.data[..., first : first + N_SLICES], grid)


def fills(learned: Sequence[LearnedInpainting]) -> dict[str, Baseline]:
    """Return all fills by name; the learned ones in the order of their seeds."""
    own = {f"learned {seed}": fill for seed, fill in enumerate(learned)}
    return {
        "mean": MeanImage(), "blur": Blurred(), "noise": NoiseFill(), "constant": Constant(0.0),
        "inpaint:5": Inpainted(5.0), **own,
    }  # fmt: skip


def values(model: Model, image: Volume, chosen: dict[str, Baseline]) -> pd.DataFrame:
    """Shapley values: a row a player and target, a column a fill; mean logits of the target."""
    found = predict(model, image)
    merged = {
        player: np.any([found.mask(name) for name in names], axis=0)
        for player, names in PLAYERS.items()
    }
    regions = LabelMap.from_masks(merged, found.grid)
    targets = [
        ClassTarget(name, Mask(found, name), reduction="mean", label=name)
        for name in TARGETS
        if found.mask(name).any()
    ]
    columns = {}
    for name, fill in chosen.items():
        explained = explain(model, image, targets, Shapley(fill=fill), regions=regions, keep=False)
        assert explained.players is not None
        columns[name] = explained.players.matrix().stack()
    return pd.DataFrame(columns)


def agreement(table: pd.DataFrame, kind: Kind = "spearman") -> dict[str, float]:
    """Correlation over all rows between every two columns."""
    found = table.corr(method=kind).to_numpy()
    pairs = combinations(enumerate(table.columns), 2)
    return {f"{a} ~ {b}": float(found[i, j]) for (i, a), (j, b) in pairs}


def contrast(pairs: dict[str, float]) -> dict[str, float]:
    """Mean correlation within the fills on and off the images, and of the learned ones."""

    def mean(names: Sequence[str]) -> float:
        own = [pairs[f"{a} ~ {b}"] for a, b in combinations(names, 2)]
        return float(np.mean(own))

    return {"off": mean(OFF), "on": mean(ON), "learned": pairs["learned 0 ~ learned 1"]}


def errors(model: Model, image: Volume, chosen: dict[str, Baseline], seed: int) -> pd.DataFrame:
    """Mean absolute error in HU inside removed balls of the body: a row a radius and ball."""
    prepared = model.prepare(image)
    data, grid = prepared.data[0], prepared.grid
    rng = np.random.default_rng([seed, 4])
    inside = np.argwhere(data > -0.9)
    world = grid.to_world(np.indices(data.shape).reshape(3, -1).T)
    rows = []
    for radius in BALLS_MM:
        for _ in range(N_BALLS):
            centre = grid.to_world(inside[rng.integers(len(inside))])
            ball = (np.linalg.norm(world - centre, axis=1) <= radius).reshape(data.shape)
            row = {"radius_mm": radius, "mean": np.abs(data[ball] - data.mean()).mean() * HU}
            for name, fill in chosen.items():
                if isinstance(fill, PartFill):
                    filled = fill.around(data, ball, grid)
                    row[name] = np.abs(filled[ball] - data[ball]).mean() * HU
            rows.append(row)
    return pd.DataFrame(rows)


def compare(learned: Sequence[LearnedInpainting], seeds: Sequence[int]) -> dict[str, Any]:
    """Measure agreement and errors over patients."""
    model, chosen = whole_model(), fills(learned)
    tables, wrong = [], []
    for seed in seeds:
        image = chest(seed)
        tables.append(values(model, image, chosen))
        wrong.append(errors(model, image, chosen, seed))
        print(f"  patient {seed}: {json.dumps(contrast(agreement(tables[-1])))}", flush=True)
    return summarise(tables, wrong)


def summarise(tables: Sequence[pd.DataFrame], wrong: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """Summarise the values and errors of patients; correlations are means over them."""
    organs = [one[one.index.get_level_values("player") != "background"] for one in tables]
    by_size = pd.concat(wrong).groupby("radius_mm").mean()
    return {
        "patients": len(tables),
        "all players": _summary([agreement(one) for one in tables]),
        "without background": _summary([agreement(one) for one in organs]),
        "all players, pearson": _summary([agreement(one, "pearson") for one in tables]),
        "without background, pearson": _summary([agreement(one, "pearson") for one in organs]),
        "error_hu": {f"{mm:g} mm": dict(row) for mm, row in by_size.to_dict("index").items()},
    }


def _summary(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Means over patients, and each patient's contrast."""
    pairs = {str(k): float(v) for k, v in pd.DataFrame(found).mean().items()}
    each = [contrast(one) for one in found]
    return {"pairs": pairs, **contrast(pairs), "each": each}


def table_of(pairs: dict[str, float]) -> str:
    """Correlations as a Markdown table, fill by fill."""
    names = [*OFF, *ON]
    rows = ["| | " + " | ".join(names[1:]) + " |", "|---" * len(names) + "|"]
    for i, a in enumerate(names[:-1]):
        told = [f"{pairs[f'{a} ~ {b}']:.2f}" if j > i else "" for j, b in enumerate(names) if j]
        rows.append(f"| {a} | " + " | ".join(told) + " |")
    return "\n".join(rows)


def main(out: Path | None = None, effort: Effort | None = None) -> dict[str, Any]:
    """Train both networks and compare the fills."""
    wanted = effort or Effort()
    with tempfile.TemporaryDirectory() as name:
        folder = out or Path(name)
        start = time.perf_counter()
        learned = [learned_fill(folder, seed, wanted) for seed in (0, 1)]
        trained = time.perf_counter()
        found = compare(learned, UNSEEN)
        found["train_s"] = trained - start
        found["compare_s"] = time.perf_counter() - trained
    print(table_of(found["all players"]["pairs"]))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    print(json.dumps(main(parser.parse_args().out), indent=2))
