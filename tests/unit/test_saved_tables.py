"""Tables beside a result: a large one is read back as a small one is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from voxplain.records import saved_tables
from voxplain.records.provenance import Provenance
from voxplain.records.saved_tables import save_tables


def test_many_rows_are_written_as_few_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "case": ["a, b", 'say "so"', "", "ä"] * 5,
            "value": rng.normal(size=20) * 10.0 ** rng.integers(-12, 12, 20),
            "n": rng.integers(0, 9, 20),
            "is_outlier": rng.random(20) > 0.5,
        }
    )
    table.loc[3, "value"] = np.nan
    made = Provenance("m", "", "2 cases", "", "study report")
    few, many = tmp_path / "few", tmp_path / "many"
    few.mkdir()
    many.mkdir()
    save_tables(few, {"t": table}, made, "voxplain test")
    monkeypatch.setattr(saved_tables, "MANY_ROWS", 1)
    save_tables(many, {"t": table}, made, "voxplain test")
    one, two = (pd.read_csv(place / "t.csv") for place in (few, many))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
