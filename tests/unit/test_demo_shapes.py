from __future__ import annotations

import numpy as np
import pytest

from voxplain.demo.canvas import Canvas
from voxplain.demo.shapes import FAR_MM, Beads, Ellipsoid, Waves, rotation


def test_ball_distance_is_exact():
    points = np.random.default_rng(0).normal(0, 20, (50, 3))
    found = Ellipsoid([1, 2, 3], [7, 7, 7]).distance(points)
    assert found == pytest.approx(np.linalg.norm(points - [1, 2, 3], axis=1) - 7)


def test_turned_ellipsoid_has_its_ends_where_they_are():
    solid = Ellipsoid([1, 0, -2], [9, 3, 5], turn=np.pi / 6)
    axes = [
        [9 * np.cos(np.pi / 6), 9 * np.sin(np.pi / 6), 0],
        [-3 * np.sin(np.pi / 6), 3 * np.cos(np.pi / 6), 0],
        [0, 0, 5],
    ]
    ends = np.add([1, 0, -2], axes)
    assert solid.distance(ends) == pytest.approx(0, abs=1e-9)
    assert (solid.distance(0.9 * (ends - solid.centre) + solid.centre) < 0).all()


def test_straight_tube_is_a_cylinder():
    tube = Beads.tube([[0, 0, 0], [0, 0, 40]], 4, step_mm=0.1)
    points = np.array([[3.0, 0, 20], [0, 9.0, 11], [1.0, 1.0, 44], [0, 0, -4]])
    expected = [-1, 5, np.sqrt(18) - 4, 0]
    assert tube.distance(points) == pytest.approx(expected, abs=0.01)


def test_curved_tube_passes_through_its_path_and_tapers():
    path = [[0, 0, 0], [10, 5, 10], [15, 20, 30]]
    tube = Beads.tube(path, [6, 4, 2], step_mm=0.1)
    assert tube.distance(np.array(path, float)) == pytest.approx([-6, -4, -2], abs=0.1)


def test_points_beyond_reach_or_not_asked_for_are_far():
    tube = Beads.tube([[0, 0, 0], [0, 0, 40]], 4, step_mm=0.2)
    points = np.array([[0, 0, 10.0], [0, 0, 20.0], [90, 0, 0]])
    found = tube.distance(points, np.array([True, False, True]))
    assert found[0] == pytest.approx(-4, abs=0.2)
    assert (found[1:] == FAR_MM).all()


def test_joined_beads_are_a_union():
    one, other = Beads.tube([[0, 0, 0], [9, 0, 0]], 3), Beads.tube([[0, 30, 0], [9, 30, 0]], 3)
    points = np.random.default_rng(1).uniform(0, 30, (40, 3))
    joined = Beads.join([one, other]).distance(points)
    assert joined == pytest.approx(np.minimum(one.distance(points), other.distance(points)))


def test_waves_are_smooth_with_unit_variance():
    waves = Waves.draw(np.random.default_rng(2), 20, 40, n=16)
    points = np.random.default_rng(3).uniform(-400, 400, (20_000, 3))
    values = waves.at(points)
    assert values.std() == pytest.approx(1, rel=0.1)
    steepest = np.sqrt(2 / 16) * 16 * 2 * np.pi / 20
    assert np.abs(waves.at(np.add(points, [0.1, 0, 0])) - values).max() <= 0.1 * steepest


def test_rotation_is_a_rotation_about_each_axis():
    turn = rotation(0.1, -0.2, 0.3)
    assert turn @ turn.T == pytest.approx(np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)
    assert rotation(0, 0, np.pi / 2) @ [1, 0, 0] == pytest.approx([0, 1, 0])
    assert rotation(np.pi / 2, 0, 0) @ [0, 1, 0] == pytest.approx([0, 0, 1])


def test_canvas_blends_at_edges_and_labels_by_the_centre():
    canvas = Canvas(5, edge_mm=4.0)
    distance = np.array([-9.0, -1.0, 0.0, 1.0, 9.0], np.float32)
    canvas.paint(distance, 1000.0, "heart")
    assert canvas.hu == pytest.approx([1000, 500, 0, -500, -1000])
    assert canvas.labels.tolist() == [4, 4, 0, 0, 0]
    canvas.tint(distance, -1000.0)
    assert canvas.hu[0] == -1000
    assert canvas.labels.tolist() == [4, 4, 0, 0, 0]
    canvas.paint(distance + 5, 0.0)
    assert canvas.labels.tolist() == [0, 4, 0, 0, 0]
