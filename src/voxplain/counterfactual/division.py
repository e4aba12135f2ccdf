"""Which cases, or which slices of them, are learned from, tuned on and tested on."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from voxplain.counterfactual.config import SplitConfig
from voxplain.data import Case
from voxplain.errors import DataError, all_faults

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Division:
    """Where the slices of each case go.

    Parameters
    ----------
    cases
        Cases of each of `PARTS`; those of `blocks` begin as training cases.
    blocks
        Parts that training cases are cut into blocks for, ``train`` first; empty: whole cases.
    split
        Shares and gap.
    seed
        Of the draws.
    notes
        What a reader must know.
    """

    cases: Mapping[str, tuple[Case, ...]]
    blocks: tuple[str, ...]
    split: SplitConfig
    seed: int
    notes: tuple[str, ...] = ()

    @cached_property
    def _part_of(self) -> dict[str, str]:
        return {case.name: part for part, cases in self.cases.items() for case in cases}

    def parts(self, case: Case, kept: Sequence[int]) -> dict[str, list[int]]:
        """Divide the slices of a case.

        Parameters
        ----------
        case
            One of `cases`.
        kept
            Numbers of its slices, rising.

        Returns
        -------
        dict
            Numbers of slices by part. Blocks of neighbours, in an order drawn for each case;
            where two meet, slices are left out of the longer one until numbers differ by more
            than the gap. A case with too few slices for one in every block is trained on.
        """
        own = self._part_of[case.name]
        if own != "train" or not self.blocks:
            return {own: list(kept)}
        shares = {"validation": self.split.validation, "test": self.split.test}
        lengths = {p: max(1, round(shares[p] * len(kept))) for p in self.blocks if p != "train"}
        lengths["train"] = len(kept) - sum(lengths.values())
        rng = np.random.default_rng(
            [self.seed, zlib.crc32(b"blocks"), zlib.crc32(case.name.encode())]
        )
        order = [self.blocks[i] for i in rng.permutation(len(self.blocks))]
        blocks, start = [], 0
        for part in order:
            blocks.append(list(kept[start : start + lengths[part]]))
            start += lengths[part]
        for before, after in pairwise(blocks):
            while before and after and after[0] - before[-1] <= self.split.gap:
                if len(before) >= len(after):
                    before.pop()
                else:
                    after.pop(0)
        if lengths["train"] < 1 or not all(blocks):
            return {"train": list(kept)}
        return dict(zip(order, blocks, strict=True))


def patient_of(case: Case) -> str:
    """Return what is the same for cases of one patient: without one, the case's name."""
    return case.name if case.patient is None else case.patient


def divide(
    cases: Sequence[Case],
    split: SplitConfig,
    seed: int,
    group_of: Callable[[Case], str] | None = None,
) -> Division:
    """Divide cases into training, validation and test: as they say, else by patient at random.

    Parameters
    ----------
    cases
        If any says its split, those that say none are left out, and only parts that no case is
        in are drawn, from the training cases.
    split
        How parts are drawn: of n patients, round(share·n), at least one.
    seed
        Of the draw.
    group_of
        Each group of patients is divided by itself, so that every part has of each; a patient
        is in the last group, by name, of the cases'. None: there is one group.

    Raises
    ------
    DataError
        If there are too few patients, or one is in two parts; all faults are in one message.
    """
    notes: list[str] = []
    given: dict[str, tuple[Case, ...]] = {
        part: tuple(case for case in cases if case.split == part) for part in PARTS
    }
    silent = [case for case in cases if case.split is None]
    if len(silent) == len(cases):
        given["train"] = tuple(cases)
    elif silent:
        notes.append(f"{len(silent)} cases say no split, as others do, and are left out")
    faults = _in_two(given)
    missing = tuple(part for part in PARTS[1:] if not given[part])
    blocks: tuple[str, ...] = ()
    if missing and split.by == "slices":
        blocks = ("train", *missing)
        notes.append(
            f"{' and '.join(missing)} slices are of the same patients as the training slices "
            "(data.split.by=slices): results are too good; only for a try"
        )
    elif missing:
        drawn, wrong = _drawn(given["train"], split, missing, seed, group_of)
        given.update(drawn)
        faults += wrong
    if not given["train"] and not missing:
        faults.append("no case is of the split train")
    if faults:
        raise DataError(all_faults("split", faults))
    return Division(given, blocks, split, seed, tuple(notes))


def _in_two(given: Mapping[str, tuple[Case, ...]]) -> list[str]:
    patients = {part: {patient_of(case) for case in cases} for part, cases in given.items()}
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    return [
        f"{n} patients are in {a} and in {b}; give all cases of a patient one split"
        for a, b in pairs
        if (n := len(patients[a] & patients[b]))
    ]


def _drawn(
    cases: Sequence[Case],
    split: SplitConfig,
    missing: tuple[str, ...],
    seed: int,
    group_of: Callable[[Case], str] | None,
) -> tuple[dict[str, tuple[Case, ...]], list[str]]:
    """Draw the missing parts from the training cases, by patient and group."""
    groups: dict[str, str] = {}
    for case in cases:
        name = "" if group_of is None else group_of(case)
        groups[patient_of(case)] = max(name, groups.get(patient_of(case), name))
    part_of: dict[str, str] = {}
    faults = [] if groups else ["there is no case to draw from"]
    shares = {"validation": split.validation, "test": split.test}
    for group in sorted(set(groups.values())):
        patients = sorted(p for p in groups if groups[p] == group)
        lengths = [max(1, round(shares[part] * len(patients))) for part in missing]
        if sum(lengths) >= len(patients):
            faults.append(
                f"{len(patients)} {group + ' ' if group else ''}patients are too few for train, "
                f"{' and '.join(missing)} with shares of {split.validation:g} and {split.test:g}; "
                "add cases, or for a try say data.split.by=slices"
            )
            continue
        rng = np.random.default_rng(
            [seed, zlib.crc32(b"division"), zlib.crc32(group.encode()), len(patients)]
        )
        mixed = [patients[i] for i in rng.permutation(len(patients))]
        for part, n in zip(missing, lengths, strict=True):
            part_of |= dict.fromkeys(mixed[:n], part)
            mixed = mixed[n:]
    drawn = {
        part: tuple(case for case in cases if part_of.get(patient_of(case), "train") == part)
        for part in ("train", *missing)
    }
    return drawn, faults
