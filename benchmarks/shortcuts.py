"""How well a study finds networks that learnt a shortcut, against viewing saliency maps.

For each kind of shortcut (`voxplain.demo.shortcuts`) and strength s (the sign goes with the class
with probability s, else by chance) small networks are trained, as many with s = 0: controls, in
whose pictures the sign is as frequent and tells nothing. Each is studied on the same 24 pictures,
in which sign and class are independent; targets are the margins of benign and malignant, summed
over their predicted masks. One number a network is then compared between planted
networks and controls of the same kind: AUROC, the probability that a planted one has the larger.

``study, region``: what an auditor asks who suspects a place: the share of integrated gradients
in the corner (marker), below the body (table edge), in the other organ (co-occurrence). The noise
has no place: the share of lesion voxels that are called malignant, between the scanners, as
|AUROC − ½|.
``study, bias``: −log10 of the smallest p of any region's share between the scanners
(Mann–Whitney; noise only).
``study, contextual``: nothing suspected: the share outside of the lesion.
``viewing, outside``: the share of the plain gradient outside of the true lesion.
``viewing, peak``: in how many pictures the largest gradient is outside of the true lesion.

``python -m benchmarks.shortcuts`` goes on where it was stopped: a line of JSON a network, in
``--lines`` (default /tmp/voxplain-shortcuts.jsonl). ``--quick``: 2 networks each at s = 0 and 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from voxplain.attribution import explain
from voxplain.attribution.gradient import Gradient
from voxplain.attribution.integrated import IntegratedGradients
from voxplain.attribution.parse import targets_of
from voxplain.data import Case, read_data
from voxplain.demo.shortcuts import (
    CLASSES,
    KINDS,
    MASKS,
    Kind,
    accuracy_drop,
    train_shortcut,
    write_scenes,
)
from voxplain.engine.run import run_study
from voxplain.engine.study import ModelPlace, Study
from voxplain.models.load import load_model
from voxplain.models.model import Model
from voxplain.records.cohort_table import CohortTable
from voxplain.study.store import Store

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
N_SEEDS, N_CASES, N_PROCESSES = 5, 24, 2
LESIONS = ("benign", "malignant")
PLACES = {"marker": "corner", "table_edge": "below_body", "cooccurrence": "other_organ"}
WAYS = (
    "study, region", "study, bias", "study, contextual", "viewing, outside", "viewing, peak"
)  # fmt: skip
LINES = Path(tempfile.gettempdir()) / "voxplain-shortcuts.jsonl"
Job = tuple[Kind, float, int]


def measure(job: Job) -> dict[str, Any]:
    """Train one network, study it, and tell the numbers by which it may be found."""
    torch.set_num_threads(1)
    kind, strength, seed = job
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        # a control and a planted network of one seed share neither pictures nor first weights
        drawn = 1000 * KINDS.index(kind) + 100 * STRENGTHS.index(strength) + seed
        train_shortcut(folder / "model", kind, strength, drawn)
        trained = time.perf_counter()
        cohort = read_data(write_scenes(folder / "data", kind, N_CASES))
        store = study(folder, cohort.cases)
        studied = time.perf_counter()
        module = whole_model(folder / "model").module
        agreeing, opposing = accuracy_drop(module, kind)
        own = store.table("model", "integrated_gradients")
        plain = store.table("model", "gradient")
        return {
            "kind": kind, "strength": strength, "seed": seed,
            "accuracy_agreeing": agreeing, "accuracy_opposing": opposing,
            "study, region": suspected(kind, store),
            "study, bias": smallest_p(own),
            "study, contextual": outside(own, LESIONS),
            "viewing, outside": outside(plain, LESIONS),
            "viewing, peak": missed_peaks(folder / "model", cohort.cases),
            "train_s": trained - start, "study_s": studied - trained,
        }  # fmt: skip


def whole_model(folder: Path) -> Model:
    """Load a network of one part."""
    model = load_model(folder)
    assert isinstance(model, Model)
    return model


def study(folder: Path, cases: Sequence[Case]) -> Store:
    """Run the study of one network."""
    model = whole_model(folder / "model")
    wanted = Study(
        models={"model": ModelPlace(str(folder / "model"))},
        cases=cases,
        methods={"integrated_gradients": IntegratedGradients(n=8), "gradient": Gradient()},
        targets=[f"class:{name}" for name in LESIONS],
        score="margin",  # benign against malignant; the logit is about lesion or none as well
        labels=dict(enumerate(CLASSES)),
        masks={name: str(folder / "data" / "masks" / f"{{case}}_{name}.png") for name in MASKS},
        sha256={"model": model.info.sha256},
        class_names=model.answers,
        region_names=model.info.class_names,
    )
    state = run_study(wanted, folder / "study")
    if state.n_done < state.n_tasks:
        raise RuntimeError(f"{state.n_failed} cases failed: {set(store_reasons(folder))}")
    return Store(folder / "study")


def store_reasons(folder: Path) -> Iterable[str]:
    """Reasons of the cases that failed."""
    runs = Store(folder / "study").runs()
    return map(str, runs.loc[runs["status"] == "failed", "reason"])


def mean_share(table: CohortTable, regions: Sequence[str]) -> float:
    """Mean over the cases in which a target exists, then over the targets."""
    shares = [table.of_target(t)[list(regions)].sum(axis=1, skipna=False) for t in table.targets]
    return float(np.nanmean([np.nanmean(one) for one in shares if one.notna().any()]))


def outside(table: CohortTable, regions: Sequence[str]) -> float:
    """Share of importance outside of regions."""
    return mean_share(table, [name for name in table.parts if name not in regions])


def suspected(kind: Kind, store: Store) -> float:
    """Tell the number of a study that bears on a kind of shortcut."""
    table = store.table("model", "integrated_gradients")
    if kind in PLACES:
        return mean_share(table, [PLACES[kind]])
    counts = store.classes("model", "integrated_gradients")
    wide = counts.pivot(index="case", columns="class", values="n_predicted")
    wide = wide.reindex(table.cases.index)
    called = wide["malignant"] / (wide["malignant"] + wide["benign"])
    return rank_difference(called, table)


def smallest_p(table: CohortTable) -> float:
    """−log10 of the smallest Mann–Whitney p of a region's share between the scanners."""
    is_b = (table.cases["scanner"] == "B").to_numpy()
    found = [1.0]
    for target in table.targets:
        shares = table.of_target(target).dropna(how="all")
        own = is_b[table.cases.index.isin(shares.index)]
        if 0 < own.sum() < len(own):
            p = stats.mannwhitneyu(shares[own], shares[~own], axis=0).pvalue
            found += [float(one) for one in np.ravel(p) if np.isfinite(one)]
    return float(-np.log10(min(found)))


def rank_difference(values: Any, table: CohortTable) -> float:
    """|AUROC − ½| of values between scanner A and B; NaN with fewer than 3 on a side."""
    is_b = (table.cases["scanner"] == "B").to_numpy()
    known = np.isfinite(values.to_numpy(float))
    a, b = values.to_numpy(float)[known & ~is_b], values.to_numpy(float)[known & is_b]
    return abs(auroc(b, a) - 0.5) if min(len(a), len(b)) >= 3 else np.nan


def missed_peaks(place: Path, cases: Sequence[Case]) -> float:
    """Share of the pictures and predicted classes whose largest gradient is off the lesion."""
    model = load_model(place)
    missed = []
    for case in cases:
        lesion = np.isin(case.read_labels(dict(enumerate(CLASSES))).layers[0], (4, 5))
        result = explain(
            model,
            case.read_image(["grey"]),
            targets_of([f"class:{n}" for n in LESIONS], model.answers, score="margin"),
            "gradient",
            keep=True,
        )
        for attribution in result.attributions.values():
            values = np.abs(attribution.values[0])
            if values.any():
                missed.append(not lesion.ravel()[values.argmax()])
    return float(np.mean(missed))


def auroc(planted: NDArray[np.float64], controls: NDArray[np.float64]) -> float:
    """Probability that the first has the larger value; ties count half."""
    above = planted[:, None] > controls[None, :]
    ties = planted[:, None] == controls[None, :]
    return float((above + ties / 2).mean())


def summarise(lines: Sequence[dict[str, Any]], n_boot: int = 2000) -> list[dict[str, Any]]:
    """AUROC of each way, kind and strength, with intervals that draw networks.

    ``all kinds``: the mean over the kinds, whose networks are only compared with their own.
    """
    rows = []
    for strength in STRENGTHS[1:]:
        for way in WAYS:
            drawn = []
            for kind in KINDS:
                rng = np.random.default_rng(0)
                pairs = [_values(lines, way, kind, s) for s in (strength, 0.0)]
                if (way == "study, bias" and kind != "noise") or not all(map(len, pairs)):
                    continue
                draws = [auroc(*(rng.choice(p, len(p)) for p in pairs)) for _ in range(n_boot)]
                rows.append(_row(way, kind, strength, auroc(*pairs), draws))
                rows[-1]["accuracy_drop"] = _drop(lines, kind, strength)
                drawn.append((rows[-1]["auroc"], draws))
            if len(drawn) == len(KINDS):
                values, of_kind = zip(*drawn, strict=True)
                total = np.mean(np.array(of_kind), axis=0)
                rows.append(_row(way, "all kinds", strength, float(np.mean(values)), total))
    return rows


def _values(
    lines: Sequence[dict[str, Any]], way: str, kind: Kind, strength: float
) -> NDArray[np.float64]:
    own = [one[way] for one in lines if one["kind"] == kind and one["strength"] == strength]
    return np.array(own, float)


def _drop(lines: Sequence[dict[str, Any]], kind: Kind, strength: float) -> float:
    agreeing = _values(lines, "accuracy_agreeing", kind, strength)
    return float((agreeing - _values(lines, "accuracy_opposing", kind, strength)).mean())


def _row(way: str, kind: str, strength: float, value: float, draws: Any) -> dict[str, Any]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "way": way, "kind": kind, "strength": strength, "auroc": value,
        "low": float(low), "high": float(high),
    }  # fmt: skip


def jobs(quick: bool) -> list[Job]:
    """List the networks: those of one seed first, so that a part is a whole small run."""
    seeds, strengths = (2, (0.0, 1.0)) if quick else (N_SEEDS, STRENGTHS)
    return [(k, s, seed) for seed in range(seeds) for s in strengths for k in KINDS]


def main(quick: bool = False, lines: Path = LINES) -> dict[str, Any]:
    """Measure what is not yet in the file of lines, and compare."""
    wanted = jobs(quick)
    found = [json.loads(one) for one in lines.read_text().splitlines()] if lines.exists() else []
    known = {(one["kind"], one["strength"], one["seed"]) for one in found}
    left = [job for job in wanted if job not in known]
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started now
    with context.Pool(N_PROCESSES) as pool, lines.open("a") as stream:
        for one in pool.imap_unordered(measure, left):
            stream.write(json.dumps(one) + "\n")
            stream.flush()
            found.append(one)
            print(f"  {len(found)}/{len(known) + len(left)} {one}", flush=True)
    own = [one for one in found if (one["kind"], one["strength"], one["seed"]) in set(wanted)]
    own.sort(key=lambda one: (one["kind"], one["strength"], one["seed"]))
    controls = {kind: _drop(own, kind, 0.0) for kind in KINDS}
    return {
        "networks": len(own),
        "networks_of_each": len({one["seed"] for one in own}),
        "cases": N_CASES,
        "seconds_a_network": float(np.mean([one["train_s"] + one["study_s"] for one in own])),
        "accuracy_drop_of_controls": controls,
        "curve": summarise(own),
    }


def table_of(curve: Sequence[dict[str, Any]]) -> str:
    """AUROC as a Markdown table: a row a way and kind, a column a strength."""
    cells = {
        (one["way"], one["kind"], one["strength"]): (
            f"{one['auroc']:.2f} ({one['low']:.2f}–{one['high']:.2f})"
        )
        for one in curve
    }
    strengths = sorted({key[2] for key in cells})
    rows = [
        "| way | kind | " + " | ".join(f"s = {s:g}" for s in strengths) + " |",
        "|---" * (2 + len(strengths)) + "|",
    ]
    for way, kind in dict.fromkeys(key[:2] for key in sorted(cells)):
        told = [cells.get((way, kind, s), "–") for s in strengths]
        rows.append(f"| {way} | {kind} | " + " | ".join(told) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few networks, to try it out")
    parser.add_argument("--lines", type=Path, default=LINES, help="a line of JSON a network")
    asked = parser.parse_args()
    told = main(asked.quick, asked.lines)
    print(json.dumps(told, indent=2))
    print(table_of(told["curve"]))
