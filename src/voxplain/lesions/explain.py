"""Explain every lesion of an image by itself: maps, numbers, a table."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from numpy.typing import NDArray

from voxplain.attribution.gradient_statistics import GradientMax
from voxplain.attribution.method import Method, settings_of
from voxplain.attribution.methods import method_of
from voxplain.errors import LabelError
from voxplain.inference.compute import Compute, peak_memory_bytes
from voxplain.lesions.case import LesionCase, LesionSettings, open_case
from voxplain.lesions.features import Row
from voxplain.lesions.groups import groups_of
from voxplain.lesions.rows import instance_row
from voxplain.lesions.saliency import SaliencySettings, explained, with_map_of
from voxplain.lesions.unfinished import Part, Unfinished
from voxplain.models.model import Model
from voxplain.records.lesion_tables import INSTANCES, SALIENCY, SHELLS, LesionResult
from voxplain.records.provenance import Cost, Provenance
from voxplain.regions.lesion import Lesion, lesion_map
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

Progress = Callable[[int, int], None]

_MAPS, _MAPS_DRAWN = 3, 20  # that a method holds of each lesion; 18 of them for errors of draws


def explain_lesions(
    model: Model,
    image: Volume,
    methods: Mapping[str, Method] | Sequence[str] = ("smoothgrad",),
    *,
    truth: LabelMap | None = None,
    within: LabelMap | None = None,
    lesions: LesionSettings | None = None,
    saliency: SaliencySettings | None = None,
    patient: str | None = None,
    seed: int = 0,
    compute: Compute | None = None,
    unfinished: Path | None = None,
    progress: Progress | None = None,
) -> LesionResult:
    """Find the lesions of an image, type them against the truth, and explain each.

    Parameters
    ----------
    model
        A segmentation model; it comes back unchanged.
    image
        As it was read.
    methods
        By the name they get in the tables, or names of methods and presets.
    truth, within, lesions
        See `voxplain.lesions.case`.
    saliency
        What is kept of the maps.
    patient
        What is the same for all scans of one patient; default the case's name.
    seed
        Of all draws; noise also depends on the image, so it is the same for each lesion of it.
    compute
        Device, precision, batch size.
    unfinished
        Folder for finished lesions, so that a run that was stopped can be taken up; it is
        removed by the caller when the result is safe. None: nothing is kept.
    progress
        Called with the passes done and in all.

    Returns
    -------
    LesionResult
        Tables, label map and maps; no rows if no lesion was found.

    Raises
    ------
    VoxplainError
        If model, image, truth or methods do not fit each other.

    Notes
    -----
    A lesion's target is the sum of its class's logits over the voxels of the lesion: predicted,
    true (missed lesions) or control. Only windows that hold a lesion are run for it; lesions of
    the same windows share their passes forward. The maps of a lesion do not depend on which
    other lesions there are, but for methods that stop at a tolerance.

    References
    ----------
    Spagnolo et al. 2026, arXiv 2406.09335.
    """
    start = time.perf_counter()
    if not isinstance(methods, Mapping):
        methods = {name: method_of(name) for name in methods}
    kept = saliency or SaliencySettings()
    if kept.maps == "full" and unfinished is None:
        raise LabelError("full maps are written as they come; give a folder as unfinished")
    with open_case(
        model, image, truth=truth, within=within, settings=lesions, seed=seed, compute=compute
    ) as case:
        pipeline = case.pipeline
        if pipeline.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pipeline.device)
        total = pipeline.n_passes

        def tell(_: int) -> None:
            if progress is not None:
                progress(pipeline.passes.total, max(total, pipeline.passes.total))

        pipeline.on_pass = tell
        found = case.lesions
        parameters = _parameters(case, methods, kept)
        for name, labels in (("truth", truth), ("within", within)):
            parameters[f"{name}_sha256"] = None if labels is None else _hash(labels.layers)
        plan = {
            **{key: value for key, value in parameters.items() if key != "batch_size"},
            "model": pipeline.info.sha256,
            "image": image.sha256(),
            "seed": seed,
            "lesions": [
                [one.name, one.type, list(one.box.start), list(one.box.stop), _hash(one.mask)]
                for one in found
            ],
        }
        parts = Unfinished(unfinished, plan)
        done: dict[tuple[str, str], Part] = {}
        left: list[tuple[str, list[Lesion]]] = []
        for label in methods:
            missing = []
            for one in found:
                part = parts.read(one.name, label)
                if part is None:
                    missing.append(one)
                else:
                    done[one.name, label] = part
            n_maps = _MAPS_DRAWN if isinstance(methods[label], GradientMax) else _MAPS
            left += [(label, group) for group in groups_of(pipeline, missing, n_maps)]
        if progress is not None:  # the masks of all lesions are known now
            total = pipeline.passes.total + sum(
                methods[label].passes(case.question(group)).total for label, group in left
            )
        with_map = with_map_of(found, kept)
        for label, group in left:
            found_parts = explained(case, label, methods[label], group, kept, with_map)
            for name, part in found_parts.items():
                done[name, label] = parts.write(name, label, part)
        cost = Cost(
            pipeline.passes.n_forward, pipeline.passes.n_backward, time.perf_counter() - start,
            peak_memory_bytes(pipeline.device),
        )  # fmt: skip
        return _result(case, found, methods, done, parameters, patient or image.name, seed, cost)


def _parameters(
    case: LesionCase, methods: Mapping[str, Method], kept: SaliencySettings
) -> dict[str, Any]:
    pipeline = case.pipeline
    return {
        "methods": {label: {"name": m.name, **settings_of(m)} for label, m in methods.items()},
        **asdict(case.settings),
        "class_name": case.class_name,
        **{f"saliency_{key}": value for key, value in asdict(kept).items()},
        **{f"window_{key}": value for key, value in asdict(pipeline.plan.settings).items()},
        "n_windows": len(pipeline.plan),
        "n_views": pipeline.model.n_views,
        "preprocessing": pipeline.model.describe_preparation(),
        **pipeline.compute.to_dict(),
        "model_grid": case.grid.describe(),
    }


def _result(
    case: LesionCase, found: list[Lesion], methods: Mapping[str, Method],
    done: Mapping[tuple[str, str], Part], parameters: dict[str, Any], patient: str, seed: int,
    cost: Cost,
) -> LesionResult:  # fmt: skip
    info = case.pipeline.info
    same = {"case": case.image.name, "model": info.name}
    saliency: list[Row] = []
    shells: list[Row] = []
    maps = {}
    findings = list(case.findings())
    for one in found:
        for label in methods:
            part = done[one.name, label]
            findings += part.findings
            first = {**same, "instance": one.name, "method": label}
            saliency += [{**first, **row} for row in part.saliency]
            shells += [{**first, **row} for row in part.shells]
            if part.map is not None:
                maps[one.name, label] = part.map
    rows = [{**same, "patient": patient, **instance_row(case, one)} for one in found]
    provenance = Provenance(
        model=info.name, model_sha256=info.sha256, case=case.image.name,
        image_sha256=case.image.sha256(), method="+".join(methods), parameters=parameters,
        seed=seed, cost=cost, created=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return LesionResult(
        instances=_frame(rows, INSTANCES),
        saliency=_frame(saliency, SALIENCY),
        shells=_frame(shells, SHELLS),
        lesions=lesion_map(found, case.grid),
        provenance=provenance,
        maps=maps,
        findings=tuple(findings),
        image=replace(case.image, channels=case.pipeline.image.channels),
    )


def _hash(values: NDArray[Any]) -> str:
    """Hash of whole numbers or truth values and their shape."""
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(values.tobytes())
    return digest.hexdigest()


def _frame(rows: list[Row], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))
