"""Columns of a wide table in Agg²Exp's style: which number of which target and region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxplain.errors import DataError, all_faults
from voxplain.space.labelmap import BACKGROUND

JOINT = "_explanation_in_"
OWN_ENDINGS = {
    "share": "_mass", "mean": "_mean", "positive": "_positive", "negative": "_negative",
}  # fmt: skip
# shares of the positive part alone and of the negative part alone
SIGNED_ENDINGS = {
    "_pos_mass": "positive", "_mass_pos": "positive",
    "_neg_mass": "negative", "_mass_neg": "negative",
}  # fmt: skip
AGREEMENT_ENDINGS = {"_dice": "dice", "_iou": "iou"}
MAP_ENDINGS = ("_explanation_var", "_explanation_mean")
_ENDINGS = {
    **{end: value for value, end in OWN_ENDINGS.items()}, **SIGNED_ENDINGS,
}  # fmt: skip
_CASES = ("case", "caseid", "id", "imageid", "studyinstanceuid")
_PATIENTS = ("patient", "patientid")
_UNNAMED = ("", "Unnamed: 0", "__index_level_0__")


@dataclass(frozen=True)
class WideColumns:
    """What the columns of a wide table hold.

    Parameters
    ----------
    case, patient
        Columns with the names; the same if there is one.
    targets, regions
        In the order in which they come.
    values
        Column by value (``share``, ``mean``, ``positive``, ``negative``), target and region.
    signed
        Those of the values that are shares of one sign alone.
    agreement
        Column by ``dice`` or ``iou`` and class.
    metadata
        Columns that are metadata.
    left_out
        Columns that are not read, each with the reason.
    """

    case: str
    patient: str
    targets: tuple[str, ...]
    regions: tuple[str, ...]
    values: dict[tuple[str, str, str], str]
    signed: frozenset[str]
    agreement: dict[tuple[str, str], str]
    metadata: tuple[str, ...]
    left_out: dict[str, str]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Targets and regions with a column, by target, then by region."""
        known = {(target, region) for _, target, region in self.values}
        return [(t, r) for t in self.targets for r in self.regions if (t, r) in known]

    @property
    def classes(self) -> list[str]:
        """Classes with a Dice or an IoU."""
        return list(dict.fromkeys(name for _, name in self.agreement))

    @property
    def numbers(self) -> list[str]:
        """Columns that hold numbers."""
        return [*self.values.values(), *self.agreement.values()]


def wide_columns(file: Path, names: Sequence[str], case_column: str | None) -> WideColumns:
    """Tell what each column of a wide table is.

    Parameters
    ----------
    file
        For messages.
    names
        Of the columns, in their order.
    case_column
        The column that names cases; None: the one that is called so.

    Raises
    ------
    DataError
        If two columns have one name or one meaning, a name can be split in two ways, no column
        is a share, or the column of cases is missing or could be several.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{file}: columns of one name: {', '.join(map(repr, twice))}; rename one")
    values, faults = _values(names)
    if not any(value == "share" for value, _, _ in values):
        faults.append(
            f"no column <target>{JOINT}<region>_mass among {len(names)} columns; a wide table is "
            "a CSV separated by commas (or Parquet) with a row for each case. Where shares are "
            "told by sign only, rename the columns of one sign, e.g. …_mass_pos to …_mass"
        )
    if faults:
        raise DataError(all_faults(str(file), faults))
    targets = tuple(dict.fromkeys(target for _, target, _ in values))
    regions = tuple(dict.fromkeys(region for _, _, region in values))
    case, patient, left_out = _names_of_cases(file, names, case_column)
    told = {*values.values(), case, patient, *left_out}
    agreement = {}
    for name in names:
        for end, what in AGREEMENT_ENDINGS.items():
            if name.removesuffix(end) in {*targets, *regions} and name.endswith(end):
                agreement[what, name.removesuffix(end)] = name
        for end in MAP_ENDINGS:
            if name.endswith(end) and name.removesuffix(end) in targets:
                left_out[name] = "mean or variance of a whole map"
    told |= {*agreement.values(), *left_out}
    return WideColumns(
        case, patient, targets, regions, values,
        frozenset(n for n in values.values() if n.endswith(tuple(SIGNED_ENDINGS))),
        agreement, tuple(name for name in names if name not in told), left_out,
    )  # fmt: skip


def candidates(columns: WideColumns) -> tuple[str, ...]:
    """Regions that may overlap others: neither a target nor the background."""
    return tuple(r for r in columns.regions if r not in (*columns.targets, BACKGROUND))


def _values(names: Sequence[str]) -> tuple[dict[tuple[str, str, str], str], list[str]]:
    """Column by value, target and region; and what is wrong with the names."""
    found: dict[tuple[str, str, str], str] = {}
    faults = []
    split = {}
    for name in names:
        target, joint, rest = name.partition(JOINT)
        if not joint:
            continue
        ends = [end for end in _ENDINGS if rest.endswith(end)]
        if JOINT in name[len(target) + 1 :]:
            faults.append(f"{name!r} can be split in several ways at {JOINT!r}; rename the class")
        elif not ends or not target:
            faults.append(
                f"{name!r} is not <target>{JOINT}<region> with one of the endings "
                f"{', '.join(_ENDINGS)}"
            )
        else:
            split[name] = target, rest, ends
    # regions that are told beyond doubt: x_pos_mass is of x, unless there is an x_pos
    sure = {target for target, _, _ in split.values()} | {
        rest.removesuffix(ends[0]) for _, rest, ends in split.values() if len(ends) == 1
    }
    for name, (target, rest, ends) in split.items():
        readings = [(end, rest.removesuffix(end)) for end in ends]
        known = [one for one in readings if one[1] in sure]
        if len(readings) > 1 and len(known) != 1:
            faults.append(
                f"{name!r} could be of {' or of '.join(repr(region) for _, region in readings)}; "
                "rename the class"
            )
            continue
        end, region = (known or readings)[0]
        key = (_ENDINGS[end], target, region)
        if not region or key in found:
            faults.append(
                f"{name!r} tells the same as {found[key]!r}" if region else f"{name!r}: no region"
            )
        found[key] = name
    return found, faults


def _names_of_cases(
    file: Path, names: Sequence[str], chosen: str | None
) -> tuple[str, str, dict[str, str]]:
    """Columns of case and patient, and others of that kind with the reason they are left out."""
    plain = {name: name.lower().replace("_", "").replace(" ", "") for name in names}
    cases = [name for name in names if plain[name] in _CASES]
    patients = [name for name in names if plain[name] in _PATIENTS]
    unnamed = [name for name in names[:1] if name in _UNNAMED]
    if chosen is not None:
        if chosen not in names:
            first = ", ".join(map(repr, names[:5]))
            raise DataError(
                f"{file}: no column {chosen!r} to name cases; its first columns are {first}"
            )
        cases, patients = [chosen], [name for name in patients if name != chosen]
    if len(cases) > 1:
        raise DataError(
            f"{file}: {' and '.join(map(repr, cases))} could each name the cases; choose one with "
            "case_column (--case-column)"
        )
    if len(patients) > 1:
        raise DataError(
            f"{file}: {' and '.join(map(repr, patients))} could each name the patients; take one "
            "out, or choose it as case_column (--case-column)"
        )
    own = [*cases, *patients] or unnamed
    if not own:
        raise DataError(
            f"{file}: no column names the cases (case, id, patient, patient_id, image_id, "
            "StudyInstanceUID, or a first one without a name); choose one with case_column "
            "(--case-column)"
        )
    case, patient = own[0], (patients or own)[0]
    rest = [n for n in names if n in unnamed or plain[n] in (*_CASES, *_PATIENTS)]
    return case, patient, {
        name: "another name of the case" for name in rest if name not in (case, patient)
    }  # fmt: skip
