"""Sums of windows, given out slab by slab, are the sums of windows."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxplain.inference.rolling import RollingSum
from voxplain.space.box import Box
from voxplain.space.windows import WindowPlan, WindowSettings
from voxplain.testing.strategies import window_settings_and_shape


def rolled(
    plan: WindowPlan, chosen: list[int], values: dict[tuple[int, int], torch.Tensor]
) -> tuple[Box, torch.Tensor, torch.Tensor, list[Box]]:
    """Sum the windows; also how often each voxel was given, and the slabs in order."""
    reach = plan.box(chosen[0])
    for w in chosen:
        reach = reach.union(plan.box(w))
    total = torch.zeros((2, 1, *plan.padded_shape), dtype=torch.float64)
    given_ = torch.zeros(plan.padded_shape, dtype=torch.int64)
    slabs: list[Box] = []

    def emit(box: Box, part: torch.Tensor) -> None:
        assert part.shape == (2, 1, *box.shape)
        total[(slice(None), slice(None), *box.slices)] = part
        given_[box.slices] += 1
        slabs.append(box)

    rolling = RollingSum(
        2, 1, reach, plan.settings.size[0], emit, torch.float64, torch.device("cpu")
    )
    for w in chosen:
        rolling.advance(plan.starts[w][0])
        for t in range(2):
            if (w, t) in values:
                rolling.add(t, plan.box(w), values[w, t])
    rolling.finish()
    return reach, total, given_, slabs


@given(st.integers(2, 3).flatmap(window_settings_and_shape), st.data())
def test_equals_the_sum_and_gives_each_voxel_once(
    drawn: tuple[WindowSettings, tuple[int, ...]], data: st.DataObject
) -> None:
    settings, shape = drawn
    plan = WindowPlan(shape, settings)
    indices = list(range(min(len(plan), 60)))
    chosen = sorted(data.draw(st.sets(st.sampled_from(indices), min_size=1, max_size=12)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values = {
        (w, t): torch.from_numpy(rng.normal(size=(1, *settings.size)))
        for w in chosen
        for t in range(2)
        if rng.random() < 0.8
    }
    wanted = torch.zeros((2, 1, *plan.padded_shape), dtype=torch.float64)
    for (w, t), value in values.items():
        wanted[(t, slice(None), *plan.box(w).slices)] += value

    reach, total, given_, slabs = rolled(plan, chosen, values)
    torch.testing.assert_close(total, wanted)
    inside = torch.zeros_like(given_)
    inside[reach.slices] = 1
    assert torch.equal(given_, inside)
    starts = [slab.start[0] for slab in slabs]
    assert starts == sorted(starts)
    assert all(0 < slab.shape[0] <= settings.size[0] for slab in slabs)


@given(st.integers(1, 5), st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_gaps_between_windows_are_zero(depth: int, starts: list[int]) -> None:
    """Windows far apart along the first axis, as for a target in two places."""
    starts = sorted(starts)
    boxes = [Box((a, 1), (a + depth, 4)) for a in starts]
    reach = Box((starts[0], 1), (starts[-1] + depth, 4))
    wanted = torch.zeros(40, 5, dtype=torch.float64)
    total = torch.zeros(40, 5, dtype=torch.float64)

    def emit(box: Box, part: torch.Tensor) -> None:
        total[box.slices] += part[0, 0]

    rolling = RollingSum(1, 1, reach, depth, emit, torch.float64, torch.device("cpu"))
    for i, box in enumerate(boxes):
        rolling.advance(box.start[0])
        value = torch.full((1, *box.shape), float(i + 1), dtype=torch.float64)
        rolling.add(0, box, value)
        wanted[box.slices] += value[0]
    rolling.finish()
    assert torch.equal(total, wanted)
