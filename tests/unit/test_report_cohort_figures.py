"""Figures of a cohort: the numbers behind them, and that no text is cut off or lies on another."""

import time
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.cbook import boxplot_stats

from voxplain.errors import DataError, LabelError, TargetError
from voxplain.records.cohort_table import CohortTable
from voxplain.report.cohort_boxes import BOX, box_numbers, target_boxes
from voxplain.report.cohort_clusters import cluster_figure
from voxplain.report.cohort_graph import contributor_figure
from voxplain.report.cohort_histograms import HISTOGRAM, histogram_numbers, share_histograms
from voxplain.report.cohort_local import local_bars
from voxplain.report.cohort_matrix import cohort_matrix, difference_matrix
from voxplain.study.clustering import cluster
from voxplain.study.contributor_graph import edges_of

CHEST = [
    "background", "aorta", "lung_upper_lobe_left", "lung_lower_lobe_left",
    "lung_upper_lobe_right", "heart", "ribs", "lung_middle_lobe_right", "lung_lower_lobe_right",
    "trachea", "pulmonary_vein", "thyroid_gland", "vertebrae", "autochthon_left",
    "autochthon_right", "sternum", "costal_cartilages",
]  # fmt: skip
LONG = [
    "left_superior_pulmonary_vein_and_its_segmental_branches",
    "Weichteilgewebe der Brustwand ohne Muskulatur links",
    "extraordinarilylongunbrokenclassnameofanetwork",
    "kidney_cyst_left", "$x_1$",
]  # fmt: skip
NAMES = {"17": CHEST, "3": ["heart", "liver", "spleen"], "long": LONG}
EXTRA = {
    "17": ("pleural_effusion", "ground_glass"),
    "3": (),
    "long": ("marker in the left corner",),
}


def cohort(names, extra=(), n=60, seed=0):
    rng = np.random.default_rng(seed)
    k = len(names)
    parts = np.stack([rng.dirichlet(0.3 + 4 * np.eye(k)[i], size=n) for i in range(k)], axis=1)
    shares = np.concatenate([parts, rng.beta(1, 9, (n, k, len(extra)))], axis=2)
    shares[:5, -1] = np.nan  # the last class is not in these cases
    cases = pd.DataFrame(
        {"patient": [f"p{i}" for i in range(n)]},
        index=pd.Index([f"c{i}" for i in range(n)], name="case"),
    )
    return CohortTable(
        "m", "g", cases, tuple(names), (*names, *extra), {"share": shares}, extra_regions=extra
    )


def means(table):
    values = np.nanmean(table.values["share"], axis=0)
    return pd.DataFrame(values, index=list(table.targets), columns=list(table.regions))


def differences(matrix, seed=0):
    rng = np.random.default_rng(seed)
    rows = matrix.rename_axis("target").reset_index().melt("target", var_name="region")
    return rows.assign(difference=rng.normal(0, 0.03, len(rows)), q=rng.random(len(rows)))


def local(table, case, target):
    frame = table.of_target(target)
    own = frame.loc[case].to_numpy()
    others = frame.drop(index=case)
    return pd.DataFrame({
        "target": target, "region": frame.columns, "value": own, "mean": others.mean().to_numpy(),
        "median": others.median().to_numpy(), "percentile": (others < own).mean().to_numpy() * 100,
        "z": 0.0,
    })  # fmt: skip


def drawings(names, extra):
    table = cohort(names, extra)
    matrix = means(table)
    parts = matrix[list(table.parts)]
    clusters = cluster(parts)
    boxes = box_numbers(table.of_target(names[0]))
    yield cohort_matrix(matrix, order=clusters.order, extra_regions=extra)
    yield difference_matrix(differences(matrix), ("SwinUNETR", "nnU-Net"), extra_regions=extra)
    yield target_boxes(boxes, names[0], extra_regions=extra)
    yield share_histograms(histogram_numbers(table, names[:3], names[:3]))
    yield share_histograms(histogram_numbers(table, names[:1], names[:1]))
    for rule in ("top", "cumulated"):
        yield contributor_figure(edges_of(parts, rule))
    yield cluster_figure(clusters)
    yield local_bars(
        local(table, "c7", names[0]), names[0], boxes, extra_regions=extra, title="case c7"
    )


def texts(figure):
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    found = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in figure.axes:
        found += [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    found += [t for t in (tick.label1, tick.label2) if t.get_visible()]
    drawn = [t for t in found if t.get_text().strip()]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in drawn]


@pytest.mark.parametrize("which", [pytest.param("17", marks=pytest.mark.slow), "3", "long"])
def test_no_text_is_cut_off_or_lies_on_another(which):
    for drawing in drawings(NAMES[which], EXTRA[which]):
        figure = drawing.figure
        width, height = figure.bbox.width, figure.bbox.height
        assert figure.get_size_inches()[0] <= 9.6
        boxes = texts(figure)
        assert len(boxes) > 3
        for text, box in boxes:
            assert box.x0 >= -0.5, text
            assert box.y0 >= -0.5, text
            assert box.x1 <= width + 0.5, text
            assert box.y1 <= height + 0.5, text
        for (a, one), (b, other) in combinations(boxes, 2):
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            down = min(one.y1, other.y1) - max(one.y0, other.y0)
            # a box of text has a margin of a pixel or two above its letters
            assert min(across, down) < 2.5, (a, b)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_equal_matplotlib_and_numpy(seed):
    rng = np.random.default_rng(seed)
    shares = pd.DataFrame(rng.lognormal(0, 1.2, (151, 4)), columns=list("abcd"))
    shares.loc[:9, "b"] = np.nan
    shares["c"] = np.nan
    shares["d"] = 0.25
    found = box_numbers(shares, n_outliers=3).set_index("region")
    assert (*["region"], *found.columns) == BOX
    for name in "abd":
        column = shares[name].dropna().to_numpy()
        (stats,) = boxplot_stats(column)
        row = found.loc[name]
        for ours, theirs in (
            ("whisker_low", "whislo"), ("q1", "q1"), ("median", "med"), ("q3", "q3"),
            ("whisker_high", "whishi"), ("mean", "mean"),
        ):  # fmt: skip
            assert row[ours] == pytest.approx(stats[theirs], rel=1e-12)
        assert row["n_outliers"] == len(stats["fliers"])
        assert row["n_cases"] == len(column)
        np.testing.assert_array_equal(sorted(row["outliers"]), np.sort(stats["fliers"])[-3:])
    assert found.loc["c", "n_cases"] == 0
    assert np.isnan(found.loc["c", "median"])


def test_boxes_do_not_depend_on_order_of_cases():
    shares = cohort(CHEST).of_target("heart")
    mixed = shares.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(box_numbers(shares), box_numbers(mixed))


def test_boxes_of_many_cases_are_quick():
    shares = pd.DataFrame(np.random.default_rng(0).random((100_000, 17)), columns=CHEST)
    start = time.perf_counter()
    boxes = box_numbers(shares)
    drawing = target_boxes(boxes, "heart")
    drawing.png()
    assert time.perf_counter() - start < 8


def test_boxes_are_sorted_and_extra_regions_come_last():
    table = cohort(CHEST, ("pleural_effusion",))
    boxes = box_numbers(table.of_target("heart"))
    for sort in ("median", "mean"):
        found = target_boxes(
            boxes, "heart", sort=sort, extra_regions=("pleural_effusion",), n_regions=5
        ).table
        assert found["region"].iloc[-1] == "pleural_effusion"
        assert found["is_extra"].tolist() == [False] * 17 + [True]
        assert found[sort].iloc[:-1].is_monotonic_decreasing
        assert found["region"].iloc[0] == "heart"
        assert found["group"].iloc[0] == "cardiovascular"
    with pytest.raises(LabelError, match="no case has a share of heart"):
        target_boxes(boxes.assign(n_cases=0), "heart")


def test_matrix_is_ordered_and_holds_what_is_drawn():
    table = means(cohort(["a", "b", "c"], ("mask",)))
    found = cohort_matrix(table, order=["c", "a"], extra_regions=("mask",)).table
    assert list(found.index) == ["c", "a", "b"]
    assert list(found.columns) == ["c", "a", "b", "mask"]
    pd.testing.assert_frame_equal(found.loc[table.index, table.columns], table)
    assert len(cohort_matrix(table, extra_regions=("mask",)).figure.axes) == 3
    assert len(cohort_matrix(table[["a", "b"]]).figure.axes) == 2
    with pytest.raises(LabelError, match="at least one target"):
        cohort_matrix(table.iloc[:0])


def test_numbers_are_written_up_to_twenty():
    for n, has_numbers in ((20, True), (21, False)):
        names = [f"r{i}" for i in range(n)]
        drawing = cohort_matrix(pd.DataFrame(np.full((n, n), 0.123), names, names))
        assert ("12" in [t.get_text() for t in drawing.figure.axes[0].texts]) is has_numbers


@pytest.mark.slow
def test_absent_targets_and_large_maps_are_drawn():
    names = [f"vertebrae_{i}" for i in range(40)]
    empty = pd.DataFrame(np.nan, names, names)
    assert cohort_matrix(empty).png()
    shares = pd.DataFrame(np.random.default_rng(0).dirichlet(np.ones(40), 40), names, names)
    assert cohort_matrix(shares).png()


def test_difference_marks():
    rows = pd.DataFrame({
        "target": ["a", "a", "b", "b"], "region": ["x", "y", "x", "y"],
        "difference": [0.1, -0.2, 0.0, np.nan], "q": [0.05, 0.051, np.nan, 0.01],
    })  # fmt: skip
    found = difference_matrix(rows).table
    assert found["is_marked"].tolist() == [True, False, False, True]
    pd.testing.assert_frame_equal(found[rows.columns], rows)
    reversed_rows = difference_matrix(rows, order=["b", "a"]).table
    assert reversed_rows["target"].tolist() == ["b", "b", "a", "a"]
    with pytest.raises(LabelError, match="needs the columns q"):
        difference_matrix(rows.drop(columns="q"))


def test_histograms_equal_numpy():
    table = cohort(CHEST)
    names = ["heart", "aorta", "costal_cartilages"]
    found = histogram_numbers(table, names, names, n_bins=12)
    assert tuple(found.columns) == HISTOGRAM
    top = max(table.of_target(t)[names].max().max() for t in names)
    for target in names:
        for region in names:
            own = found[(found["target"] == target) & (found["region"] == region)]
            column = table.of_target(target)[region].dropna()
            counts, edges = np.histogram(column, bins=12, range=(0, top))
            assert own["n_cases"].tolist() == counts.tolist()
            np.testing.assert_allclose([*own["from_share"], own["to_share"].iloc[-1]], edges)
            assert own["median"].iloc[0] == pytest.approx(np.median(column))
    pd.testing.assert_frame_equal(share_histograms(found).table, found.reset_index(drop=True))


def test_histograms_refuse():
    table = cohort(CHEST)
    with pytest.raises(TargetError, match="no region 'heard'"):
        histogram_numbers(table, ["heart"], ["heard"])
    with pytest.raises(TargetError, match="no target"):
        histogram_numbers(table, ["heard"], ["heart"])
    with pytest.raises(DataError, match="n_bins"):
        histogram_numbers(table, ["heart"], ["heart"], n_bins=0)
    with pytest.raises(DataError, match="1 to 6 targets and regions, got 7 and 1"):
        share_histograms(histogram_numbers(table, CHEST[:7], CHEST[:1]))


def test_histogram_of_a_class_in_no_case():
    table = cohort(["heart", "liver"])
    empty = table.take(np.arange(5))
    drawing = share_histograms(histogram_numbers(empty, ["heart", "liver"], ["heart", "liver"]))
    rows = drawing.table[drawing.table["target"] == "liver"]
    assert rows["n_cases"].sum() == 0
    assert rows["median"].isna().all()


def test_graph_needs_an_edge_and_keeps_its_table():
    edges = edges_of(means(cohort(CHEST)), n=3)
    pd.testing.assert_frame_equal(contributor_figure(edges).table, edges)
    only_self = edges[edges["source"] == edges["target"]]
    assert contributor_figure(only_self).png()
    with pytest.raises(DataError, match="at least one edge"):
        contributor_figure(edges.iloc[:0])


def test_local_bars_hold_the_quartiles_of_the_cohort():
    table = cohort(CHEST, ("pleural_effusion",))
    boxes = box_numbers(table.of_target("heart"))
    rows = local(table, "c3", "heart")
    found = local_bars(rows, "heart", boxes, extra_regions=("pleural_effusion",)).table
    assert found["region"].iloc[-1] == "pleural_effusion"
    quartiles = table.of_target("heart").quantile([0.25, 0.5, 0.75])
    for row in found.itertuples():
        np.testing.assert_allclose(
            [row.cohort_q1, row.cohort_median, row.cohort_q3], quartiles[row.region]
        )
    with pytest.raises(TargetError, match="no target 'hart'"):
        local_bars(rows, "hart", boxes)
    with pytest.raises(TargetError, match="not in it"):
        local_bars(rows.assign(value=np.nan), "heart", boxes)


def test_cluster_figure_without_a_correlation():
    drawing = cluster_figure(cluster(means(cohort(["heart", "liver"]))))
    assert drawing.table["n_targets"].tolist() == [2]
    assert drawing.png()
