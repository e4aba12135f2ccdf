"""Region-to-region importance as a tidy table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import LabelError, RecordError, TargetError
from voxplain.space.labelmap import nearest
from voxplain.space.write import atomic_file

COLUMNS = (
    "case", "model", "method", "target", "region", "channel",
    "share", "mean", "positive", "negative", "n_voxels",
)  # fmt: skip
Value = Literal["share", "mean", "positive", "negative", "n_voxels"]

_RUN = ["case", "model", "method"]
_KEYS = [*_RUN, "target", "region", "channel"]


@dataclass(frozen=True, eq=False)
class RegionTable:
    """One row per target, region and image channel.

    Columns: ``case, model, method, target, region, channel``; ``share`` of the map's L1 norm
    (0…1; over disjoint regions and channels the shares of a target sum to 1; NaN if the map
    is zero everywhere); ``mean`` of |a| per voxel of the region (NaN for an empty region);
    ``positive`` and ``negative``: sums of the positive and of the negative values (negative
    is ≤ 0), in the unit of the map; ``n_voxels`` of the region. Further columns are kept, such as
    ``share_error`` (see `with_errors`).

    Parameters
    ----------
    frame
        The rows; targets in the order asked for, regions in the order of their labels.

    Raises
    ------
    LabelError
        If a column is missing, or a case, model, method, target, region and channel have two
        rows.
    """

    frame: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [c for c in COLUMNS if c not in self.frame.columns]
        if missing:
            raise LabelError(
                f"a region table has the columns {', '.join(COLUMNS)}; missing: "
                f"{', '.join(missing)}"
            )
        twice = self.frame.duplicated(_KEYS)
        if twice.any():
            row = self.frame.loc[twice, _KEYS].iloc[0].to_dict()
            raise LabelError(f"{int(twice.sum())} rows of a region table came twice, e.g. {row}")

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets in the order asked for."""
        return tuple(self.frame["target"].unique())

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions in the order of their labels."""
        return tuple(self.frame["region"].unique())

    def matrix(self, value: Value = "share") -> pd.DataFrame:
        """Targets × regions of one case, model and method.

        Parameters
        ----------
        value
            Column to show. Channels are summed, also of ``mean`` (it is then the mean of
            Σ|a| over channels, for all have the same voxels); not of ``n_voxels``.

        Returns
        -------
        DataFrame
            Index ``target`` in the order asked for, columns ``region`` in label order.

        Raises
        ------
        LabelError
            If the table holds several cases, models or methods, or the value is unknown.
        """
        if value not in get_args(Value):
            raise LabelError(f"no value {value!r}{nearest(value, get_args(Value))}")
        runs = self.frame[_RUN].drop_duplicates()
        if len(runs) > 1:
            raise LabelError(
                f"a matrix is of one case, model and method, the table holds {len(runs)}: choose "
                "one, e.g. RegionTable(table.frame.query('case == …')).matrix()"
            )
        by_channel = self.frame.set_index(["target", "region", "channel"])[value].unstack()
        wide = (
            by_channel.iloc[:, 0] if value == "n_voxels" else by_channel.sum(axis=1, skipna=False)
        ).unstack()
        return wide.reindex(
            index=pd.Index(self.targets, name="target"),
            columns=pd.Index(self.regions, name="region"),
        )

    def top(self, target: str, n: int = 5) -> pd.DataFrame:
        """Regions with the largest share of one target.

        Parameters
        ----------
        target
            Name of the target.
        n
            Number of regions; all if there are fewer.

        Returns
        -------
        DataFrame
            Index ``region``, largest share first (ties in label order); columns ``share,
            mean, positive, negative, n_voxels``, channels summed as in `matrix`.

        Raises
        ------
        TargetError
            If there is no such target.
        """
        if target not in self.targets:
            raise TargetError(f"no target {target!r}{nearest(target, self.targets)}")
        own = RegionTable(self.frame[self.frame["target"] == target])
        values = pd.DataFrame({v: own.matrix(v).loc[target] for v in get_args(Value)})
        values["n_voxels"] = values["n_voxels"].astype(np.int64)
        return values.sort_values("share", ascending=False, kind="stable").head(n)

    def group(self, groups: Mapping[str, Sequence[str]]) -> RegionTable:
        """Join regions.

        Parameters
        ----------
        groups
            Name of each group: the regions it joins. Regions in no group stay as they are.

        Returns
        -------
        RegionTable
            Each group stands where its first region stood. Share, positive and negative parts
            and voxels are summed, the mean is weighted by voxels; a voxel that is in two
            joined (overlapping) regions counts twice. Further columns have no value for
            a group.

        Raises
        ------
        LabelError
            If a region is unknown or in two groups, or a group is empty or has the name of
            a region outside it.
        """
        frame = self.frame.assign(_absolute=self.frame["mean"] * self.frame["n_voxels"])
        group_of = self._group_of(groups)
        joined = frame["region"].isin(list(group_of))
        frame["region"] = frame["region"].map(lambda region: group_of.get(region, region))
        rows = frame[joined].groupby(_KEYS, sort=False)
        sums = rows[["positive", "negative", "n_voxels", "_absolute"]].sum()
        sums["share"] = rows["share"].sum(min_count=1)
        sums["mean"] = sums.pop("_absolute") / sums["n_voxels"].where(sums["n_voxels"] > 0)
        untouched = frame[~joined].drop(columns="_absolute").set_index(_KEYS)
        order = pd.MultiIndex.from_frame(frame[_KEYS].drop_duplicates())
        both = pd.concat([untouched, sums]).reindex(order).reset_index()
        return RegionTable(both[list(self.frame.columns)].astype({"n_voxels": np.int64}))

    def _group_of(self, groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Group of each joined region."""
        known = self.regions
        found: dict[str, str] = {}
        for group, members in groups.items():
            if isinstance(members, str) or not members:
                raise LabelError(f"group {group!r} needs a list of regions, got {members!r}")
            if group in known and group not in members:
                raise LabelError(f"group {group!r} has the name of a region that is not in it")
            for region in members:
                if region not in known:
                    raise LabelError(
                        f"group {group!r}: no region {region!r}{nearest(region, known)}"
                    )
                if region in found:
                    raise LabelError(
                        f"region {region!r} is given twice: in group {found[region]!r} and in "
                        f"{group!r}"
                    )
                found[region] = group
        return found

    def with_errors(self, share_errors: NDArray[np.float64]) -> RegionTable:
        """Add the column ``share_error``: standard error of each share.

        Parameters
        ----------
        share_errors
            (n_targets, n_regions, n_channels), in the order of the rows.

        Returns
        -------
        RegionTable
            Same rows with one more column.

        Raises
        ------
        LabelError
            If there is not one error a row.
        """
        shape = (len(self.targets), len(self.regions), self.frame["channel"].nunique())
        if share_errors.shape != shape or share_errors.size != len(self.frame):
            raise LabelError(
                f"errors of the shares must be (targets, regions, channels) = {shape} for "
                f"{len(self.frame)} rows, got {share_errors.shape}"
            )
        return RegionTable(self.frame.assign(share_error=share_errors.ravel()))

    def save(self, folder: Path) -> None:
        """Write ``regions.csv`` and ``regions.parquet`` into a folder.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        with atomic_file(folder / "regions.csv") as temporary:
            self.frame.to_csv(temporary, index=False)
        with atomic_file(folder / "regions.parquet") as temporary:
            self.frame.to_parquet(temporary, index=False)

    @classmethod
    def load(cls, folder: Path) -> RegionTable:
        """Read what `save` wrote.

        Raises
        ------
        RecordError
            If the file is missing or is not a Parquet file.
        """
        path = folder / "regions.parquet"
        try:
            return cls(pd.read_parquet(path))
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise RecordError(f"{path} is not a saved region table: {error}") from error

    def _repr_html_(self) -> str:
        one_run = len(self.frame[_RUN].drop_duplicates()) == 1
        shown = self.matrix("share") if one_run else self.frame
        return shown.to_html(float_format="{:.3f}".format, na_rep="–", border=0, escape=True)
