"""Games over the players of an image, split into games of single windows where that is exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.attribution.changed import Change, ChangedValues
from voxplain.attribution.players import Players
from voxplain.attribution.question import Question
from voxplain.inference.pipeline import Input, Passes
from voxplain.space.box import Box


@dataclass(frozen=True)
class Solution:
    """Values of the players of one game.

    Parameters
    ----------
    values, errors
        (n_players, n_targets) and their standard errors, 0 where every coalition was run.
    pairs
        (n_players, n_players, n_targets) interactions, where asked for.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    pairs: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Plan:
    """Coalitions to run for one game, and what their values amount to.

    Parameters
    ----------
    is_present
        (n_coalitions, n_players); the first is the empty one, the last the full one.
    solve
        Takes the coalitions' values (n_coalitions, n_targets).
    is_exact
        Whether another draw would give the same.
    """

    is_present: NDArray[np.bool_]
    solve: Callable[[NDArray[np.float64]], Solution]
    is_exact: bool


Planner = Callable[[NDArray[np.intp], np.random.Generator], Plan]
"""Takes the players of a game (their numbers) and a generator."""


class Game:
    """The game "which players are present" for every target of a question at once.

    Where all targets are linear in the logits, T = Σ_w t_w, the game is the sum of the windows'
    games, in which only players with a voxel in the window act; values that are linear in
    the game (Shapley, Owen, interactions) add up, and a player that does not act has value 0.
    Otherwise it is one game over the whole image, whose windows are run once for each part of
    a coalition that they see. A player also does not act where its voxels already equal the fill.

    Parameters
    ----------
    question, players
        Targets, and the image in parts.
    fill
        What stands where a player is absent.
    planner
        Decides which coalitions are run.
    """

    def __init__(self, question: Question, players: Players, fill: Input, planner: Planner) -> None:
        self._question = question
        self._players = players
        self._fill = fill
        self._planner = planner
        self._changed = ChangedValues(question)
        windows = self._changed.windows
        acting = {w: self._acting(question.pipeline.plan.box(w)) for w in windows}
        if question.is_fixed:
            self._games = {w: numbers for w, numbers in acting.items() if len(numbers)}
        else:
            everyone = np.unique(np.concatenate([*acting.values(), np.zeros(0, np.intp)]))
            self._games = {_WHOLE: everyone} if len(everyone) else {}

    def _acting(self, box: Box) -> NDArray[np.intp]:
        """Players whose absence changes a voxel of the box."""
        held = self._players.crop(box)
        differs: NDArray[np.bool_] = (self._question.pipeline.clean(box) != self._fill(box)).numpy()
        if not self._players.has_channels:
            differs = np.asarray(differs.any(axis=0, keepdims=True))
        found = held[np.broadcast_to(differs, held.shape)]
        counts = np.bincount(found[found >= 0], minlength=len(self._players))
        return np.flatnonzero(counts)

    @property
    def n_players(self) -> dict[int, int]:
        """Acting players of each game, by window (−1: the whole image)."""
        return {w: len(numbers) for w, numbers in self._games.items()}

    def passes(self) -> Passes:
        """Count the passes that a first `play` runs."""
        n_forward = 0
        for w, numbers in self._games.items():
            plan = self._plan(w, numbers, 0)
            if w == _WHOLE:
                n_forward += self._changed.passes(self._changes(plan, numbers)).n_forward
            else:
                n_forward += len(plan.is_present) * self._question.pipeline.model.n_views
        return Passes(n_forward=n_forward)

    def play(self) -> Played:
        """Run every game once; games that are not exact can be played on."""
        played = Played(len(self._players), len(self._question.targets))
        for w, numbers in self._games.items():
            plan = self._plan(w, numbers, 0)
            values = self._values(w, numbers, plan)
            played.change += values[-1] - values[0]
            played.add(w, numbers, plan.solve(values), plan.is_exact)
        return played

    def play_on(self, played: Played) -> None:
        """Draw once more in each game that is not exact, and average."""
        for w in played.open_games:
            plan = self._plan(w, self._games[w], played.n_rounds(w))
            solution = plan.solve(self._values(w, self._games[w], plan))
            played.add(w, self._games[w], solution, plan.is_exact)

    def _plan(self, window: int, numbers: NDArray[np.intp], round_: int) -> Plan:
        return self._planner(numbers, self._question.noise.generator(window + 1, round_))

    def _values(self, window: int, numbers: NDArray[np.intp], plan: Plan) -> NDArray[np.float64]:
        changes = self._changes(plan, numbers)
        if window == _WHOLE:
            return self._changed.values(changes)
        return self._changed.window_values(changes, window)

    def _changes(self, plan: Plan, numbers: NDArray[np.intp]) -> list[Change]:
        changes = []
        for row in plan.is_present:
            is_present = np.ones(len(self._players), np.bool_)
            is_present[numbers] = row
            changes.append(self._players.without(is_present, self._fill))
        return changes


@dataclass
class Played:
    """Sums over games, and over the rounds of those that are sampled.

    Attributes
    ----------
    change
        T(x) − T(everything filled) of each target.
    """

    n_players: int
    n_targets: int
    change: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.change = np.zeros(self.n_targets)
        self._rounds: dict[int, list[Solution]] = {}
        self._numbers: dict[int, NDArray[np.intp]] = {}
        self.open_games: list[int] = []

    def add(self, game: int, numbers: NDArray[np.intp], solution: Solution, is_exact: bool) -> None:
        """Take one round of one game."""
        self._rounds.setdefault(game, []).append(solution)
        self._numbers[game] = numbers
        if not is_exact and game not in self.open_games:
            self.open_games.append(game)

    def n_rounds(self, game: int) -> int:
        """Count the rounds played of a game."""
        return len(self._rounds[game])

    @property
    def values(self) -> NDArray[np.float64]:
        """Value of each player, (n_targets, n_players): sum over games of the mean over rounds."""
        total = np.zeros((self.n_targets, self.n_players))
        for game, rounds in self._rounds.items():
            total[:, self._numbers[game]] += np.mean([s.values for s in rounds], axis=0).T
        return total

    @property
    def errors(self) -> NDArray[np.float64]:
        """Standard error of each value, (n_targets, n_players)."""
        total = np.zeros((self.n_targets, self.n_players))
        for game, rounds in self._rounds.items():
            squares = np.sum([s.errors**2 for s in rounds], axis=0) / len(rounds) ** 2
            total[:, self._numbers[game]] += squares.T
        return np.sqrt(total)

    @property
    def pairs(self) -> NDArray[np.float64] | None:
        """Interaction of each pair, (n_targets, n_players, n_players); None if not asked for."""
        total = np.zeros((self.n_targets, self.n_players, self.n_players))
        for game, rounds in self._rounds.items():
            if rounds[0].pairs is None:
                return None
            at = np.ix_(np.arange(self.n_targets), self._numbers[game], self._numbers[game])
            total[at] += rounds[0].pairs.transpose(2, 0, 1)
        return total


_WHOLE = -1  # in place of a window


def player_rows(
    question: Question,
    players: Players,
    values: NDArray[np.float64],
    errors: NDArray[np.float64] | None = None,
    pairs: NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Return the rows of a player table: each player's value, then each pair's.

    Parameters
    ----------
    question, players
        Names and voxels.
    values, errors
        (n_targets, n_players); errors None: 0.
    pairs
        (n_targets, n_players, n_players), symmetric.
    """
    n_voxels = players.n_voxels()
    rows = []
    for t, target in enumerate(question.targets):
        for i, name in enumerate(players.names):
            error = 0.0 if errors is None else errors[t, i]
            rows.append((target.name, name, "", values[t, i], error, n_voxels[i]))
        if pairs is not None:
            for i, j in _pairs(players.names):
                both = int(n_voxels[i] + n_voxels[j])
                rows.append((target.name, players.names[i], players.names[j],
                             pairs[t, i, j], 0.0, both))  # fmt: skip
    columns = ["target", "player", "partner", "value", "error", "n_voxels"]
    return pd.DataFrame(rows, columns=columns)


def _pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
