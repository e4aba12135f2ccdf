"""Values of the players of a game: regions, cubes, channels and pairs of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from voxplain.errors import LabelError, RecordError
from voxplain.space.write import atomic_file

COLUMNS = ("case", "model", "method", "target", "player", "partner", "value", "error", "n_voxels")


@dataclass(frozen=True, eq=False)
class PlayerTable:
    """One row per target and player, and per pair of players where interactions were asked for.

    Columns: ``case, model, method, target, player``; ``partner``: the other player of an
    interaction, empty for a player's own value; ``value`` in the unit of the target;
    ``error``: its standard error, 0 where every coalition was run; ``n_voxels`` of the player
    (voxels of all its channels).

    Parameters
    ----------
    frame
        The rows.

    Raises
    ------
    LabelError
        If a column is missing.
    """

    frame: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [c for c in COLUMNS if c not in self.frame.columns]
        if missing:
            raise LabelError(
                f"a player table has the columns {', '.join(COLUMNS)}; missing: "
                f"{', '.join(missing)}"
            )

    def matrix(self) -> pd.DataFrame:
        """Targets × players: each player's own value."""
        own = self.frame[self.frame["partner"] == ""]
        wide = own.pivot(index="target", columns="player", values="value")
        return wide.reindex(index=own["target"].unique(), columns=own["player"].unique())

    def interactions(self, target: str) -> pd.DataFrame:
        """Players × players: the interaction of each pair for one target, NaN on the diagonal.

        Raises
        ------
        LabelError
            If the table holds no interactions of it.
        """
        rows = self.frame[(self.frame["partner"] != "") & (self.frame["target"] == target)]
        if rows.empty:
            raise LabelError(f"no interactions of {target!r}; explain with interactions=true")
        both = pd.concat([rows, rows.rename(columns={"player": "partner", "partner": "player"})])
        names = list(dict.fromkeys([*rows["player"], *rows["partner"]]))
        wide = both.pivot(index="player", columns="partner", values="value")
        return wide.reindex(index=names, columns=names)

    def save(self, folder: Path) -> None:
        """Write ``players.csv`` and ``players.parquet`` into a folder.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        with atomic_file(folder / "players.csv") as temporary:
            self.frame.to_csv(temporary, index=False)
        with atomic_file(folder / "players.parquet") as temporary:
            self.frame.to_parquet(temporary, index=False)

    @classmethod
    def load(cls, folder: Path) -> PlayerTable:
        """Read what `save` wrote.

        Raises
        ------
        RecordError
            If the file is missing or is not a Parquet file.
        """
        path = folder / "players.parquet"
        try:
            return cls(pd.read_parquet(path))
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise RecordError(f"{path} is not a saved player table: {error}") from error
