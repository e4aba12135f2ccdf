"""The whole way from an image to its response curve, and what is saved of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch

from voxplain.inference.compute import Compute, peak_memory_bytes
from voxplain.lesions.case import LesionSettings, open_case
from voxplain.lesions.intensity import LesionIntensity
from voxplain.lesions.places import tissue_on_image
from voxplain.lesions.response import (
    Inserted,
    Progress,
    check_questions,
    learn_intensity,
    response,
)
from voxplain.models.model import Model
from voxplain.records.archive import INDEX, file_sha256, write_json
from voxplain.records.lesion_tables import save_table
from voxplain.records.provenance import Cost, Provenance
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.write import atomic_file
from voxplain.study.response_curve import response_curve

_FORM, _VERSION = "voxplain response", 1


@dataclass(frozen=True)
class Questions:
    """Which lesions are inserted, and where; see `voxplain.lesions.response.response`."""

    diameters_mm: tuple[float, ...] = (3.0, 5.0, 8.0, 12.0)
    contrasts: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)
    n_places: int = 5
    margin_mm: float = 5.0
    irregularity: float = 0.0
    texture: bool = True

    def __post_init__(self) -> None:
        check_questions(
            self.diameters_mm, self.contrasts, self.n_places, self.margin_mm, self.irregularity
        )


@dataclass(frozen=True, eq=False)
class Answers:
    """What is written of a run.

    Parameters
    ----------
    frame
        Columns `records.lesion_tables.RESPONSE`.
    curve, half
        See `voxplain.study.response_curve`.
    intensity
        What was inserted, in the image's units.
    provenance
        How it was made.
    """

    frame: pd.DataFrame
    curve: pd.DataFrame
    half: pd.DataFrame
    intensity: LesionIntensity
    provenance: Provenance

    def save(self, folder: Path) -> None:
        """Write tables, intensities and, last, the index with the hashes of all files there.

        Parameters
        ----------
        folder
            Existing; images that are in it already become part of the result.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        save_table(self.frame, folder, "response")
        for name, table in (("curve", self.curve), ("half", self.half)):
            with atomic_file(folder / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False)
        self.intensity.save(folder / "intensity.json")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        write_json(
            folder / INDEX,
            {
                "format": _FORM,
                "version": _VERSION,
                "provenance": self.provenance.to_dict(),
                "files": {p.relative_to(folder).as_posix(): file_sha256(p) for p in files},
            },
        )


def answers_of(
    model: Model,
    image: Volume,
    questions: Questions,
    *,
    intensity: LesionIntensity | None = None,
    from_truth: bool = False,
    truth: LabelMap | None = None,
    within: LabelMap | None = None,
    lesions: LesionSettings | None = None,
    patient: str | None = None,
    seed: int = 0,
    compute: Compute | None = None,
    progress: Progress | None = None,
    on_image: Callable[[Inserted], None] | None = None,
) -> Answers:
    """Learn what lesions look like, insert some, and summarise which are detected.

    Parameters
    ----------
    model, image, truth, within, lesions, seed, compute
        See `voxplain.lesions.case.open_case`.
    questions
        What is inserted.
    intensity
        Of another image; None: learned from this one.
    from_truth
        Learn from the true lesions, not the predicted ones.
    patient, progress, on_image
        See `voxplain.lesions.response.response`.

    Raises
    ------
    VoxplainError
        If there is nothing to learn from, no place fits, or inputs do not fit each other.
    """
    start = time.perf_counter()
    with open_case(
        model, image, truth=truth, within=within, settings=lesions, seed=seed, compute=compute
    ) as case:
        pipeline = case.pipeline
        if pipeline.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pipeline.device)
        if intensity is None:
            known = learn_intensity(case, from_truth=from_truth)
        else:
            known = intensity.fitted(image, tissue_on_image(case))
        frame = response(
            case, known, **asdict(questions), patient=patient, progress=progress, on_image=on_image
        )
        curve, half = response_curve(frame, seed=seed)
        settings = asdict(case.settings)
        parameters = {
            **asdict(questions),
            "class_name": case.class_name,
            "threshold": settings["threshold"],
            "learned_from": "file" if intensity else "truth" if from_truth else "predicted",
            "intensity": known.to_dict(),
            **{f"window_{key}": value for key, value in asdict(pipeline.plan.settings).items()},
            "n_windows": len(pipeline.plan),
            "n_views": pipeline.model.n_views,
            "preprocessing": pipeline.model.describe_preparation(),
            **pipeline.compute.to_dict(),
            "model_grid": case.grid.describe(),
        }
        provenance = Provenance(
            model=pipeline.info.name,
            model_sha256=pipeline.info.sha256,
            case=image.name,
            image_sha256=image.sha256(),
            method="response",
            parameters=parameters,
            seed=seed,
            cost=Cost(
                pipeline.passes.n_forward, pipeline.passes.n_backward,
                time.perf_counter() - start, peak_memory_bytes(pipeline.device),
            ),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
    return Answers(frame, curve, half, known, provenance)
