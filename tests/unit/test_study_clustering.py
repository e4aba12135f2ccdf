"""The tree of targets against scipy called directly, and against a closed form."""

import numpy as np
import pandas as pd
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from voxplain.errors import DataError, MethodError
from voxplain.study.clustering import COPHENETIC, MERGES, cluster

LINKAGES = ("average", "complete", "ward", "single")


def importance(n=7, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"t{i}" for i in range(n)]
    return pd.DataFrame(rng.dirichlet(np.full(n, 0.5), size=n), index=names, columns=names)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_equals_scipy(linkage):
    table = importance()
    found = cluster(table, linkage)
    distances = pdist(np.sqrt(table.to_numpy()))
    tree = hierarchy.linkage(distances, linkage, optimal_ordering=True)
    np.testing.assert_allclose(found.tree, tree, rtol=1e-12)
    assert found.order == tuple(table.index[hierarchy.leaves_list(tree)])
    for name in LINKAGES:
        r, _ = hierarchy.cophenet(hierarchy.linkage(distances, name), distances)
        row = found.cophenetic.set_index("linkage").loc[name]
        assert row["cophenetic_r"] == pytest.approx(r, rel=1e-12)
        assert row["is_chosen"] == (name == linkage)
    assert tuple(found.cophenetic.columns) == COPHENETIC


def test_best_linkage_is_the_default():
    found = cluster(importance(seed=4))
    rows = found.cophenetic.set_index("linkage")["cophenetic_r"]
    assert found.linkage == rows.idxmax()


def test_distance_is_root_two_times_hellinger():
    table = pd.DataFrame([[1.0, 0.0], [0.25, 0.75]], index=["a", "b"], columns=["a", "b"])
    found = cluster(table)
    # Hellinger² = 1 − Σ √(p q) = 1 − ½
    assert found.tree[0, 2] == pytest.approx(np.sqrt(2 * 0.5))
    assert found.linkage == "average"
    assert found.cophenetic["cophenetic_r"].isna().all()
    assert (found.cophenetic["note"] != "").all()
    assert found.merges.to_dict("records") == [
        dict(zip(MERGES, (1, "a", "b", found.tree[0, 2], 2), strict=True))
    ]


def test_order_of_rows_and_columns_does_not_matter():
    table = importance(9, 2)
    shuffled = table.sample(frac=1, random_state=1).sample(frac=1, axis=1, random_state=2)
    a, b = cluster(table), cluster(shuffled)
    assert a.order == b.order
    np.testing.assert_array_equal(a.tree, b.tree)


def test_absent_targets_are_left_out():
    table = importance()
    table.loc["t3"] = np.nan
    found = cluster(table)
    assert found.left_out == ("t3",)
    assert set(found.order) == set(table.index) - {"t3"}
    steps = found.merges
    assert steps["n_targets"].iloc[-1] == 6
    assert "step 1" in {*steps["left"], *steps["right"]}


def test_refusals():
    with pytest.raises(MethodError, match="average, complete, ward, single, got 'median'"):
        cluster(importance(), "median")
    with pytest.raises(DataError, match="two targets with numbers, got 1 of 1"):
        cluster(importance(1))
    with pytest.raises(DataError, match="not below 0"):
        cluster(-importance())
