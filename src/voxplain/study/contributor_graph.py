"""Which regions each target draws on most, as a directed graph with places for its nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError, MethodError
from voxplain.study.anatomy import by_group, group_of

EDGES = ("source", "target", "weight", "rank", "cumulated")
"""One row an arrow from a region to a target that draws on it. weight: mean share; rank: from 1
within the target; cumulated: Σ weights of this rank and those before it / Σ weights of all regions
that are counted."""

LAYOUT = ("node", "x", "y", "group")
"""One row a node: centre of its label in inches from the left and from the bottom."""

Rule = Literal["top", "cumulated"]
Floats = NDArray[np.float64]

LINE = 16
"""Characters in a line of a node's label."""

_LETTER, _HIGH, _PAD, _GAP = 0.079, 0.15, 0.16, 0.16  # inches, text of 8.5 points
_WIDE = 8.6  # inches that the drawing may be wide
_ROUNDS = 6  # of swaps
_TOKEN = re.compile(r"[^_\s\-]*[_\s\-]*")


def edges_of(
    importance: pd.DataFrame,
    rule: Rule = "top",
    *,
    n: int = 5,
    share: float = 0.35,
    without_self: bool = False,
    min_weight: float = 0.0,
) -> pd.DataFrame:
    """Return the strongest contributors of every target.

    Parameters
    ----------
    importance
        Targets × regions, mean shares, not below 0; missing ones are left out.
    rule
        ``top``: the `n` largest; ``cumulated``: as few of the largest as make up at least `share`
        of the regions that are counted.
    n, share
        Of the two rules; share is above 0 and at most 1.
    without_self
        Do not count a target's region of its own name. Weights stay as they are.
    min_weight
        Leave out weaker arrows afterwards; an arrow of weight 0 is never there.

    Returns
    -------
    pandas.DataFrame
        Columns `EDGES`, targets in the order of `importance`. Among equal weights the name
        decides.

    Raises
    ------
    MethodError
        If a setting is out of its range.
    DataError
        If a share is below 0.
    """
    if rule not in get_args(Rule):
        raise MethodError(f"rule is one of {', '.join(get_args(Rule))}, got {rule!r}")
    if n < 1 or not 0 < share <= 1 or min_weight < 0:
        raise MethodError(
            "n is at least 1, share above 0 and at most 1, min_weight not below 0; got "
            f"n {n}, share {share}, min_weight {min_weight}"
        )
    rows: list[tuple[str, str, float, int, float]] = []
    for target, found in importance.iterrows():
        known = found.dropna()
        if (known < 0).any():
            raise DataError(f"shares of {target} are below 0; give the means of share")
        if without_self:
            known = known.drop(str(target), errors="ignore")
        ranked = known.sort_index().sort_values(ascending=False, kind="stable")
        weights = ranked.to_numpy(np.float64)
        if not weights.sum() > 0:
            continue
        reached = np.cumsum(weights) / weights.sum()
        # rounding must not ask for one region more
        last = n if rule == "top" else int(np.searchsorted(reached, share - 1e-12)) + 1
        rows += [
            (str(region), str(target), float(weights[i]), i + 1, float(reached[i]))
            for i, region in enumerate(ranked.index[:last])
            if weights[i] > 0 and weights[i] >= min_weight
        ]
    return pd.DataFrame(rows, columns=list(EDGES))


def wrapped(name: str, n: int = LINE) -> str:
    """Break a name into lines of at most n characters, after ``_``, blank or hyphen if it can."""
    lines = [""]
    for token in _TOKEN.findall(name):
        rest = token
        if len(lines[-1]) + len(rest.rstrip()) > n and lines[-1]:
            lines.append("")
        while len(rest.rstrip()) > n:
            lines[-1], rest = rest[:n], rest[n:]
            lines.append("")
        lines[-1] += rest
    return "\n".join(line.rstrip() for line in lines if line.strip())


def box_of(name: str) -> tuple[float, float]:
    """Return width and height in inches of a node's label with its frame."""
    lines = wrapped(name).split("\n")
    return _LETTER * max(map(len, lines)) + _PAD, _HIGH * len(lines) + _PAD


def layout(edges: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Place the nodes of a graph on an ellipse: groups together, no label over another.

    Groups, and nodes within them, are swapped for as long as that makes Σ weight · (steps along
    the ellipse between the two ends) smaller. All arrows can then be drawn inside, under no
    label.

    Parameters
    ----------
    edges
        Columns `EDGES`.
    groups
        The user's own groups; see `voxplain.study.anatomy.group_of`.

    Returns
    -------
    pandas.DataFrame
        Columns `LAYOUT`, along the ellipse. At most 8.6 inches wide where the labels allow it.
    """
    members = by_group(sorted({*edges["source"], *edges["target"]}), groups)
    if not members:
        return pd.DataFrame(columns=list(LAYOUT))
    names = [node for nodes in members.values() for node in nodes]
    number = {node: i for i, node in enumerate(names)}
    pull = np.zeros((len(names), len(names)))
    ends = (edges[end].map(number).to_numpy(np.intp) for end in ("source", "target"))
    np.add.at(pull, tuple(ends), edges["weight"].to_numpy(np.float64))
    nodes = [names[i] for i in _round([[number[m] for m in own] for own in members.values()], pull)]
    kinds = [group_of(node, groups) for node in nodes]
    places = _on_ellipse(np.array([box_of(node) for node in nodes]), kinds)
    rows = [
        (node, x, y, kind) for node, kind, (x, y) in zip(nodes, kinds, places.tolist(), strict=True)
    ]
    return pd.DataFrame(rows, columns=list(LAYOUT))


def _round(blocks: list[list[int]], pull: Floats) -> list[int]:
    """Order nodes in a circle, block by block, so that those that pull each other are close."""
    both = pull + pull.T
    n = len(both)
    steps = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :])
    steps = np.minimum(steps, n - steps).astype(np.float64)
    best = _length(blocks, both, steps)
    for _ in range(_ROUNDS):
        before = best
        for i, j in combinations(range(len(blocks)), 2):
            blocks[i], blocks[j] = blocks[j], blocks[i]
            tried = _length(blocks, both, steps)
            if tried < best - 1e-12:
                best = tried
            else:
                blocks[i], blocks[j] = blocks[j], blocks[i]
        order = np.concatenate(blocks)
        start = 0
        for block in blocks:
            for p, q in combinations(range(start, start + len(block)), 2):
                pulls = both[order[p], order] - both[order[q], order]
                pulls[[p, q]] = 0.0  # how far they are from each other stays
                if pulls @ (steps[q] - steps[p]) < -1e-12:
                    order[p], order[q] = order[q], order[p]
            block[:] = order[start : start + len(block)].tolist()
            start += len(block)
        best = _length(blocks, both, steps)
        if best > before - 1e-9:
            break
    return [i for block in blocks for i in block]


def _length(blocks: list[list[int]], both: Floats, steps: Floats) -> float:
    order = np.concatenate(blocks)
    return float((both[np.ix_(order, order)] * steps).sum())


def _on_ellipse(boxes: Floats, kinds: list[str]) -> Floats:
    """Centres of boxes along an ellipse, clockwise from the top, that is as high as it must be."""
    if len(boxes) == 1:
        return boxes / 2
    wide = max(float(boxes[:, 0].max()) + 0.1, min(_WIDE, 2.6 + 0.55 * len(boxes)))
    half_x = (wide - boxes[:, 0].max()) / 2
    half_y = max(0.75, 0.33 * wide)
    # a little more room between groups
    gaps = _GAP + 0.18 * np.array(
        [a != b for a, b in zip(kinds, kinds[1:] + kinds[:1], strict=True)]
    )
    turn = np.linspace(0, 2 * np.pi, 4001)
    while True:
        curve = np.stack([half_x * np.sin(turn), half_y * np.cos(turn)], axis=1)
        at = _spaced(curve, boxes, gaps)
        if not _overlap(at, boxes):
            low = (at - boxes / 2).min(axis=0)
            return np.asarray(at - low)
        half_y *= 1.06
        # names that are all as wide as the page stand in two columns
        half_x = max(half_x, float(boxes[:, 0].max()) / 2 + _GAP)


def _spaced(curve: Floats, boxes: Floats, gaps: Floats) -> Floats:
    """Points of a closed curve, as far apart as each pair of neighbours needs, in proportion."""
    pieces = np.diff(curve, axis=0)
    lengths = np.linalg.norm(pieces, axis=1)
    way = np.abs(pieces) / lengths[:, None]
    along = np.append(0.0, np.cumsum(lengths))
    total = along[-1]
    n = len(boxes)
    needs = np.ones(n)
    following = np.roll(np.arange(n), -1)
    for _ in range(60):
        arc = np.append(0.0, np.cumsum(needs))[:n] / needs.sum() * total
        middle = (arc + needs / needs.sum() * total / 2) % total
        t = way[np.clip(np.searchsorted(along, middle) - 1, 0, len(way) - 1)]
        size = (boxes + boxes[following]) / 2 + gaps[:, None]
        asked = (size / np.maximum(t, 1e-6)).min(axis=1)
        needs = 0.5 * needs + 0.5 * asked
    return np.stack([np.interp(arc, along, curve[:, k]) for k in (0, 1)], axis=1)


def _overlap(at: Floats, boxes: Floats) -> bool:
    """Tell whether any two boxes are closer than the gap."""
    away = np.abs(at[:, None] - at[None, :])
    is_over = (away < (boxes[:, None] + boxes[None, :]) / 2 + 0.7 * _GAP).all(axis=2)
    return bool(is_over.sum() > len(at))
