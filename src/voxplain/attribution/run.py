"""`explain` and `estimate`, for one model and for a task in several parts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pandas as pd

from voxplain.attribution.estimate import Estimate, estimate_one, estimate_prediction
from voxplain.attribution.method import Method
from voxplain.attribution.methods import method_of
from voxplain.attribution.one import Progress, explain_one
from voxplain.attribution.parse import targets_of
from voxplain.attribution.targets import ClassTarget, Difference, Target
from voxplain.errors import TargetError
from voxplain.inference.compute import Compute
from voxplain.inference.predict import predict
from voxplain.models.model import Model
from voxplain.models.parts import Parts
from voxplain.records.explanation import Explanation
from voxplain.records.provenance import Cost
from voxplain.records.region_table import RegionTable
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume


def explain(
    model: Model | Parts,
    image: Volume,
    targets: str | Target | Sequence[str | Target] = "all",
    method: str | Method = "smoothgrad",
    *,
    regions: LabelMap | None = None,
    extra: LabelMap | None = None,
    keep: bool | Literal["auto"] = "auto",
    seed: int = 0,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Attribute targets of a prediction to the image's voxels and sum over regions.

    Parameters
    ----------
    model
        From `voxplain.load_model` or `voxplain.wrap`; it comes back unchanged. Of several parts
        (see `voxplain.models.Parts`) each explains its own classes.
    image
        As it was read; the model prepares it.
    targets
        ``"all"`` (every class over its predicted mask), texts such as ``"class:liver"`` (see
        `voxplain.attribution.parse`), targets, or a sequence of them.
    method
        Name of a method with its default settings, or a method.
    regions
        Regions to sum over, on any grid; default the predicted classes. A classifier without
        regions has the single region ``image``.
    extra
        Further regions, on any grid, that may overlap `regions`: rows of the table beside them,
        e.g. masks of pathologies. No name of `regions` may come again.
    keep
        Whether the maps are kept beside the region table; ``auto`` keeps them up to 2 GiB.
    seed
        Seed of all draws; noise also depends on the image, not on its name.
    compute
        Device, precision, batch size.
    progress
        Called after each batch with passes done and in all.

    Returns
    -------
    Explanation
        Table, maps and prediction on the image's grid, cost and provenance.

    Raises
    ------
    VoxplainError
        If model, image, targets, regions or method do not fit each other.

    Notes
    -----
    Region sums are taken on the model's grid while the maps are made; what lies on the
    image's grid is resampled from there. With several parts and no `regions`, every part
    predicts first, and the merged prediction is the regions; a target's own mask is that of its
    part.
    """
    start = time.perf_counter()
    compute = compute or Compute()
    if isinstance(model, Model):
        return explain_one(
            model, image, targets, method,
            regions=regions, extra=extra, keep=keep, seed=seed, compute=compute, progress=progress,
        )  # fmt: skip
    chosen = method_of(method)
    asked = _by_part(model, targets)
    meter = _Meter(progress)
    prediction = None
    if regions is None:
        prediction = model.merge(
            [predict(p, image, compute=compute, progress=meter.stage()) for p in model.models]
        )
    n_predicted, predicted_s = meter.done, time.perf_counter() - start
    results = [
        explain_one(
            part, image, wanted, chosen,
            regions=regions or prediction, extra=extra, keep=keep, seed=seed,
            compute=compute,
            progress=meter.stage(),
        )
        for part, wanted in asked.items()
    ]  # fmt: skip
    return _joined(model, results, prediction, Cost(n_predicted, 0, predicted_s))


def estimate(
    model: Model | Parts,
    image: Volume,
    targets: str | Target | Sequence[str | Target] = "all",
    method: str | Method = "smoothgrad",
    *,
    regions: LabelMap | None = None,
    compute: Compute | None = None,
) -> Estimate:
    """Tell what `explain` with the same arguments will cost, by timing one window.

    Where the prediction takes less than 20 s it is made, and the passes are those that
    `explain` will run; else they are an upper bound.

    Parameters
    ----------
    model, image, targets, method, regions, compute
        See `voxplain.attribution.explain`.

    Returns
    -------
    Estimate
        Windows, passes, seconds and memory.
    """
    compute = compute or Compute()
    if isinstance(model, Model):
        return estimate_one(model, image, targets, method, regions=regions, compute=compute)
    chosen = method_of(method)
    found = [
        estimate_one(part, image, wanted, chosen, regions=regions, compute=compute)
        for part, wanted in _by_part(model, targets).items()
    ]
    if regions is None:
        found += [estimate_prediction(part, image, compute) for part in model.models]
    return Estimate(
        n_windows=sum(one.n_windows for one in found),
        n_forward=sum(one.n_forward for one in found),
        n_backward=sum(one.n_backward for one in found),
        is_upper_bound=any(one.is_upper_bound for one in found),
        seconds=sum(one.seconds for one in found),
        memory_bytes=max(one.memory_bytes for one in found),
    )


class _Meter:
    """Adds up the passes of several stages for one progress bar."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self.done = 0

    def stage(self) -> Progress:
        before = self.done

        def report(done: int, total: int) -> None:
            self.done = before + done
            if self._progress is not None:
                self._progress(self.done, before + total)

        return report


def _by_part(
    parts: Parts, targets: str | Target | Sequence[str | Target]
) -> dict[Model, list[Target]]:
    """Targets of each model that has some, in the order of the models."""
    wanted: dict[Model, list[Target]] = {model: [] for model in parts.models}
    for target in targets_of(targets, parts.answers):
        owners = {parts.owner(name) for name in _class_names(target)}
        if len(owners) != 1:
            raise TargetError(
                f"{target.name}: its classes belong to {len(owners)} models of {parts.name}, "
                "whose logits are not on one scale; compare classes of one model"
            )
        wanted[owners.pop()].append(target)
    return {model: found for model, found in wanted.items() if found}


def _class_names(target: Target) -> list[str]:
    if isinstance(target, Difference):
        return [*_class_names(target.plus), *_class_names(target.minus)]
    if isinstance(target, ClassTarget) and target.class_name is not None:
        return [target.class_name]
    raise TargetError(
        f"{target.name}: a task in several parts needs targets that name their class, "
        "e.g. class:liver@mask:FILE"
    )


def _joined(
    parts: Parts, results: list[Explanation], prediction: LabelMap | None, before: Cost
) -> Explanation:
    """Put the explanations of several models into one."""
    first = results[0]
    costs = [before, *(result.provenance.cost for result in results)]
    frames = [result.table.frame.assign(model=parts.name) for result in results]
    provenance = replace(
        first.provenance,
        model=parts.name,
        model_sha256=parts.sha256,
        parameters={
            "parts": {r.provenance.model: dict(r.provenance.parameters) for r in results},
            "merged": [model.info.name for model in parts.models],
        },
        cost=Cost(
            n_forward=sum(cost.n_forward for cost in costs),
            n_backward=sum(cost.n_backward for cost in costs),
            seconds=sum(cost.seconds for cost in costs),
            peak_memory_bytes=max(cost.peak_memory_bytes for cost in costs),
        ),
    )
    units = {result.unit for result in results}
    return replace(
        first,
        prediction=prediction,
        regions=first.regions if prediction is None else prediction,
        table=RegionTable(pd.concat(frames, ignore_index=True)),
        targets=tuple(target for result in results for target in result.targets),
        unit=units.pop() if len(units) == 1 else "unit of each target",
        provenance=provenance,
        attributions={name: m for result in results for name, m in result.attributions.items()},
        findings=tuple(finding for result in results for finding in result.findings),
    )
