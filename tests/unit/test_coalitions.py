"""Exact values of games given by a table of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from voxplain.attribution.coalitions import (
    all_coalitions,
    interaction_values,
    owen_coalitions,
    owen_values,
    shapley_values,
)
from voxplain.errors import MethodError

P, GROUPS = 4, [[2, 0], [3, 1]]

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 6)


def game(p: int, seed: int, n_targets: int = 3) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(2**p, n_targets))


def mean_gains(values: NDArray[np.float64], orders: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """What each player adds on arrival, averaged over orders of arrival."""
    total = np.zeros((len(orders[0]), values.shape[1]))
    for order in orders:
        mask = 0
        for i in order:
            total[i] += values[mask | 1 << i] - values[mask]
            mask |= 1 << i
    return total / len(orders)


def in_groups(p: int, groups: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Orders of arrival in which no group is interrupted by a player of another."""
    group_of = {i: k for k, group in enumerate(groups) for i in group}
    return [
        order
        for order in permutations(range(p))
        if sum(group_of[a] != group_of[b] for a, b in pairwise(order)) == len(groups) - 1
    ]


def owen(values: NDArray[np.float64], groups: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    p = len(values).bit_length() - 1
    needed = owen_coalitions(p, groups)
    return owen_values(needed, values[needed], groups, p)


def test_row_k_is_the_mask_k() -> None:
    rows = all_coalitions(3)
    assert rows.dtype == bool
    assert rows[0b101].tolist() == [True, False, True]
    assert (rows @ [1, 2, 4]).tolist() == list(range(8))


def test_shapley_is_the_mean_over_all_orders() -> None:
    values = game(P, 0)
    wanted = mean_gains(values, list(permutations(range(P))))
    np.testing.assert_allclose(shapley_values(values), wanted, atol=1e-14)


def test_owen_is_the_mean_over_orders_in_groups() -> None:
    values = game(P, 1)
    orders = in_groups(P, GROUPS)
    assert len(orders) == 8  # 2! orders of the groups, 2! in each
    np.testing.assert_allclose(owen(values, GROUPS), mean_gains(values, orders), atol=1e-14)
    assert np.abs(owen(values, GROUPS) - shapley_values(values)).max() > 0.05


def test_shapley_and_interactions_equal_shapiq() -> None:
    from shapiq import ExactComputer

    values = game(6, 2, n_targets=2)
    phi, pairs = shapley_values(values), interaction_values(values)
    for t in range(2):

        def play(rows: NDArray[np.bool_], t: int = t) -> NDArray[np.float64]:
            return values[np.asarray(rows) @ (1 << np.arange(6)), t]

        exact = ExactComputer(play, n_players=6)
        first, second = exact("SV", 1), exact("SII", 2)
        for i in range(6):
            assert phi[i, t] == pytest.approx(first[(i,)], abs=1e-12)
            for j in range(i):
                assert pairs[i, j, t] == pytest.approx(second[(j, i)], abs=1e-12)


@given(sizes, seeds)
def test_values_share_out_the_gain(p: int, seed: int) -> None:
    values = game(p, seed)
    gain = values[-1] - values[0]
    np.testing.assert_allclose(shapley_values(values).sum(axis=0), gain, atol=1e-12)
    groups = [list(range(0, p, 2)), list(range(1, p, 2))]
    np.testing.assert_allclose(owen(values, groups).sum(axis=0), gain, atol=1e-12)


@given(sizes, seeds)
def test_a_player_that_changes_nothing_gets_nothing(p: int, seed: int) -> None:
    player = seed % p
    masks = np.arange(2**p) & ~(1 << player)
    values = game(p, seed)[masks]
    assert not shapley_values(values)[player].any()
    pairs = interaction_values(values)
    assert not pairs[player].any()
    np.testing.assert_allclose(owen(values, [list(range(p))])[player], 0, atol=1e-15)


@given(sizes, seeds)
def test_players_that_do_the_same_get_the_same(p: int, seed: int) -> None:
    swap = all_coalitions(p)[:, [1, 0, *range(2, p)]] @ (1 << np.arange(p))
    values = game(p, seed)
    values = values + values[swap]
    phi, pairs = shapley_values(values), interaction_values(values)
    np.testing.assert_allclose(phi[0], phi[1], atol=1e-12)
    np.testing.assert_allclose(pairs[0, 2:], pairs[1, 2:], atol=1e-12)
    np.testing.assert_array_equal(pairs, pairs.transpose(1, 0, 2))
    np.testing.assert_array_equal(pairs[np.arange(p), np.arange(p)], 0)


@given(sizes, seeds)
def test_values_are_linear_in_the_game(p: int, seed: int) -> None:
    one, other = game(p, seed), game(p, seed + 1)
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    for value in (shapley_values, interaction_values, lambda v: owen(v, [[0], range(1, p)])):
        np.testing.assert_allclose(
            value(2 * one - 3 * other), 2 * value(one) - 3 * value(other), atol=1e-12
        )


def test_a_product_is_halved() -> None:
    values = np.array([[0.0], [0.0], [0.0], [1.0]])  # v = z0 z1
    assert shapley_values(values).ravel().tolist() == [0.5, 0.5]
    assert interaction_values(values)[:, :, 0].tolist() == [[0, 1], [1, 0]]


def test_a_unanimous_group_of_three_shares_its_gain() -> None:
    present = all_coalitions(5)
    values = 6.0 * present[:, [0, 2, 3]].all(axis=1)[:, None]
    np.testing.assert_allclose(shapley_values(values).ravel(), [2, 0, 2, 2, 0], atol=1e-14)
    # of a product of m players every pair has the index 1 / (m − 1)
    pairs = interaction_values(values)[:, :, 0]
    assert pairs[0, 2] == pytest.approx(3)
    assert pairs[0, 1] == 0
    # by groups: {0, 2} and {3} halve it, 0 and 2 halve theirs
    phi = owen(values, [[0, 2], [3, 4], [1]]).ravel()
    np.testing.assert_allclose(phi, [1.5, 0, 1.5, 3, 0], atol=1e-14)


@given(st.integers(1, 6), seeds)
def test_trivial_groups_give_the_shapley_values(p: int, seed: int) -> None:
    values = game(p, seed)
    order = np.random.default_rng(seed).permutation(p).tolist()
    for groups in ([[i] for i in order], [order]):
        assert len(owen_coalitions(p, groups)) == 2**p
        np.testing.assert_allclose(owen(values, groups), shapley_values(values), atol=1e-12)


@given(seeds)
def test_a_group_gets_what_it_is_worth_among_groups(seed: int) -> None:
    values = game(6, seed)
    groups = [[5, 1, 2], [0], [4, 3]]
    whole = np.array([sum(1 << i for i in group) for group in groups])
    quotient = values[all_coalitions(3) @ whole]
    sums = [owen(values, groups)[group].sum(axis=0) for group in groups]
    np.testing.assert_allclose(sums, shapley_values(quotient), atol=1e-12)


def test_owen_needs_few_coalitions_in_any_order() -> None:
    groups = [range(8), range(8, 16), [16, 17]]
    needed = owen_coalitions(18, groups)
    # parts of one group with 4 unions of the others, the 8 unions of whole groups counted once
    assert len(needed) == 4 * (254 + 254 + 2) + 8
    rng = np.random.default_rng(3)
    effects, shuffled = rng.normal(size=(18, 2)), rng.permutation(needed)
    values = (shuffled[:, None] >> np.arange(18) & 1) @ effects
    np.testing.assert_allclose(owen_values(shuffled, values, groups, 18), effects, atol=1e-12)


def test_owen_reaches_the_highest_bit() -> None:
    groups = [range(k, k + 8) for k in range(0, 56, 8)] + [range(56, 62)]
    needed = owen_coalitions(62, groups)
    assert needed[0] == 0
    assert needed[-1] == 2**62 - 1
    effects = np.arange(62.0)[:, None]
    values = (needed[:, None] >> np.arange(62) & 1) @ effects
    np.testing.assert_allclose(owen_values(needed, values, groups, 62), effects, atol=1e-9)


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ([[0, 1], [1, 2]], r"players 0 to 2 once and none is empty, got \[\[0, 1\], \[1, 2\]\]"),
        ([[0, 1]], "players 0 to 2 once"),
        ([[0, 1, 2], []], "none is empty"),
        ([[0, 1], [3]], "players 0 to 2 once"),
    ],
)
def test_groups_are_a_partition(groups: list[list[int]], text: str) -> None:
    with pytest.raises(MethodError, match=text):
        owen_coalitions(3, groups)
    with pytest.raises(MethodError, match=text):
        owen_values(np.arange(8), np.zeros((8, 1)), groups, 3)


def test_owen_tells_what_is_missing() -> None:
    needed = owen_coalitions(P, GROUPS)
    values = game(P, 4)[needed]
    with pytest.raises(MethodError, match=r"got none of players \[\]"):
        owen_values(needed[1:], values[1:], GROUPS, P)
    with pytest.raises(MethodError, match=r"got none of players \[0, 1, 2, 3\]"):
        owen_values(needed[:-1], values[:-1], GROUPS, P)
    with pytest.raises(MethodError, match=r"got none of players \[\]"):
        owen_values(needed[:0], values[:0], GROUPS, P)
    twice = np.append(needed, needed[1])
    with pytest.raises(MethodError, match=r"got two of players \[0\]"):
        owen_values(twice, values[[*range(len(needed)), 1]], GROUPS, P)
    with pytest.raises(MethodError, match=r"\(12,\) and \(11, 3\)"):
        owen_values(needed, values[1:], GROUPS, P)


@pytest.mark.parametrize("shape", [(6, 1), (0, 1), (8,)])
def test_a_table_holds_every_coalition(shape: tuple[int, ...]) -> None:
    for value in (shapley_values, interaction_values):
        with pytest.raises(MethodError, match=r"\(2\^p, T\), got \("):
            value(np.zeros(shape))


def test_limits_of_players() -> None:
    assert shapley_values(np.ones((1, 2))).shape == (0, 2)
    assert shapley_values([[1.0], [3.0]]).tolist() == [[2.0]]
    with pytest.raises(MethodError, match="at least 2 players, got 1"):
        interaction_values(np.zeros((2, 1)))
    with pytest.raises(MethodError, match="0 to 62 players, got 63"):
        all_coalitions(63)
    with pytest.raises(MethodError, match="1 to 62 players, got 63"):
        owen_coalitions(63, [[i] for i in range(63)])
