"""Tables of many results of ``voxplain instances``, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from voxplain.errors import DataError, LabelError, all_faults
from voxplain.records.archive import INDEX, read_json
from voxplain.records.lesion_tables import INSTANCES, SALIENCY, SHELLS, check_columns, load_table

_TABLES = {"instances": INSTANCES, "saliency": SALIENCY, "shells": SHELLS}
_SAME = ["patient", "instance", "type", "class", "n_voxels"]
"""What two runs of a model on one case must agree on."""

_FOLDER = "folder"


def result_folders(folders: Iterable[Path | str]) -> list[Path]:
    """Find the results of ``voxplain instances`` in folders, at any depth.

    Parameters
    ----------
    folders
        Existing; a folder inside another one is counted once.

    Returns
    -------
    list of Path
        Folders with ``instances.parquet``, sorted.

    Raises
    ------
    DataError
        If a folder does not exist, or there is no result in one of them.
    """
    found: dict[Path, Path] = {}
    faults = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            faults.append(f"{folder} is not a folder")
            continue
        inside = sorted(file.parent for file in folder.rglob("instances.parquet"))
        if not inside:
            faults.append(f"{folder} holds no result of voxplain instances (instances.parquet)")
        for one in inside:
            found.setdefault(one.resolve(), one)
    if faults:
        raise DataError(all_faults("folders of results", faults))
    return sorted(found.values())


def gather(folders: Iterable[Path | str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Read the tables of all results in folders.

    Parameters
    ----------
    folders
        See `result_folders`.

    Returns
    -------
    instances, saliency, shells : pandas.DataFrame
        Columns `INSTANCES`, `SALIENCY`, `SHELLS` of `voxplain.records.lesion_tables`. A case
        may be there with several models, and with several methods in several folders: its
        lesions are then taken once.

    Raises
    ------
    DataError
        If a folder or a result is missing; a case, model and method is there twice; two runs of
        a model on a case found different lesions; a case has two patients; two models have one
        name; or there is no lesion at all. All faults are told together.
    RecordError
        If a file cannot be read.
    """
    places = result_folders(folders)
    read = {name: _concatenated(places, name) for name in _TABLES}
    instances, saliency = read["instances"], read["saliency"]
    faults = [*_twice(saliency), *_other_lesions(instances), *_patients(instances)]
    faults += _weights(places)
    if faults:
        raise DataError(all_faults("results of voxplain instances", faults))
    if instances.empty:
        raise DataError(
            f"{len(places)} results of voxplain instances have no lesion; lower --threshold or "
            "--min-voxels there"
        )
    instances = instances.drop_duplicates(["case", "model", "instance"], ignore_index=True)
    return tuple(  # type: ignore[return-value]
        table.drop(columns=_FOLDER) for table in (instances, saliency, read["shells"])
    )


def _concatenated(places: Sequence[Path], name: str) -> pd.DataFrame:
    columns = _TABLES[name]
    tables = []
    for place in places:
        table = load_table(place, name)
        try:
            check_columns(table, columns, name)
        except LabelError as error:
            raise DataError(f"{place}: {error}") from None
        tables.append(table[list(columns)].assign(**{_FOLDER: str(place)}))
    # an empty table has columns of no type, which would make those of the others objects
    full = [table for table in tables if len(table)] or tables[:1]
    joined = pd.concat(full, ignore_index=True)
    known = [name for name in ("case", "patient", "model", "instance") if name in columns]
    return joined.astype(dict.fromkeys(known, str))


def _twice(saliency: pd.DataFrame) -> list[str]:
    key = ["case", "model", "method"]
    faults = []
    for names, part in saliency.groupby(key):
        found = part[_FOLDER].unique()
        if len(found) > 1:
            case, model, method = map(str, names)
            faults.append(
                f"case {case}, model {model}, method {method} is there {len(found)} times, in "
                f"{' and '.join(found)}; leave one out, or name the cases with --case"
            )
    return faults


def _other_lesions(instances: pd.DataFrame) -> list[str]:
    faults = []
    for names, part in instances.groupby(["case", "model"]):
        case, model = map(str, names)
        runs = {
            str(place): {tuple(row) for row in one[_SAME].astype(str).itertuples(index=False)}
            for place, one in part.groupby(_FOLDER)
        }
        (first, known), *others = runs.items()
        for place, found in others:
            if found != known:
                faults.append(
                    f"case {case}, model {model} has {len(known)} lesions in {first} and "
                    f"{len(found)} in {place}, not the same ones; run both with the same "
                    "threshold, sizes and truth, or name the cases with --case"
                )
    return faults


def _patients(instances: pd.DataFrame) -> list[str]:
    faults = []
    for names, part in instances.groupby(["case"]):
        found = sorted(set(map(str, part["patient"])))
        if len(found) > 1:
            faults.append(
                f"case {names[0]!s} is of the patients {', '.join(found)}; a case has "
                "one patient (--patient)"
            )
    return faults


def _weights(places: Sequence[Path]) -> list[str]:
    known: dict[str, tuple[str, Path]] = {}
    faults = {}
    for place in places:
        if not (place / INDEX).exists():  # tables alone are enough to read
            continue
        made = read_json(place / INDEX, "voxplain lesions", 1).get("provenance", {})
        name, weights = str(made.get("model")), str(made.get("model_sha256"))
        first, where = known.setdefault(name, (weights, place))
        if first != weights:
            faults[name] = (
                f"model {name} has other weights in {where} than in {place}; give the two models "
                "different names, or study them one at a time"
            )
    return list(faults.values())
