"""Exact values of cooperative games from tables of numbers: Shapley, Owen, interactions.

A game gives every coalition of p players a value for each of T targets. Nothing here knows of
images, models or windows: coalitions come as bit masks (bit i: player i is present), values as
arrays (coalitions, T). Sampled games: `voxplain.attribution.kernelshap`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.attribution.kernelshap import (
    Sample,
    kernel_values,
    least_samples,
    paired_coalitions,
)
from voxplain.errors import MethodError

__all__ = [
    "Sample",
    "all_coalitions",
    "interaction_values",
    "kernel_values",
    "least_samples",
    "owen_coalitions",
    "owen_values",
    "paired_coalitions",
    "shapley_values",
]

_MOST_BITS = 62  # of a mask in int64


def all_coalitions(p: int) -> NDArray[np.bool_]:
    """Return every coalition of p players, (2^p, p): row k has bit i of k in column i."""
    if not 0 <= p <= _MOST_BITS:
        raise MethodError(f"all coalitions are listed of 0 to {_MOST_BITS} players, got {p}")
    masks = np.arange(1 << p, dtype=np.int64)
    present: NDArray[np.bool_] = (masks[:, None] >> np.arange(p)) & 1 == 1
    return present


def shapley_values(values: ArrayLike) -> NDArray[np.float64]:
    """Compute exact Shapley values from the values of all coalitions.

    φ_i = Σ_{S ⊆ N∖i} s! (p−s−1)! / p! · (v(S∪i) − v(S)), s = |S|.

    Parameters
    ----------
    values
        (2^p, T); row k belongs to the coalition whose bit mask is k.

    Returns
    -------
    NDArray[np.float64]
        (p, T), in the unit of the values; sums to v(N) − v(∅). A player that changes nothing
        gets exactly zero.

    Raises
    ------
    MethodError
        If the table is not (2^p, T).

    Notes
    -----
    p·2^(p−1) differences a target; the table and one difference table of half its size.

    References
    ----------
    Shapley 1953, A value for n-person games.
    """
    table, p = _table(values)
    phi = np.zeros((p, table.shape[1]))
    if p:
        weights = _shapley_weights(p)
        for i in range(p):
            sides = table.reshape(-1, 2, 1 << i, table.shape[1])
            gains = sides[:, 1] - sides[:, 0]
            # without bit i the rows count through the coalitions of the other players
            phi[i] = weights @ gains.reshape(len(weights), -1)
    return phi


def interaction_values(values: ArrayLike) -> NDArray[np.float64]:
    """Compute the exact Shapley interaction index of every two players.

    I(i,j) = Σ_{S ⊆ N∖{i,j}} s! (p−s−2)! / (p−1)! · (v(S∪ij) − v(S∪i) − v(S∪j) + v(S)).

    Parameters
    ----------
    values
        (2^p, T), p ≥ 2; row k belongs to the coalition whose bit mask is k.

    Returns
    -------
    NDArray[np.float64]
        (p, p, T), symmetric. Positive: together the two do more than the sum of each. The
        index has no value for a player with itself: the diagonal is zero, not the Shapley value.

    Raises
    ------
    MethodError
        If the table is not (2^p, T), or has fewer than two players.

    Notes
    -----
    p(p−1)/2·2^(p−2) second differences a target. The values do not sum to v(N) − v(∅).

    References
    ----------
    Grabisch & Roubens 1999, An axiomatic approach to the concept of interaction, eq. 4.
    """
    table, p = _table(values)
    if p < 2:
        raise MethodError(f"interactions need at least 2 players, got {p}")
    n_targets = table.shape[1]
    weights = _shapley_weights(p - 1)
    found = np.zeros((p, p, n_targets))
    for i, j in combinations(range(p), 2):
        sides = table.reshape(-1, 2, 1 << (j - i - 1), 2, 1 << i, n_targets)
        gains = sides[:, 1] - sides[:, 0]
        joint = gains[:, :, 1] - gains[:, :, 0]
        found[i, j] = found[j, i] = weights @ joint.reshape(len(weights), -1)
    return found


def owen_coalitions(p: int, groups: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Return the bit masks that `owen_values` needs: whole other groups with a part of one.

    Parameters
    ----------
    p
        Players, 1 to 62.
    groups
        Partition of the players 0 … p−1.

    Returns
    -------
    NDArray[np.int64]
        Distinct and ascending; the empty and the full coalition are among them. At most
        Σ_k 2^(m−1+b_k) for m groups of b_k players.

    Raises
    ------
    MethodError
        If the groups are no partition of the players.
    """
    _check_groups(p, groups)
    return np.unique(np.concatenate([masks.ravel() for masks in _owen_masks(groups)]))


def owen_values(
    coalitions: ArrayLike, values: ArrayLike, groups: Sequence[Sequence[int]], p: int
) -> NDArray[np.float64]:
    """Compute exact Owen values: Shapley values of players who come group by group.

    φ_i = Σ_{R ⊆ M∖k} r! (m−r−1)! / m! Σ_{S ⊆ B_k∖i} s! (b−s−1)! / b! · (v(Q_R∪S∪i) − v(Q_R∪S))
    for player i of group B_k of b players among m groups M; Q_R is the union of the groups R.

    Parameters
    ----------
    coalitions
        (n,) distinct bit masks, in any order; at least those of `owen_coalitions`.
    values
        (n, T), one row a coalition.
    groups
        Partition of the players 0 … p−1.
    p
        Players, 1 to 62.

    Returns
    -------
    NDArray[np.float64]
        (p, T); sums to v(N) − v(∅). A group's sum is its Shapley value in the game of groups.
        With groups of one player each, or one group of all, it is the Shapley value.

    Raises
    ------
    MethodError
        If the groups are no partition, or a coalition has no value or two.

    References
    ----------
    Owen 1977, Values of games with a priori unions.
    """
    _check_groups(p, groups)
    masks = np.asarray(coalitions, dtype=np.int64)
    table = np.asarray(values, dtype=np.float64)
    if masks.ndim != 1 or table.ndim != 2 or len(masks) != len(table):
        raise MethodError(
            f"an Owen value needs (n,) coalitions and (n, T) values, got {masks.shape} and "
            f"{table.shape}"
        )
    order = np.argsort(masks, kind="stable")
    ascending = masks[order]
    twice = ascending[1:][ascending[1:] == ascending[:-1]]
    if len(twice):
        raise MethodError(f"a coalition has one value, got two of {_players(int(twice[0]))}")
    weights = _shapley_weights(len(groups))
    phi = np.empty((p, table.shape[1]))
    for group, needed in zip(groups, _owen_masks(groups), strict=True):
        rows = np.searchsorted(ascending, needed)
        rows[rows == len(ascending)] = 0
        missing = needed[ascending[rows] != needed] if len(ascending) else needed.ravel()
        if len(missing):
            raise MethodError(
                f"an Owen value needs the value of every coalition of owen_coalitions, got none "
                f"of {_players(int(missing[0]))}"
            )
        # the other groups averaged away leave a game of this group's players alone
        inner = np.tensordot(weights, table[order[rows]], axes=1)
        phi[list(group)] = shapley_values(inner)
    return phi


def _table(values: ArrayLike) -> tuple[NDArray[np.float64], int]:
    """Check a table of all coalitions; return it and the number of players."""
    table = np.asarray(values, dtype=np.float64)
    n = len(table) if table.ndim == 2 else 0
    if n == 0 or n & (n - 1):
        raise MethodError(f"values of all coalitions are (2^p, T), got {table.shape}")
    return table, n.bit_length() - 1


def _shapley_weights(p: int) -> NDArray[np.float64]:
    """Weights s! (p−s−1)! / p! of the coalitions of p−1 others, by bit mask; they sum to one."""
    by_size = np.array([1 / (p * comb(p - 1, s)) for s in range(p)])
    weights: NDArray[np.float64] = by_size[all_coalitions(p - 1).sum(axis=1)]
    return weights


def _check_groups(p: int, groups: Sequence[Sequence[int]]) -> None:
    if not 1 <= p <= _MOST_BITS:
        raise MethodError(f"Owen values are computed for 1 to {_MOST_BITS} players, got {p}")
    members = sorted(player for group in groups for player in group)
    if members != list(range(p)) or not all(len(group) for group in groups):
        raise MethodError(
            f"groups hold each of the players 0 to {p - 1} once and none is empty, got "
            f"{[list(group) for group in groups]}"
        )


def _owen_masks(groups: Sequence[Sequence[int]]) -> Iterator[NDArray[np.int64]]:
    """Masks (2^(m−1), 2^b) of each group: unions of the others by parts of it."""
    for k, group in enumerate(groups):
        others = [sum(1 << i for i in other) for j, other in enumerate(groups) if j != k]
        yield _unions(others)[:, None] | _unions([1 << i for i in group])


def _unions(masks: Sequence[int]) -> NDArray[np.int64]:
    """Every union of disjoint masks, in the order of `all_coalitions`."""
    return all_coalitions(len(masks)).astype(np.int64) @ np.array(masks, dtype=np.int64)


def _players(mask: int) -> str:
    return f"players {[i for i in range(mask.bit_length()) if mask >> i & 1]}"
