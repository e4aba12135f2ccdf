"""Results of a study on disk: three Parquet datasets that only ever grow by whole files."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import OutputError, RecordError
from voxplain.records.cohort_table import CohortTable, CohortValue
from voxplain.records.region_table import COLUMNS as REGION_COLUMNS
from voxplain.records.unfinished import PLAN_FILE, plan_digest, read_plan
from voxplain.space.write import atomic_file
from voxplain.study.cube import Filler

DONE: Literal["done"] = "done"
FAILED: Literal["failed"] = "failed"
REGIONS, CLASSES, RUNS, PLANES = "regions", "classes", "runs", "planes"
CASES_FILE = "cases.parquet"

CLASS_COLUMNS = (
    "case", "model", "method", "class", "dice", "iou", "n_predicted", "n_true", "probability",
)  # fmt: skip
RUN_COLUMNS = (
    "case", "model", "method", "status", "reason", "stamp", "image_sha256", "codes", "n_forward",
    "n_backward", "seconds", "peak_memory_bytes", "worker", "version", "created", "written", "plan",
)  # fmt: skip
_BLOCKS = "model=*/method=*/*.parquet"


@dataclass(frozen=True, eq=False)
class CaseResult:
    """One case by one model and method.

    Parameters
    ----------
    run
        Values of `RUN_COLUMNS`: whether it is done or why it failed, and what it cost.
    regions, classes
        Rows of the other two tables; none of a failed case.
    planes
        Pictures for the report, see `Store.planes`.
    """

    run: Mapping[str, Any]
    regions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*REGION_COLUMNS]))
    classes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*CLASS_COLUMNS]))

    planes: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def partition(self) -> tuple[str, str]:
        """Model and method."""
        return self.run["model"], self.run["method"]


class Store:
    """A folder with the results of a study.

    ``regions``, ``classes`` and ``runs`` are Parquet datasets, partitioned by model and method.
    What finishes together is a block: a file of one name in each of the three, written in that
    order, each whole or not at all. A block counts when its file in ``runs`` is there; of a case
    that was run again the latest row counts, or of the same files the latest that is done.
    Nothing is ever changed in place, so a process that is killed at any moment leaves a store
    that can be read and gone on with.

    Parameters
    ----------
    folder
        With ``plan.json``.

    Raises
    ------
    RecordError
        If the folder holds no study.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / PLAN_FILE).is_file():
            raise RecordError(
                f"{self.folder} holds no study (no {PLAN_FILE}); make one with voxplain study run "
                "or voxplain study import"
            )
        self.plan = read_plan(self.folder)
        self._plan_sha256 = plan_digest(None, self.plan, "results")
        self._written: int | None = None

    @classmethod
    def create(cls, folder: Path | str, plan: Mapping[str, Any], cases: pd.DataFrame) -> Store:
        """Make a store, or go on with the one that is there.

        Parameters
        ----------
        folder
            Made if it is missing.
        plan
            Everything that decides a result but the cases, as plain values; ``targets`` and
            ``regions`` are names in the order of tables, ``extra_regions`` those that overlap.
        cases
            Index ``case``, column ``patient``, metadata; replaces the list that is there, so
            that a cohort can grow. Results of cases that are not listed are not read.

        Raises
        ------
        OutputError
            If the folder holds a study with another plan, or cannot be written.
        """
        folder = Path(folder)
        plan_digest(folder, plan, "results")
        with atomic_file(folder / CASES_FILE) as temporary:
            cases.reset_index().to_parquet(temporary, index=False)
        return cls(folder)

    @staticmethod
    def clear(folder: Path | str) -> None:
        """Remove the results of a study from a folder, and nothing else in it.

        Raises
        ------
        OutputError
            If something cannot be removed; the folder then still holds the study.
        """
        folder = Path(folder)
        if not (folder / PLAN_FILE).is_file():
            return
        for place in (folder / name for name in (RUNS, REGIONS, CLASSES, PLANES)):
            if not place.exists():
                continue
            try:
                shutil.rmtree(place)
            except OSError as error:
                raise OutputError(
                    f"{place} cannot be removed ({error}); end what has a file in it open, see "
                    "that you may write there, or give another folder"
                ) from error
        (folder / CASES_FILE).unlink(missing_ok=True)
        (folder / PLAN_FILE).unlink()

    def cases(self) -> pd.DataFrame:
        """Cases in the order of the study: index ``case``, ``patient``, metadata."""
        return _read(self.folder / CASES_FILE).set_index("case")

    def add(self, results: Sequence[CaseResult]) -> None:
        """Write results, a block for each model and method among them.

        Raises
        ------
        OutputError
            If they cannot be written; those of a block are lost together, not in part.
        """
        for partition in dict.fromkeys(result.partition for result in results):
            own = [result for result in results if result.partition == partition]
            for result in own:  # before what tells that the case is done
                self._add_planes(result)
            runs = pd.DataFrame([dict(result.run) for result in own])[[*RUN_COLUMNS]]
            rows = [
                [frame for frame in frames if len(frame)]
                for frames in ([one.regions for one in own], [one.classes for one in own])
            ]
            regions, classes = (
                pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
                for frames in rows
            )
            write_block(
                self.folder, regions, classes, runs,
                written=self._next_time(), plan=self._plan_sha256,
            )  # fmt: skip

    def _next_time(self) -> int:
        """Nanoseconds since 1970 by this machine's clock, but later than all that is written."""
        if self._written is None:
            self._every_run()
        self._written = max(time.time_ns(), (self._written or 0) + 1)
        return self._written

    def runs(self) -> pd.DataFrame:
        """Latest state of every case, model and method that was tried: `RUN_COLUMNS`, ``block``.

        The one that was written last, whatever the clocks of workers say; but a failure hides no
        result of the same files (``stamp``). Only of listed cases and this plan, ordered by
        model, method and the order of cases.
        """
        frame = self._every_run()
        frame = frame[frame["plan"].isin(("", self._plan_sha256))]
        frame = frame.sort_values(["written", "block"], kind="stable", ignore_index=True)
        key = ["model", "method", "case"]
        latest = frame.groupby(key)["stamp"].transform("last")
        frame = frame[frame["stamp"] == latest]
        frame = frame.iloc[np.argsort(frame["status"] == DONE, kind="stable")]
        frame = frame.drop_duplicates(key, keep="last")
        order = {case: i for i, case in enumerate(self.cases().index)}
        frame = frame[frame["case"].isin(order)].assign(_order=lambda rows: rows["case"].map(order))
        return frame.sort_values(["model", "method", "_order"], ignore_index=True).drop(
            columns="_order"
        )

    def n_blocks(self) -> int:
        """Count the blocks, of all models and methods."""
        return sum(1 for _ in (self.folder / RUNS).glob(_BLOCKS))

    def _every_run(self) -> pd.DataFrame:
        """Rows of every block: `RUN_COLUMNS`, ``block``."""
        files = sorted((self.folder / RUNS).glob(_BLOCKS))
        if not files:
            return pd.DataFrame(columns=[*RUN_COLUMNS, "block"])
        frame = pd.concat([_read(file).assign(block=file.stem) for file in files])
        self._written = max(self._written or 0, int(frame["written"].max()))
        return frame

    def classes(self, model: str, method: str) -> pd.DataFrame:
        """Rows of `CLASS_COLUMNS` of the cases that are done, in the order of cases."""
        done = self._done(model, method)
        chosen = dict(zip(done["case"], done["block"], strict=True))
        return self._classes_of(model, method, chosen)

    def _classes_of(self, model: str, method: str, chosen: Mapping[str, str]) -> pd.DataFrame:
        frames = []
        for file, cases in self._blocks(CLASSES, (model, method), chosen):
            rows = _read(file)
            frames.append(rows[rows["case"].isin(cases)])
        if not frames:
            return pd.DataFrame(columns=[*CLASS_COLUMNS])
        order = {case: i for i, case in enumerate(chosen)}
        rows = pd.concat(frames, ignore_index=True)
        place = rows["case"].map(order).to_numpy()
        return rows.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)

    def table(
        self, model: str, method: str, values: Sequence[CohortValue] = ("share",)
    ) -> CohortTable:
        """Read the region sums of every case that is done.

        Parameters
        ----------
        model, method
            Labels of the plan; see `partitions`.
        values
            Columns to read; memory is 8 bytes × cases × targets × regions for each.

        Returns
        -------
        CohortTable
            Its `cases` also have ``image_sha256``, where it is known (not of imported studies).

        Raises
        ------
        RecordError
            If there is no result of this model and method, or a file is damaged.
        """
        done = self._done(model, method)
        chosen = dict(zip(done["case"], done["block"], strict=True))
        if not chosen:
            raise RecordError(f"{self.folder} holds no finished case of {model} · {method}")
        filler = Filler(
            list(chosen), self.plan.get("targets", ()), self.plan.get("regions", ()), values
        )
        lost = set(chosen.values())
        for file, cases in self._blocks(REGIONS, (model, method), chosen):
            filler.add(file, cases)
            lost.discard(file.stem)
        if lost:
            place = _place(self.folder, REGIONS, (model, method))
            raise RecordError(
                f"{place / min(lost)}.parquet is missing: its cases are told to be done; bring it "
                f"back, or remove the file of that name in {RUNS} to have them explained again"
            )
        targets, regions, arrays = filler.finish()
        dice = self._classes_of(model, method, chosen)
        wide = dice.pivot(index="case", columns="class", values="dice") if len(dice) else dice
        listed = self.cases().loc[list(chosen)]
        if done["image_sha256"].any():
            listed = listed.assign(image_sha256=done["image_sha256"].to_numpy())
        return CohortTable(
            model, method, listed, targets, regions, arrays,
            wide.reindex(index=listed.index) if len(dice) else pd.DataFrame(),
            tuple(r for r in self.plan.get("extra_regions", ()) if r in regions),
        )  # fmt: skip

    def partitions(self) -> list[tuple[str, str]]:
        """Models and methods with a finished case, in the order of the plan."""
        runs = self.runs()
        found = runs.loc[runs["status"] == DONE, ["model", "method"]].drop_duplicates()
        known = [*self.plan.get("models", ()), *self.plan.get("methods", ())]
        rank = {name: i for i, name in enumerate(known)}
        pairs = list(found.itertuples(index=False, name=None))
        return sorted(pairs, key=lambda pair: [(rank.get(one, len(rank)), one) for one in pair])

    def planes(self, model: str, method: str, case: str) -> dict[str, NDArray[Any]]:
        """Three planes of a case; empty if none were kept.

        Returns
        -------
        dict
            ``axial:image`` (uint8, rows × columns, upright), ``axial:labels`` (the predicted
            labels there), likewise coronal and sagittal (of a 2D image only ``picture``);
            ``names``: name of each label, by position.
        """
        path = self._planes_file(model, method, case)
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def _add_planes(self, result: CaseResult) -> None:
        if not result.planes:
            return
        path = self._planes_file(*result.partition, result.run["case"])
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **dict(result.planes))

    def _planes_file(self, model: str, method: str, case: str) -> Path:
        # spread over folders: looking into one with a hundred thousand files takes long
        # and a hash is short enough for any file system, a percent-encoded name may not be
        name = hashlib.sha256(case.encode()).hexdigest()
        return _place(self.folder, PLANES, (model, method)) / name[:2] / f"{name}.npz"

    def _done(self, model: str, method: str) -> pd.DataFrame:
        """Pick the runs of the cases that are done, in the order of cases."""
        runs = self.runs()
        is_own = (runs["model"] == model) & (runs["method"] == method)
        return runs[is_own & (runs["status"] == DONE)]

    def _blocks(
        self, dataset: str, partition: tuple[str, str], chosen: Mapping[str, str]
    ) -> Iterator[tuple[Path, set[str]]]:
        """Files of a dataset, each with the cases that count in it."""
        cases_of: defaultdict[str, set[str]] = defaultdict(set)
        for case, block in chosen.items():
            cases_of[block].add(case)
        for file in sorted(_place(self.folder, dataset, partition).glob("*.parquet")):
            if file.stem in cases_of:
                yield file, cases_of[file.stem]


def write_block(
    folder: Path,
    regions: pd.DataFrame,
    classes: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    written: int | None = None,
    plan: str = "",
) -> None:
    """Write a block of a store: what a model and a method gave for some cases.

    Parameters
    ----------
    folder
        Of the store.
    regions, classes
        Rows of the cases that are done.
    runs
        Rows of `RUN_COLUMNS`, at least one, all of one model and method.
    written
        When, in nanoseconds since 1970; default: now.
    plan
        Hash of the study's plan; empty: counts in any.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    first = runs.iloc[0]
    partition, name = (first["model"], first["method"]), _block_name(runs)
    runs = runs.assign(written=time.time_ns() if written is None else written, plan=plan)
    # what tells that a block is there is written last
    for dataset, rows in ((REGIONS, regions), (CLASSES, classes), (RUNS, runs)):
        if len(rows):
            with atomic_file(_place(folder, dataset, partition) / name) as temporary:
                rows.to_parquet(temporary, index=False)


def _place(folder: Path, dataset: str, partition: tuple[str, str]) -> Path:
    model, method = (quote(name, safe="") for name in partition)
    return folder / dataset / f"model={model}" / f"method={method}"


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, partitioning=None)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise RecordError(f"{path} is damaged or missing: {error}") from error


def _block_name(runs: pd.DataFrame) -> str:
    """Name that tells a block from every other: of its cases, and when they were made."""
    told = json.dumps(runs[["case", "created"]].to_numpy().tolist())
    return f"block-{hashlib.sha256(told.encode()).hexdigest()[:20]}.parquet"


def failed_run(case: str, model: str, method: str, reason: str, **known: Any) -> dict[str, Any]:
    """Values of `RUN_COLUMNS` of a case that could not be explained."""
    return _run(case, model, method, FAILED, reason, known)


def done_run(case: str, model: str, method: str, **known: Any) -> dict[str, Any]:
    """Values of `RUN_COLUMNS` of a case that was explained."""
    return _run(case, model, method, DONE, "", known)


def _run(
    case: str, model: str, method: str, status: str, reason: str, known: Mapping[str, Any]
) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "stamp": "", "image_sha256": "", "codes": "", "n_forward": 0, "n_backward": 0,
        "seconds": 0.0, "peak_memory_bytes": 0, "worker": "", "version": "", "created": "",
        "written": 0, "plan": "",
    }  # fmt: skip
    values = {
        "case": case, "model": model, "method": method, "status": status, "reason": reason,
        **empty, **known,
    }  # fmt: skip
    return {name: values[name] for name in RUN_COLUMNS}
