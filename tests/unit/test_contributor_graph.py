"""Edges by hand, and layouts without a label over another."""

import time

import numpy as np
import pandas as pd
import pytest

from voxplain.errors import DataError, MethodError
from voxplain.study.contributor_graph import EDGES, LAYOUT, box_of, edges_of, layout, wrapped

HAND = pd.DataFrame(
    [[0.5, 0.2, 0.2, 0.1], [0.0, 1.0, 0.0, 0.0], [np.nan] * 4],
    index=["a", "b", "c"],
    columns=["a", "z", "b", "c"],
).rename(columns={"z": "d"})


def matrix(names, seed=0):
    rng = np.random.default_rng(seed)
    n = len(names)
    shares = rng.dirichlet(np.full(n, 0.4), size=n)
    return pd.DataFrame(shares, index=names, columns=names)


def test_top_by_hand():
    found = edges_of(HAND, "top", n=3)
    assert tuple(found.columns) == EDGES
    assert found.to_numpy().tolist() == [
        ["a", "a", 0.5, 1, pytest.approx(0.5)], ["b", "a", 0.2, 2, pytest.approx(0.7)],
        ["d", "a", 0.2, 3, pytest.approx(0.9)], ["d", "b", 1.0, 1, 1.0],
    ]  # fmt: skip
    assert len(edges_of(HAND, n=3, min_weight=0.3)) == 2


def test_without_self_counts_the_others_only():
    found = edges_of(HAND, n=2, without_self=True)
    own = found[found["target"] == "a"]
    assert list(own["source"]) == ["b", "d"]
    np.testing.assert_allclose(own["weight"], [0.2, 0.2])
    np.testing.assert_allclose(own["cumulated"], [0.4, 0.8])


@pytest.mark.parametrize(
    ("share", "n"), [(0.35, 1), (0.5, 1), (0.51, 2), (0.7, 2), (0.9, 3), (1.0, 4)]
)
def test_cumulated_takes_as_few_as_reach_the_share(share, n):
    found = edges_of(HAND, "cumulated", share=share)
    assert (found["target"] == "a").sum() == n


def test_cumulated_by_definition():
    table = matrix([f"r{i}" for i in range(12)], 3)
    found = edges_of(table, "cumulated", share=0.35)
    for target, rows in found.groupby("target"):
        ranked = np.sort(table.loc[target])[::-1]
        np.testing.assert_allclose(rows["weight"], ranked[: len(rows)])
        assert rows["weight"].sum() >= 0.35
        assert rows["weight"].iloc[:-1].sum() < 0.35


def test_refusals():
    for wrong in ({"rule": "best"}, {"n": 0}, {"share": 0.0}, {"share": 1.1}, {"min_weight": -1}):
        with pytest.raises(MethodError):
            edges_of(HAND, **wrong)
    with pytest.raises(DataError, match="of a are below 0"):
        edges_of(-HAND)


def test_names_are_broken_after_their_joints():
    assert wrapped("heart") == "heart"
    assert wrapped("lung_upper_lobe_left") == "lung_upper_lobe_\nleft"
    assert wrapped("soft tissue of the chest", 12) == "soft tissue\nof the chest"
    assert wrapped("x" * 40) == "\n".join(["x" * 16, "x" * 16, "x" * 8])
    assert wrapped("a_" + "x" * 20, 8) == "a_\nxxxxxxxx\nxxxxxxxx\nxxxx"
    assert all(len(line) <= 9 for line in wrapped("one-two three_four--five", 9).split("\n"))


def overlaps(places):
    at = places[["x", "y"]].to_numpy()
    boxes = np.array([box_of(n) for n in places["node"]])
    away = np.abs(at[:, None] - at[None, :])
    return int((away < (boxes[:, None] + boxes[None, :]) / 2).all(axis=2).sum()) - len(at)


CHEST = [
    "background", "aorta", "lung_upper_lobe_left", "lung_lower_lobe_left",
    "lung_upper_lobe_right", "heart", "ribs", "lung_middle_lobe_right", "lung_lower_lobe_right",
    "trachea", "pulmonary_vein", "thyroid_gland", "vertebrae", "autochthon_left",
    "autochthon_right", "sternum", "costal_cartilages",
]  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        CHEST, CHEST[:1], CHEST[:2], CHEST[:3],
        ["a_very_long_name_of_a_region_of_the_chest_with_many_words_" + str(i) for i in range(9)],
        ["x" * 60, "y"], [f"rib_left_{i}" for i in range(60)],
    ],
)  # fmt: skip
def test_no_label_lies_over_another(names):
    edges = edges_of(matrix(names))
    places = layout(edges)
    assert tuple(places.columns) == LAYOUT
    assert sorted(places["node"]) == sorted({*edges["source"], *edges["target"]})
    assert overlaps(places) == 0
    half = np.array([box_of(n) for n in places["node"]]) / 2
    at = places[["x", "y"]].to_numpy()
    np.testing.assert_allclose((at - half).min(axis=0), 0, atol=1e-9)
    assert (at + half)[:, 0].max() <= max(8.6, 2 * half[:, 0].max()) + 0.5


def test_groups_stand_together_and_order_of_edges_does_not_matter():
    edges = edges_of(matrix(CHEST, 5))
    places = layout(edges)
    kinds = list(places["group"])
    changes = sum(a != b for a, b in zip(kinds, kinds[1:] + kinds[:1], strict=True))
    assert changes == len(set(kinds))
    pd.testing.assert_frame_equal(places, layout(edges.sample(frac=1, random_state=0)))
    own = layout(edges, {"heart": "mine", "ribs": "mine"})
    at = [i for i, kind in enumerate(own["group"]) if kind == "mine"]
    assert len(at) == 2
    assert (at[1] - at[0]) in {1, len(own) - 1}


def test_nodes_that_pull_each_other_stand_side_by_side():
    names = [f"n{i}" for i in range(8)]
    # a ring in a mixed order: each draws on the one two places on
    ring = [names[i] for i in (0, 3, 6, 1, 4, 7, 2, 5)]
    rows = [(ring[i - 1], ring[i], 1.0, 1, 1.0) for i in range(8)]
    found = list(layout(pd.DataFrame(rows, columns=list(EDGES)))["node"])
    steps = [abs(found.index(a) - found.index(b)) for a, b, *_ in rows]
    assert np.mean([min(s, 8 - s) for s in steps]) < 1.8


def test_a_hundred_nodes_take_seconds():
    names = [f"vertebrae_L{i}" for i in range(60)] + [f"liver_{i}" for i in range(57)]
    start = time.perf_counter()
    assert overlaps(layout(edges_of(matrix(names)))) == 0
    assert time.perf_counter() - start < 20


def test_no_edge_no_node():
    assert layout(pd.DataFrame(columns=list(EDGES))).empty
