"""Explain one image by one model: from targets to an `Explanation`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from voxplain.attribution.ask import ask
from voxplain.attribution.findings import findings_of
from voxplain.attribution.method import Method, Outcome, channels_of, settings_of
from voxplain.attribution.methods import method_of
from voxplain.attribution.question import Question
from voxplain.attribution.restore import restore_map
from voxplain.attribution.scores import score_of
from voxplain.attribution.targets import Target
from voxplain.inference.compute import Compute, peak_memory_bytes
from voxplain.inference.pipeline import Pipeline, open_pipeline
from voxplain.models.model import Model
from voxplain.records.attribution import Attribution
from voxplain.records.class_score import ClassScore
from voxplain.records.explanation import Explanation, TargetSummary
from voxplain.records.player_table import COLUMNS, PlayerTable
from voxplain.records.provenance import Cost, Provenance
from voxplain.records.region_table import RegionTable
from voxplain.regions.sums import RegionSums
from voxplain.regions.tissue import body_mask
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import BACKGROUND, LabelMap
from voxplain.space.resample import resample_labels
from voxplain.space.volume import Volume

Progress = Callable[[int, int], None]
"""Called with the passes done and the passes in all (as far as known)."""

_KEEP_BYTES = 2 * 1024**3


def explain_one(
    model: Model,
    image: Volume,
    targets: str | Target | Sequence[str | Target],
    method: str | Method,
    *,
    regions: LabelMap | None,
    extra: LabelMap | None,
    keep: bool | Literal["auto"],
    seed: int,
    compute: Compute,
    progress: Progress | None,
) -> Explanation:
    """Explain one image by one model; see `voxplain.attribution.explain`."""
    start = time.perf_counter()
    chosen = method_of(method)
    with open_pipeline(model, image, compute) as pipeline:
        if pipeline.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pipeline.device)
        if progress is not None:
            pipeline.on_pass = _meter(progress, pipeline, pipeline.n_passes)
        question = ask(pipeline, image, targets, regions, seed)
        _ = question.regions, question.linear
        if progress is not None:
            needed = chosen.passes(question).total
            pipeline.on_pass = _meter(progress, pipeline, pipeline.passes.total + needed)
        collector = _Collector(
            question,
            keep,
            image.grid.n_voxels,
            channels_of(chosen, question),
            body_mask(image),
            extra,
        )
        outcome = chosen.attribute(question, collector.add)
        return _result(
            question, chosen, collector, outcome, image, regions, seed,
            Cost(
                pipeline.passes.n_forward,
                pipeline.passes.n_backward,
                time.perf_counter() - start,
                peak_memory_bytes(pipeline.device),
            ),
        )  # fmt: skip


def _meter(progress: Progress, pipeline: Pipeline, total: int) -> Callable[[int], None]:
    def report(_: int) -> None:
        done = pipeline.passes.total
        progress(done, max(total, done))

    return report


class _Collector:
    """Takes finished slabs: region sums, totals and, if wanted, the maps."""

    def __init__(
        self, question: Question, keep: bool | str, n_image_voxels: int, channels: tuple[str, ...],
        body: LabelMap | None, extra: LabelMap | None,
    ) -> None:  # fmt: skip
        pipeline = question.pipeline
        self._inner = pipeline.plan.inner()
        names = [target.name for target in question.targets]
        self.channels = channels
        grid = pipeline.image.grid
        self._sums = [RegionSums(question.regions, names, channels)]
        if extra is not None:
            self._sums.append(RegionSums(resample_labels(extra, grid), names, channels))
        self.totals = np.zeros(len(names))
        self.peaks = np.zeros(len(names))
        self.energy = np.zeros((2, len(names)))  # of magnitudes: in all, in the body
        self._body = None
        if body is not None:
            self._body = resample_labels(body, pipeline.image.grid).mask("tissue")
        dtype = np.float64 if pipeline.compute.dtype == torch.float64 else np.float32
        shape = (len(names), len(channels), *pipeline.image.grid.shape)
        n_voxels = max(pipeline.image.grid.n_voxels, n_image_voxels)  # maps end on its grid
        n_bytes = math.prod(shape[:2]) * n_voxels * np.dtype(dtype).itemsize
        self.is_kept = n_bytes <= _KEEP_BYTES if keep == "auto" else bool(keep)
        self.maps: NDArray[np.floating] = np.zeros(shape if self.is_kept else (0,), dtype)

    def add(self, box: Box, values: torch.Tensor) -> None:
        """Take (n_targets, n_channels, *box.shape), final values."""
        common = box.intersect(self._inner)
        if common is None:
            return
        part = values[(slice(None), slice(None), *common.within(box))].cpu().numpy()
        place = common.shift([-a for a in self._inner.start])
        for t, slab in enumerate(part):
            for sums in self._sums:
                sums.add(t, slab, place)
            self.totals[t] += slab.sum(dtype=np.float64)
            if self._body is not None:
                magnitude = np.abs(slab).sum(axis=0, dtype=np.float64)
                inside = magnitude[self._body[place.slices]].sum()
                self.energy[:, t] += magnitude.sum(), inside
            self.peaks[t] = max(self.peaks[t], float(np.abs(slab).max(initial=0.0)))
        if self.is_kept:
            self.maps[(slice(None), slice(None), *place.slices)] = part

    def table(
        self, case: str, model: str, method: str, share_errors: NDArray[np.float64] | None
    ) -> RegionTable:
        """Rows of the regions, then those of the extra ones."""
        own, *extra = (sums.table(case, model, method) for sums in self._sums)
        if share_errors is not None:
            own = own.with_errors(share_errors)
        # what is in no extra region is no region
        frames = [one.frame[one.frame["region"] != BACKGROUND] for one in extra]
        return RegionTable(pd.concat([own.frame, *frames], ignore_index=True)) if extra else own


def _result(
    question: Question, method: Method, collector: _Collector, outcome: Outcome, image: Volume,
    regions: LabelMap | None, seed: int, cost: Cost,
) -> Explanation:  # fmt: skip
    pipeline, info = question.pipeline, question.info
    scores = [value for value, _ in question.linear]
    gaps: list[float | None] = [None] * len(scores)
    if outcome.baseline_values is not None:
        changes = np.array(scores) - np.array(outcome.baseline_values)
        gaps = [float(g) for g in collector.totals - changes]
    provenance = Provenance(
        model=info.name,
        model_sha256=info.sha256,
        case=image.name,
        image_sha256=image.sha256(),
        method=method.name,
        parameters={
            **settings_of(method),
            **outcome.settings,
            **{f"window_{key}": value for key, value in asdict(pipeline.plan.settings).items()},
            "n_windows": len(pipeline.plan),
            "n_views": pipeline.model.n_views,
            "preprocessing": pipeline.model.describe_preparation(),
            **pipeline.compute.to_dict(),
            "model_grid": pipeline.image.grid.describe(),
        },
        seed=seed,
        cost=cost,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    units = [method.unit.format(target.unit) for target in question.targets]
    active = pipeline.active_windows([cotangent for _, cotangent in question.linear])
    summaries = tuple(
        TargetSummary(
            name=target.name,
            description=target.describe(),
            score=score,
            gap=gap,
            n_windows=sum(t in reached for reached in active.values()),
        )
        for t, (target, score, gap) in enumerate(zip(question.targets, scores, gaps, strict=True))
    )
    grid = pipeline.image.grid
    maps: dict[str, Attribution] = {}
    if collector.is_kept:
        for summary, values, unit in zip(summaries, collector.maps, units, strict=True):
            restored = restore_map(values, method.kind, grid, image.grid)
            maps[summary.name] = Attribution(
                restored, image.grid, collector.channels, method.kind, unit, summary.name,
                summary.score, summary.gap, provenance,
            )  # fmt: skip
    prediction = None
    if pipeline.is_dense and question.has_prediction:
        logits = question.prediction_logits.numpy()
        prediction = pipeline.model.label_image(logits, grid, image)
    table = collector.table(image.name, info.name, method.name, outcome.share_errors)
    players = None
    if outcome.players is not None:
        players = PlayerTable(
            outcome.players.assign(case=image.name, model=info.name, method=method.name)[[*COLUMNS]]
        )
    return Explanation(
        image=replace(image, channels=pipeline.image.channels),
        prediction=prediction,
        regions=_regions_on_image(regions, prediction, question.regions, image.grid),
        table=table,
        targets=summaries,
        kind=method.kind,
        unit=units[0] if len(set(units)) == 1 else "unit of each target",
        method=method.name,
        provenance=provenance,
        attributions=maps,
        findings=findings_of(
            question, outcome, collector.totals, collector.peaks, gaps, collector.energy
        ),
        players=players,
        classes=() if pipeline.is_dense else _classes(question),
    )


def _classes(question: Question) -> tuple[ClassScore, ...]:
    """Logit and probability of every class of a classifier, on the clean image."""
    info = question.info
    logits = question.prediction_logits.double().reshape(-1)
    return tuple(
        ClassScore(
            name,
            float(logits[i]),
            None
            if info.activation == "none"
            else float(score_of(logits, i, "probability", info.activation)),
        )
        for i, name in enumerate(info.class_names)
    )


def _regions_on_image(
    given: LabelMap | None, prediction: LabelMap | None, used: LabelMap, grid: Grid
) -> LabelMap:
    if given is not None:
        return resample_labels(given, grid)
    return resample_labels(used, grid) if prediction is None else prediction
