"""Owen values: Shapley values of structures that stand and fall in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import yaml
from numpy.typing import NDArray

from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.coalitions import owen_coalitions, owen_values
from voxplain.attribution.fills import fill_for
from voxplain.attribution.games import Game, Plan, Planner, Solution
from voxplain.attribution.method import Outcome
from voxplain.attribution.players import (
    Paint,
    Players,
    check_paint,
    check_players,
    has_channels,
    players_of,
)
from voxplain.attribution.question import Question
from voxplain.attribution.shapley import outcome_of
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.space.labelmap import nearest


@dataclass(frozen=True)
class Owen:
    """Owen value of each region: its Shapley value where structures stand and fall in groups.

    Groups (lobes of a lung, vertebrae, channels) play first, then the members within their
    group: only coalitions of whole other groups and any part of the player's own count. Fewer
    coalitions than Shapley values need, and the group's sum is its own Shapley value among groups.

    Parameters
    ----------
    groups
        YAML or JSON file that maps a group's name to a list of its players, or the text
        ``lungs=lung_left+lung_right,heart=…``. Players in no group are groups
        of one; without any group the values are Shapley's.
    players, fill, paint
        As for `Shapley`.
    most
        Coalitions that one window's game may take; larger games are refused.

    Notes
    -----
    Exact; splits into window games as `Shapley` does. Coalitions of a game with groups of size
    b_k, m groups: about Σ_k 2^(m−1)·2^(b_k).

    References
    ----------
    Owen 1977, Values of games with a priori unions.
    """

    groups: str = ""
    players: str = "regions"
    fill: Baseline = field(default_factory=Constant)
    most: int = 2**16
    paint: Paint = "density"

    name: ClassVar[str] = "owen"
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    is_adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_players(self.players)
        check_paint(self.paint)

    @property
    def has_channels(self) -> bool:
        """Whether players are of single channels."""
        return has_channels(self.players)

    def passes(self, question: Question) -> Passes:
        """Coalitions of every game times views."""
        return self._game(question, players_of(self.players, question)).passes()

    def _game(self, question: Question, players: Players) -> Game:
        groups = numbered_groups(read_groups(self.groups), players.names)
        planner: Planner = partial(_owen_plan, groups=groups, most=self.most)
        return Game(question, players, fill_for(self.fill, question, players), planner)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        players = players_of(self.players, question)
        played = self._game(question, players).play()
        return outcome_of(question, players, played, emit, self.paint, {}, ())


def _owen_plan(
    numbers: NDArray[np.intp], _: np.random.Generator, *, groups: Sequence[int], most: int
) -> Plan:
    """Plan of one game: `groups` holds the group of each player of the image."""
    p = len(numbers)
    own = [groups[n] for n in numbers]
    local = [[i for i in range(p) if own[i] == g] for g in dict.fromkeys(own)]
    n_needed = sum(2 ** (len(local) - 1 + len(members)) for members in local)
    if n_needed > most:
        raise MethodError(
            f"a game has {p} players in {len(local)} groups, about {n_needed} coalitions, more "
            f"than most={most}; join players, or raise most"
        )
    coalitions = owen_coalitions(p, local)

    def solve(values: NDArray[np.float64]) -> Solution:
        found = owen_values(coalitions, values, local, p)
        return Solution(found, np.zeros_like(found))

    bits = (np.asarray(coalitions)[:, None] >> np.arange(p)) & 1
    return Plan(bits.astype(bool), solve, is_exact=True)


def read_groups(text: str) -> dict[str, list[str]]:
    """Return groups from a file or from text ``NAME=PLAYER+PLAYER,NAME=…``.

    Raises
    ------
    MethodError
        If it is neither.
    """
    if not text:
        return {}
    if "=" in text:
        pairs = [part.partition("=") for part in text.split(",")]
        return {name.strip(): players.split("+") for name, _, players in pairs}
    try:
        known = yaml.safe_load(Path(text).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MethodError(f"groups {text!r} cannot be read: {error}") from error
    if not isinstance(known, Mapping) or not all(isinstance(v, list) for v in known.values()):
        raise MethodError(f"{text} holds no groups: write  group: [player, player]")
    return {str(name): [str(p) for p in players] for name, players in known.items()}


def numbered_groups(groups: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[int]:
    """Return the number of each player's group; players in none are groups of one.

    Raises
    ------
    MethodError
        If a player is unknown or in two groups.
    """
    found: dict[str, int] = {}
    for number, (group, members) in enumerate(groups.items()):
        for player in members:
            if player not in names:
                raise MethodError(f"group {group!r}: no player {player!r}{nearest(player, names)}")
            if player in found:
                raise MethodError(f"player {player!r} is in two groups")
            found[player] = number
    return [found.get(name, len(groups) + i) for i, name in enumerate(names)]
