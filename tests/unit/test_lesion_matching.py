"""Types of lesions by each rule, against the definitions on whole masks."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from voxplain.errors import GridError, LabelError
from voxplain.regions.instances import connectivity_of
from voxplain.regions.lesion import Lesion
from voxplain.regions.matching import Rule, find_lesions
from voxplain.space.grid import Grid
from voxplain.testing.phantoms import SHAPE, oblique_grid

RULES: tuple[Rule, ...] = ("overlap", "iou", "adjusted_iou", "one_to_one")
Masks = dict[str, NDArray[np.bool_]]
LINE = Grid((2, 40), np.eye(3))


def line(*ranges: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask on `LINE` of runs of voxels, from the first to before the last."""
    mask = np.zeros(LINE.shape, bool)
    for first, last in ranges:
        mask[0, first:last] = True
    return mask


def found(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_] | None, rule: Rule, **settings: Any
) -> dict[str, tuple[str, float, tuple[str, ...]]]:
    lesions = find_lesions(predicted, LINE, truth, rule=rule, **settings)
    return {one.name: (one.type, one.overlap, one.partners) for one in lesions}


def parts(mask: NDArray[np.bool_], letter: str, steps: int, least: int) -> tuple[Masks, Masks]:
    """Components by size that are large enough, and those that are not, as whole masks."""
    labels, n = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, steps))
    every = sorted((labels == i for i in range(1, n + 1)), key=lambda one: -one.sum())
    named = {f"{letter}{i}": one for i, one in enumerate(every, 1)}
    large = {name: one for name, one in named.items() if one.sum() >= least}
    return large, {name: one for name, one in named.items() if name not in large}


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def union(masks: list[NDArray[np.bool_]], like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(np.any([np.zeros_like(like), *masks], axis=0))


def best_matching(predicted: Masks, truth: Masks, threshold: float) -> dict[str, str]:
    """Of all sets of pairs in which nothing is twice, the one with the largest sum of IoU."""
    able = [(p, t, iou(a, b)) for p, a in predicted.items() for t, b in truth.items()
            if iou(a, b) >= threshold]  # fmt: skip
    best: tuple[float, dict[str, str]] = (0.0, {})
    for n in range(1, min(len(predicted), len(truth)) + 1):
        for chosen in combinations(able, n):
            if len({p for p, _, _ in chosen}) == len({t for _, t, _ in chosen}) == n:
                total = sum(value for _, _, value in chosen)
                if total > best[0] + 1e-12:
                    best = total, {p: t for p, t, _ in chosen}
    return best[1]


def naive(
    predicted: Masks, truth: Masks, rule: Rule, threshold: float
) -> dict[str, tuple[str, float]]:
    """The definitions word by word, on sets of voxels."""
    matching = best_matching(predicted, truth, threshold) if rule == "one_to_one" else {}
    answer = {}
    for p, c in predicted.items():
        touched = [t for t in truth.values() if (c & t).any()]
        k = union(touched, c)
        best = max([iou(c, t) for t in touched], default=0.0)
        if rule == "overlap":
            number = float((c & k).sum() / c.sum())
            is_found = number > 0
        elif rule == "adjusted_iou":
            q = union([one for one in predicted.values() if (one & k).any()], c)
            number = float((c & k).sum() / (c | (k & ~q)).sum())
            is_found = number >= threshold
        elif rule == "iou":
            number, is_found = best, best >= threshold
        else:
            is_found = p in matching
            number = iou(c, truth[matching[p]]) if is_found else best
        answer[p] = ("TP" if is_found else "US" if touched else "FP", number)
    for t, k in truth.items():
        touching = [c for c in predicted.values() if (c & k).any()]
        if t not in matching.values() if rule == "one_to_one" else not touching:
            answer[t] = ("FN", max([iou(c, k) for c in touching], default=0.0))
    return answer


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 0.7)
    return np.asarray(smooth > np.quantile(smooth, rng.uniform(0.65, 0.9)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [SHAPE, (13, 17)])
def test_as_the_definitions_on_whole_masks(rule: Rule, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(shape))
    grid = oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)])
    kinds: set[str] = set()
    for _ in range(40):
        predicted, truth = (blobs(rng, shape) for _ in range(2))
        least, threshold = int(rng.integers(1, 4)), float(rng.uniform(0.05, 0.5))
        steps = len(shape) - 1
        ours, _ = parts(predicted, "P", steps, least)
        theirs, small = parts(truth, "T", steps, least)
        expected = naive(ours, theirs, rule, threshold)
        for p, c in ours.items():  # what only touches a lesion that is too small is left out
            if union(list(small.values()), c)[c].any() and expected[p][0] == "FP":
                del expected[p]
        lesions = find_lesions(
            predicted, grid, truth, min_voxels=least, rule=rule, threshold=threshold
        )
        assert [one.name for one in lesions] == list(expected)
        masks = {**ours, **theirs}
        for one in lesions:
            kind, number = expected[one.name]
            assert one.type == kind
            assert one.overlap == pytest.approx(number)
            np.testing.assert_array_equal(one.on(shape), masks[one.name])
            other = theirs if one.name in ours else ours
            touched = [name for name, mask in other.items() if (mask & masks[one.name]).any()]
            assert list(one.partners) == touched
            kinds.add(one.type)
    assert kinds == {"TP", "FP", "FN"} | ({"US"} if rule != "overlap" else set())


def test_by_hand() -> None:
    """A true lesion of 10 voxels in two pieces, a false one, a missed one.

    P1, 4 voxels, none of them true. P2, 4 voxels of T1; P3, 3 voxels of T1 and 1 outside.
    """
    truth = line((0, 10), (30, 34))
    predicted = line((0, 4), (7, 11), (20, 25))
    false, missed = ("FP", 0.0, ()), ("FN", 0.0, ())
    # of equal sizes the first in the array is first
    assert found(predicted, truth, "overlap") == {
        "P1": false, "P2": ("TP", 1.0, ("T1",)), "P3": ("TP", 0.75, ("T1",)), "T2": missed,
    }  # fmt: skip
    assert found(predicted, truth, "iou", threshold=0.3) == {
        "P1": false, "P2": ("TP", 0.4, ("T1",)), "P3": ("US", 3 / 11, ("T1",)), "T2": missed,
    }  # fmt: skip
    # voxels 4, 5, 6 of T1 are in no piece: 4 of 4 + 3, and 3 of 4 + 3
    assert found(predicted, truth, "adjusted_iou", threshold=0.5) == {
        "P1": false, "P2": ("TP", 4 / 7, ("T1",)), "P3": ("US", 3 / 7, ("T1",)), "T2": missed,
    }  # fmt: skip
    assert found(predicted, truth, "one_to_one", threshold=0.2) == {
        "P1": false, "P2": ("TP", 0.4, ("T1",)), "P3": ("US", 3 / 11, ("T1",)), "T2": missed,
    }  # fmt: skip
    assert found(predicted, truth, "one_to_one", threshold=0.41) == {
        "P1": false, "P2": ("US", 0.4, ("T1",)), "P3": ("US", 3 / 11, ("T1",)),
        "T1": ("FN", 0.4, ("P2", "P3")), "T2": missed,
    }  # fmt: skip


def test_one_to_one_takes_the_largest_sum_not_the_largest_pair() -> None:
    """T1 would suit P1 best, but then P2 and T2 had no partner."""
    truth, predicted = line((0, 10), (11, 15)), line((3, 15), (0, 2))
    assert found(predicted, truth, "iou", threshold=0.2) == {
        "P1": ("TP", 7 / 15, ("T1", "T2")), "P2": ("TP", 2 / 10, ("T1",)),
    }  # fmt: skip
    assert found(predicted, truth, "one_to_one", threshold=0.2) == {
        "P1": ("TP", 4 / 12, ("T1", "T2")), "P2": ("TP", 2 / 10, ("T1",)),
    }  # fmt: skip
    # a pair below the threshold is none: P1 is free for T1
    assert found(predicted, truth, "one_to_one", threshold=0.3) == {
        "P1": ("TP", 7 / 15, ("T1", "T2")), "P2": ("US", 2 / 10, ("T1",)),
        "T2": ("FN", 4 / 12, ("P1",)),
    }  # fmt: skip


def test_threshold_is_met_when_equal() -> None:
    truth, predicted = line((0, 10)), line((0, 1))
    for rule in ("iou", "adjusted_iou", "one_to_one"):
        assert found(predicted, truth, rule, threshold=0.1)["P1"][0] == "TP"
        assert found(predicted, truth, rule, threshold=0.11)["P1"][0] == "US"


@pytest.mark.parametrize("rule", RULES)
def test_small_lesions_are_left_out_and_names_stay(rule: Rule) -> None:
    """T3 and T4 have 2 voxels, P4 has 1; each touches a larger one of the other side."""
    truth = line((0, 8), (10, 12), (20, 22), (26, 32))
    predicted = line((5, 11), (21, 28), (34, 39), (30, 31))
    every = find_lesions(predicted, LINE, truth, rule=rule)
    assert {one.name for one in every} >= {"P1", "P2", "P3", "P4"}
    for limit in ({"min_voxels": 3}, {"min_mm3": 3.0}, {"min_voxels": 2, "min_mm3": 2.5}):
        some = find_lesions(predicted, LINE, truth, rule=rule, threshold=0.05, **limit)
        assert [(one.name, one.type, one.partners) for one in some] == [
            ("P1", "TP", ("T2",)), ("P2", "TP", ("T1",)), ("P3", "FP", ()),
        ]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_what_touches_only_a_small_true_lesion_is_no_false_alarm(rule: Rule) -> None:
    """P1 touches T2, of 3 voxels; P2 touches T1; P3 touches none."""
    truth, predicted = line((0, 8), (26, 29)), line((21, 28), (5, 11), (34, 39))
    some = find_lesions(predicted, LINE, truth, rule=rule, threshold=0.05, min_voxels=4)
    assert [(one.name, one.type) for one in some] == [("P2", "TP"), ("P3", "FP")]
    every = find_lesions(predicted, LINE, truth, rule=rule, threshold=0.05, min_voxels=3)
    assert [(one.name, one.type) for one in every] == [("P1", "TP"), ("P2", "TP"), ("P3", "FP")]


@pytest.mark.parametrize("rule", RULES)
def test_what_only_a_small_prediction_touches_is_missed(rule: Rule) -> None:
    missed = found(line((0, 2)), line((0, 8), (26, 29)), rule, min_voxels=3)
    assert missed == {"T1": ("FN", 0.0, ()), "T2": ("FN", 0.0, ())}


def test_min_mm3_is_a_volume_on_the_grid() -> None:
    grid = oblique_grid((7, 9, 12), (0.7, 1.1, 2.3), seed=3)
    mask = np.zeros(grid.shape, bool)
    mask[0, 0, :3] = mask[3, 3, :5] = mask[6, 6, :4] = True
    voxel = 0.7 * 1.1 * 2.3
    for n, names in ((3, 3), (4, 2), (5, 1), (6, 0)):
        assert len(find_lesions(mask, grid, min_mm3=n * voxel)) == names
        assert len(find_lesions(mask, grid, min_mm3=(n - 0.9) * voxel)) == names


def test_without_truth_and_without_lesions() -> None:
    grid = oblique_grid(seed=1)
    mask = np.zeros(grid.shape, bool)
    assert find_lesions(mask, grid) == []
    assert find_lesions(mask, grid, mask) == []
    mask[1:3, 2, 4:8] = mask[4, 6, 10] = True
    plain = find_lesions(mask, grid)
    assert [(one.name, one.type, one.n_voxels) for one in plain] == [
        ("P1", "lesion", 8), ("P2", "lesion", 1)]  # fmt: skip
    assert all(np.isnan(one.overlap) and one.partners == () for one in plain)
    assert plain[0].box.start == (1, 2, 4)
    assert plain[0].box.stop == (3, 3, 8)
    for rule in RULES:
        false = find_lesions(mask, grid, np.zeros_like(mask), rule=rule)
        assert [(one.name, one.type, one.overlap) for one in false] == [
            ("P1", "FP", 0), ("P2", "FP", 0)]  # fmt: skip
        missed = find_lesions(np.zeros_like(mask), grid, mask, rule=rule)
        assert [(one.name, one.type, one.overlap) for one in missed] == [
            ("T1", "FN", 0), ("T2", "FN", 0)]  # fmt: skip
        same = find_lesions(mask, grid, mask, rule=rule, threshold=1.0)
        assert [(one.name, one.type, one.overlap) for one in same] == [
            ("P1", "TP", 1), ("P2", "TP", 1)]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "counts"), [((0, 0, 1), (1, 1, 1)), ((0, 1, 1), (2, 1, 1)), ((1, 1, 1), (2, 2, 1))]
)
def test_neighbours(step: tuple[int, ...], counts: tuple[int, ...]) -> None:
    grid = oblique_grid()
    mask = np.zeros(grid.shape, bool)
    mask[2, 3, 5] = mask[2 + step[0], 3 + step[1], 5 + step[2]] = True
    assert tuple(len(find_lesions(mask, grid, neighbours=n)) for n in (6, 18, 26)) == counts
    assert len(find_lesions(mask, grid)) == counts[1]


def test_neighbours_in_2d_and_their_errors() -> None:
    mask = np.eye(3, 4, dtype=bool)
    grid = Grid((3, 4), np.eye(3))
    assert [len(find_lesions(mask, grid, neighbours=n)) for n in (4, 8, None)] == [3, 1, 3]
    assert [connectivity_of(n, 3) for n in (6, 18, 26, None)] == [1, 2, 3, 2]
    assert [connectivity_of(n, 2) for n in (4, 8, None)] == [1, 2, 1]
    with pytest.raises(LabelError, match="4, 8 in 2D, got 18"):
        find_lesions(mask, grid, neighbours=18)
    with pytest.raises(LabelError, match="6, 18, 26 in 3D, got 4"):
        connectivity_of(4, 3)


def test_many_lesions_keep_all_their_voxels() -> None:
    """A lattice of 1331 lesions, each shifted by one voxel against its true one."""
    grid = Grid((66, 66, 66), np.eye(4))
    truth = np.zeros(grid.shape, bool)
    truth[1::6, 1::6, 1::6] = truth[2::6, 1::6, 1::6] = truth[3::6, 1::6, 1::6] = True
    predicted = np.roll(truth, 1, axis=0)
    for rule, number in zip(RULES, (2 / 3, 2 / 4, 2 / 4, 2 / 4), strict=True):
        lesions: list[Lesion] = find_lesions(predicted, grid, truth, rule=rule)
        assert len(lesions) == 11**3
        assert {one.type for one in lesions} == {"TP"}
        assert {one.overlap for one in lesions} == {number}
        assert all(one.partners == ("T" + one.name[1:],) for one in lesions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "dice"}, "overlap, iou, adjusted_iou, one_to_one, got 'dice'"),
        ({"threshold": 0.0}, "above 0 and at most 1, got 0.0"),
        ({"threshold": 1.5}, "above 0 and at most 1, got 1.5"),
        ({"threshold": float("nan")}, "above 0 and at most 1, got nan"),
        ({"min_voxels": 0}, "at least 1, got 0"),
        ({"min_mm3": -1.0}, "at least 0, got -1"),
        ({"min_mm3": float("inf")}, "finite number of at least 0, got inf"),
        ({"neighbours": 5}, "4, 8 in 2D, got 5"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        find_lesions(line((0, 3)), LINE, **settings)


def test_masks_of_another_shape() -> None:
    with pytest.raises(GridError, match=r"predicted must have .*\(2, 40\), got \(2, 39\)"):
        find_lesions(line((0, 3))[:, :-1], LINE)
    with pytest.raises(GridError, match=r"truth must have .*\(2, 40\), got \(1, 40\)"):
        find_lesions(line((0, 3)), LINE, line((0, 3))[:1])
