"""Two learned fills agree more on Shapley values than the simple ones do."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import fills

EFFORT = fills.Effort(steps=150, patients=range(100, 106), validation=(130,), slices=16)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_learned_fills_agree(tmp_path, monkeypatch):
    """As `benchmarks.fills`, which is long: shorter trainings, fewer organs, one patient."""
    learned = [fills.learned_fill(tmp_path, seed, EFFORT) for seed in (0, 1)]
    assert all(fill.about.pixel_mm == 3.75 for fill in learned)
    few = {name: fills.PLAYERS[name] for name in ("lungs", "heart", "bones", "abdominal organs")}
    monkeypatch.setattr(fills, "PLAYERS", few)
    model, image, chosen = fills.whole_model(), fills.chest(901), fills.fills(learned)

    wrong = fills.errors(model, image, chosen, seed=901).mean()
    assert max(wrong["learned 0"], wrong["learned 1"]) < 0.5 * wrong["mean"]

    table = fills.values(model, image, chosen)
    assert len(table) == (len(few) + 1) * len(fills.TARGETS)
    assert np.isfinite(table.to_numpy()).all()
    found = fills.contrast(fills.agreement(table))
    assert found["learned"] > found["off"]
