"""One self-contained page about counterfactuals: do they find lesions, are they repairs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from voxplain.errors import RecordError
from voxplain.records.counterfactual_evaluation import (
    CLASSIFIER,
    JUDGE,
    TEST,
    Evaluation,
    pooled,
)
from voxplain.report.cohort_blocks import figure, figure_block, figures_block
from voxplain.report.cohort_page import without_folders
from voxplain.report.cohort_rows import counted, spaced
from voxplain.report.colours import legend_css
from voxplain.report.counterfactual_grid import grid
from voxplain.report.counterfactual_plots import (
    iou_bars,
    iou_curves,
    reliability,
    training_curves,
)
from voxplain.report.counterfactual_tables import (
    cost_block,
    overlap_blocks,
    pooled_blocks,
    repair_blocks,
    validity_blocks,
)
from voxplain.report.counterfactual_verdicts import (
    COUNTERFACTUAL,
    GOOD,
    TRICK,
    VALID,
    quality_of,
    verdicts,
)
from voxplain.report.html import plain, write_page
from voxplain.report.page import flat_rows
from voxplain.report.wording import seconds

CONFIG = "config"
"""Key of the provenance under which a run's configuration is told apart."""

_MOST_OPEN = 3  # trainings whose curves are not folded away

_SECTIONS = (
    ("overlap", "Do the masks find the lesions"),
    ("validity", "Do the repairs turn the classifier, and the judge"),
    ("repairs", "What the repairs change"),
    ("cost", "Cost"),
)
_READING = (
    f"Better: the generator chosen on validation slices leads both rivals, which are the best of "
    f"their kind on the test slices, by a paired interval above 0. Repair: classifier and "
    f"judge are turned alike; trick: validity by the judge is lower by more than {TRICK:g}; "
    "redrawn: further from the clean picture than the anomaly was, where that is known; fails: "
    f"validity by the classifier is below {VALID:g}; not judged: there is no judge with an AUROC "
    f"of at least {GOOD:g}."
)
_PICTURE_WORDS = (
    "Each generator has its counterfactual x′, the signed change (orange brighter, blue darker; "
    "one scale for all, up to the largest change or threshold), and its mask; every other method "
    "its mask, at the threshold tuned on validation slices (else the fixed one). p: probability of "
    "abnormal by the classifier, judge: by the judge."
)


def write_counterfactual_report(
    evaluations: Evaluation | Mapping[str, Evaluation],
    path: Path | str,
    *,
    name: str = "Counterfactuals",
    logs: Mapping[str, pd.DataFrame] | None = None,
    calibration: pd.DataFrame | None = None,
    notes: Sequence[str] = (),
    seeds: pd.DataFrame | None = None,
) -> Path:
    """Write a page that opens from disk, without network, in any browser.

    It tells what was found, shows slices with every method's mask, then overlap, validity, what
    repairs change, training, and how all was made. Patients' identifiers are not on it; names
    of cases are.

    Parameters
    ----------
    evaluations
        One; or several by the name of their run, of which one is shown at a time.
    path
        File to write; replaced whole or not at all.
    name
        Of the run or runs.
    logs
        Training logs by what was trained: ``step``, numbers, ``seconds``; a term on validation
        slices begins with ``val_``.
    calibration
        Reliability of the classifier: ``mean_probability, share_abnormal, n`` a bin.
    notes
        What a reader must know of the data.
    seeds
        Columns `voxplain.records.counterfactual_evaluation.POOLED`; None: made from
        `evaluations` where there are several.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RecordError
        If there is no evaluation.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    runs = {"": evaluations} if isinstance(evaluations, Evaluation) else dict(evaluations)
    if not runs:
        raise RecordError(
            "a report of counterfactuals needs an evaluation; voxplain counterfactual evaluate "
            "makes one"
        )
    if seeds is None and len(runs) > 1:
        seeds = pooled(runs)
    first = next(iter(runs.values()))
    page: dict[str, Any] = {
        "template": "counterfactual.html.j2",
        "styles": ("lesions.css", "cohort.css", "assess.css", "counterfactual.css"),
        "name": name,
        "facts": _facts(runs),
        "notes": list(notes),
        "runs": pooled_blocks(seeds) if seeds is not None else [],
        "parts": [_part(title, evaluation) for title, evaluation in runs.items()],
        "reading": _READING,
        "picture_words": _PICTURE_WORDS,
        "bar": legend_css(),
        "sections": [{"id": key, "head": head} for key, head in _SECTIONS],
        "training": _training(logs or {}, calibration),
        "configs": _configs(runs),
        "provenance": _provenance(runs),
        "version": dict(first.provenance.get("versions", {})).get("voxplain", ""),
    }
    return write_page(plain(page, ("page.js",)), path)


def _part(title: str, evaluation: Evaluation) -> dict[str, Any]:
    """Everything of one run, by section."""
    return {
        "title": title,
        "verdicts": verdicts(evaluation),
        "grid": grid(evaluation),
        "overlap": [*_overlap_figures(evaluation), *overlap_blocks(evaluation)],
        "validity": validity_blocks(evaluation),
        "repairs": repair_blocks(evaluation),
        "cost": [cost_block(evaluation)],
    }


def _overlap_figures(evaluation: Evaluation) -> list[dict[str, Any]]:
    methods, curves = evaluation.tables["methods"], evaluation.tables["curves"]
    ordered = methods.sort_values("iou_tuned", ascending=False, kind="stable")
    found = [
        (
            "IoU with intervals",
            "Disc: at the threshold tuned on validation slices; ring: at the fixed one. Lines: "
            "interval, patients drawn with replacement.",
            iou_bars(methods),
        ),
        (
            "IoU against the threshold",
            "A broad top means that the threshold matters little. Disc: the tuned threshold; "
            "ring: the fixed one. Each attribution map is scaled so that its smallest pixel is 0 "
            "and its largest 1, on every slice; changes and intensities are taken as they are.",
            iou_curves(curves[curves["part"] == TEST], ordered),
        ),
    ]
    return [figure_block(title, words, made) for title, words, made in found if made is not None]


def _training(
    logs: Mapping[str, pd.DataFrame], calibration: pd.DataFrame | None
) -> list[dict[str, Any]]:
    blocks = []
    drawn = reliability(calibration) if calibration is not None else None
    if drawn is not None:
        words = (
            "On the dashed line the probability is what happens; above it the classifier is too "
            "shy, below too sure. Larger discs hold more slices."
        )
        blocks.append(figure_block("Calibration of the classifier", words, drawn))
    for what, log in logs.items():
        drawing = training_curves(log)
        if drawing is None:
            continue
        has_validation = any(str(column).startswith("val_") for column in log.columns)
        words = "Each term against the step, training blue"
        words += ", validation slices orange." if has_validation else "."
        made = figure("" if len(logs) > _MOST_OPEN else f"Training of {what}", words, drawing)
        made["alt"] = f"training curves of {what}"
        is_folded = len(logs) > _MOST_OPEN
        blocks.append(
            figures_block(f"Training of {what}", [made])
            if is_folded
            else {"kind": "figure", "figure": made}
        )
    return blocks


def _facts(runs: Mapping[str, Evaluation]) -> list[tuple[str, str, str]]:
    """Give what was evaluated: a word, how many, and which."""
    first = next(iter(runs.values()))
    methods, slices = first.tables["methods"], first.tables["slices"]
    known = slices.drop_duplicates("slice")
    n_abnormal = int((known["label"] == 1).sum())
    own, others = (
        [str(name) for name in methods[(methods["kind"] == COUNTERFACTUAL) == is_own]["method"]]
        for is_own in (True, False)
    )
    facts = [
        ("generators", str(len(own)), _first(own, 12)),
        ("other methods", str(len(others)), _first(others)),
        (
            "test slices", spaced(len(known)),
            f"{n_abnormal} abnormal, {len(known) - n_abnormal} normal; "
            f"{counted(known['patient'].nunique(), 'patient')}",
        ),
    ]  # fmt: skip
    areas = [(by, row["auroc"]) for by in (CLASSIFIER, JUDGE) if (row := quality_of(first, by))]
    told = [(by, f"{area:.2f}") for by, area in areas if not math.isnan(area)]
    if told:
        rest = ", ".join(f"{by} {area}" for by, area in told[1:])
        facts.append((f"AUROC of the {told[0][0]}", told[0][1], rest))
    if len(runs) > 1:
        facts.append(("runs", str(len(runs)), ", ".join(runs)))
    total = sum(float(one.provenance.get("seconds", 0.0)) for one in runs.values())
    if total:
        facts.append(("time to evaluate", seconds(total), ""))
    return facts


def _first(names: Sequence[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _configs(runs: Mapping[str, Evaluation]) -> list[tuple[str, str]]:
    """Give each run's configuration as YAML."""
    return [
        (
            f"config.yaml of {title}" if title else "config.yaml",
            without_folders(
                yaml.safe_dump(
                    _plain(one.provenance[CONFIG]), sort_keys=False, allow_unicode=True, width=88
                )
            ),
        )
        for title, one in runs.items()
        if CONFIG in one.provenance
    ]


def _provenance(runs: Mapping[str, Evaluation]) -> list[tuple[str, str]]:
    told: dict[str, Any] = {}
    for title, one in runs.items():
        own = {key: value for key, value in one.provenance.items() if key != CONFIG}
        told |= {title: own} if len(runs) > 1 else own
    return [(key, without_folders(value)) for key, value in flat_rows(_plain(told))]


def _plain(values: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found
