"""`assess`: models × cases × methods, part by part, into one table and its verdicts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from voxplain.assess.asked import Asked
from voxplain.assess.checks import checks_of
from voxplain.assess.finished import DIGEST
from voxplain.assess.meter import Finished, Meter, Progress
from voxplain.assess.metrics import metrics_of
from voxplain.assess.parts import Part, Parts
from voxplain.assess.subject import Subject
from voxplain.assess.work import cascade_part, models_part, random_pairs_part, scores_part
from voxplain.errors import VoxplainError
from voxplain.records.assessment import PICTURES, SCORES, STAGES, Assessment, frame_of
from voxplain.records.provenance import Cost, Provenance
from voxplain.study.score_comparison import comparisons_of
from voxplain.study.score_summary import summary_of


def assess(
    asked: Asked,
    unfinished: Path,
    progress: Progress | None = None,
    finished: Finished | None = None,
) -> Assessment:
    """Measure everything that is not measured yet, and conclude.

    Parameters
    ----------
    asked
        What is wanted.
    unfinished
        Folder for finished parts; the caller removes it when the result is safe.
    progress
        Called with passes done and in all, as far as known.
    finished
        Called with parts that are finished and in all: first with those of an earlier run, then
        after each.

    Returns
    -------
    Assessment
        The same whether it was stopped in between or not, but for seconds and memory.

    Raises
    ------
    VoxplainError
        If models, cases, targets or methods do not fit each other, or `unfinished` holds another
        run.
    """
    parts = Parts(unfinished, {**asked.plan(), "also": asked.extra}, asked.stamps())
    keys = asked.keys()
    meter = Meter(progress, len(keys))
    try:
        _measure(asked, keys, parts, meter, finished)
    except BaseException:
        parts.drop_empty()
        raise
    found = {key: parts.read(key) for key in keys}
    planes = {
        name: pixels
        for key, part in found.items()
        if part.pictures
        for name, pixels in parts.arrays(key).items()
        if name.startswith("plane:")
    }
    return replace(_concluded(asked, found), planes=planes)


def _measure(
    asked: Asked,
    keys: Sequence[tuple[str, ...]],
    parts: Parts,
    meter: Meter,
    finished: Finished | None,
) -> None:
    """Measure what is not measured yet, part by part."""
    subject: Subject | None = None
    n_finished = sum(parts.has(key) for key in keys)
    if finished is not None:
        finished(n_finished, len(keys))
    for key in keys:
        if parts.has(key):
            meter.skip()
            continue
        try:
            if key[0] == "random pairs":
                part = random_pairs_part(asked, key[1], parts)
            elif key[0] == "models":
                part = models_part(asked, key[2], parts)
            else:
                if subject is None or subject.image.name != key[2]:
                    subject = _read(asked, key[2])
                if key[0] == "scores":
                    part = scores_part(asked, key[1], subject, meter)
                else:
                    part = cascade_part(asked, key[1], subject, key[3], int(key[4]), meter)
        except VoxplainError as error:
            raise type(error)(f"{' · '.join(filter(None, key))}: {error}") from error
        parts.write(key, part)
        meter.finish()
        n_finished += 1
        if finished is not None:
            finished(n_finished, len(keys))


def _read(asked: Asked, case: str) -> Subject:
    """Read a case when it is its turn."""
    try:
        return asked.case(case).read()
    except VoxplainError as error:
        raise type(error)(
            f"{error}; finished parts are kept: once the case can be read, the same command goes "
            "on (without --restart); voxplain data check --full finds all such cases"
        ) from error


def _concluded(asked: Asked, found: Mapping[tuple[str, ...], Part]) -> Assessment:
    """Put the parts together, summarise and judge."""
    parts = found.values()
    scores = frame_of([row for part in parts for row in part.scores], SCORES)
    scores["value"] = scores["value"].astype(float)
    stages = frame_of([row for part in parts for row in part.stages], STAGES)
    pictures = frame_of([row for part in parts for row in part.pictures], PICTURES)
    metrics = metrics_of(scores["metric"].unique())
    summary = summary_of(scores, seed=asked.seed)
    comparisons = comparisons_of(scores, metrics, seed=asked.seed)
    return Assessment(
        scores=scores,
        summary=summary,
        comparisons=comparisons,
        stages=stages.drop_duplicates(ignore_index=True),
        pictures=pictures,
        metrics=metrics,
        findings=checks_of(
            scores, summary, comparisons, metrics, groups=asked.settings.groups, seed=asked.seed
        ),
        provenance=_provenance(asked, found),
    )


def _provenance(asked: Asked, found: Mapping[tuple[str, ...], Part]) -> Provenance:
    images = {
        key[2]: part.facts["image_sha256"] for key, part in found.items() if key[0] == "scores"
    }
    costs = [part.cost for part in found.values()]
    return Provenance(
        model="; ".join(asked.models),
        model_sha256=_joined(model.info.sha256 for model in asked.models.values()),
        case=f"{len(asked.cases)} case{'s' if len(asked.cases) > 1 else ''}",
        image_sha256=_joined(images.values()),
        method="; ".join(asked.methods),
        parameters={**asked.plan(), "images": images, DIGEST: asked.digest()},
        seed=asked.seed,
        cost=Cost(
            sum(cost.n_forward for cost in costs),
            sum(cost.n_backward for cost in costs),
            sum(cost.seconds for cost in costs),
            max(cost.peak_memory_bytes for cost in costs),
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _joined(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
