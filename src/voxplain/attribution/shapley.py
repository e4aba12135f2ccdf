"""Shapley values and interactions of regions, cubes, supervoxels or channels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.coalitions import all_coalitions, interaction_values, shapley_values
from voxplain.attribution.fills import fill_for
from voxplain.attribution.games import Game, Plan, Planner, Played, Solution, player_rows
from voxplain.attribution.kernelshap import kernel_values, least_samples, paired_coalitions
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
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.records.finding import Finding, finding

_MOST_EXACT = 20


@dataclass(frozen=True)
class Shapley:
    """Shapley value of each region (cube, supervoxel, channel): its mean effect over all orders.

    φ_i = Σ_{S ⊆ N∖i} |S|!(p−|S|−1)!/p! · (T(S ∪ i) − T(S)), where T(S) is the target with all
    players outside S filled. Σ_i φ_i = T(x) − T(fill).

    Parameters
    ----------
    players
        See `players_of`: ``regions`` (default the predicted classes), ``cubes:N``,
        ``supervoxels:N``, ``channels``, ``channels*regions``, ….
    fill
        What stands where a player is absent; default 0 in the model's intensities.
    exact
        Games of at most this many players are enumerated, 2^p coalitions: exact values.
    samples
        Coalitions drawn in each larger game (KernelSHAP with paired sampling). Fewer than
        the least squares need is refused.
    tolerance
        Standard error of every value to be met, as a share of Σ_i |φ_i| of its target:
        `samples` more are drawn in every sampled game until it is, at most `max_samples` in
        each; with finding VX106 if that is not enough.
    max_samples
        Most coalitions in each sampled game with a tolerance.
    interactions
        Also give the Shapley interaction index of each pair of players; every game must be
        enumerable.
    paint
        ``density``: a player's value is dealt out over its voxels, so that maps sum.
        ``value``: every voxel holds its player's value, as Agg²Exp draws it.

    Notes
    -----
    With targets linear in the logits (a held mask and score ``logit``) the game splits exactly
    into games of single windows, whose only players are those with a voxel in the window; all
    targets share the passes: Σ_w 2^(p_w), or `samples` + 2 where p_w is larger than `exact`,
    times the views. Other targets need one game over the whole image, whose window outputs are
    kept by what of a coalition they see.

    Differs from Agg²Exp, which runs captum's KernelShap over the whole image, again for each class,
    with 200 samples for predicted segments and 1000 for cubes, and draws whole values: presets
    ``agg2exp-kernelshap_semantic`` (here exact where windows hold few segments) and
    ``agg2exp-kernelshap_cubes``.

    References
    ----------
    Shapley 1953; Lundberg & Lee 2017, arXiv 1705.07874; Covert & Lee 2021, arXiv 2012.01536;
    Grabisch & Roubens 1999 (interactions); Chrabąszcz et al. 2025, arXiv 2407.16653.
    """

    players: str = "regions"
    fill: Baseline = field(default_factory=Constant)
    exact: int = 12
    samples: int = 512
    tolerance: float | None = None
    max_samples: int = 16384
    interactions: bool = False
    paint: Paint = "density"

    name: ClassVar[str] = "shapley"
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"

    def __post_init__(self) -> None:
        check_players(self.players)
        check_paint(self.paint)
        if not 0 <= self.exact <= _MOST_EXACT:
            raise MethodError(f"exact is 0 to {_MOST_EXACT} players, got {self.exact}")
        if self.samples < 2 or self.samples % 2 or self.max_samples < self.samples:
            raise MethodError(
                "2 <= samples <= max_samples is needed, samples even (they come in pairs), got "
                f"samples={self.samples}, max_samples={self.max_samples}"
            )
        if self.tolerance is not None and not self.tolerance > 0:
            raise MethodError(f"tolerance is positive, got {self.tolerance}")

    @property
    def has_channels(self) -> bool:
        """Whether players are of single channels."""
        return has_channels(self.players)

    @property
    def is_adaptive(self) -> bool:
        """Whether the number of samples follows from the tolerance."""
        return self.tolerance is not None

    def passes(self, question: Question) -> Passes:
        """Coalitions of every game times views; with a tolerance the most it can take."""
        game = self._game(question, players_of(self.players, question))
        n_views = question.pipeline.model.n_views
        first = game.passes()
        if not self.is_adaptive:
            return first
        n_more = (self.max_samples // self.samples - 1) * (self.samples + 2)
        n_sampled = sum(n > self.exact for n in game.n_players.values())
        n_windows = 1 if question.is_fixed else 2 * len(question.pipeline.plan)
        return Passes(n_forward=first.n_forward + n_sampled * n_more * n_views * n_windows)

    def _game(self, question: Question, players: Players) -> Game:
        planner: Planner = partial(
            _shapley_plan, exact=self.exact, samples=self.samples, interactions=self.interactions
        )
        return Game(question, players, fill_for(self.fill, question, players), planner)

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        players = players_of(self.players, question)
        game = self._game(question, players)
        played = game.play()
        findings: tuple[Finding, ...] = ()
        if self.tolerance is not None:
            findings = self._until(game, played, self.tolerance)
        n_sampled = len(played.open_games)
        settings = {"n_games": len(game.n_players), "n_sampled_games": n_sampled,
                    "most_players": max(game.n_players.values(), default=0)}  # fmt: skip
        return outcome_of(question, players, played, emit, self.paint, settings, findings)

    def _until(self, game: Game, played: Played, tolerance: float) -> tuple[Finding, ...]:
        n = self.samples
        while (worst := _worst(played)) > tolerance and n + self.samples <= self.max_samples:
            game.play_on(played)
            n += self.samples
        if worst <= tolerance:
            return ()
        evidence = (
            f"largest standard error of a player's value is {worst:.2e} of all values with {n} "
            f"samples a game, asked for {tolerance:.2e}; raise max_samples"
        )
        return (finding("VX106", "issue", evidence),)


def outcome_of(
    question: Question,
    players: Players,
    played: Played,
    emit: Emit,
    paint: Paint,
    settings: dict[str, int],
    findings: tuple[Finding, ...],
) -> Outcome:
    """Draw the values of the players, and tell them with their errors."""
    values = played.values
    players.paint(values, emit, is_density=paint == "density")
    scores = np.array([value for value, _ in question.linear])
    return Outcome(
        baseline_values=(scores - played.change).tolist() if paint == "density" else None,
        players=player_rows(question, players, values, played.errors, played.pairs),
        settings=settings,
        findings=findings,
    )


def _worst(played: Played) -> float:
    """Largest standard error of a value over the sum of the magnitudes of its target."""
    norm = np.abs(played.values).sum(axis=1, keepdims=True)
    return float(np.max(played.errors / np.where(norm > 0, norm, np.inf), initial=0.0))


def _shapley_plan(
    numbers: NDArray[np.intp], rng: np.random.Generator, *, exact: int, samples: int,
    interactions: bool,
) -> Plan:  # fmt: skip
    p = len(numbers)
    if p <= exact or 2**p - 4 < samples:

        def solve(values: NDArray[np.float64]) -> Solution:
            found = shapley_values(values)
            pairs = None
            if interactions:
                pairs = interaction_values(values) if p > 1 else np.zeros((1, 1, values.shape[1]))
            return Solution(found, np.zeros_like(found), pairs)

        return Plan(all_coalitions(p), solve, is_exact=True)
    if interactions:
        raise MethodError(
            f"interactions need every coalition, and a game has {p} players, more than "
            f"exact={exact}; raise exact (2^{p} passes) or take fewer players"
        )
    if samples < least_samples(p):
        raise MethodError(
            f"a game has {p} players: at least {least_samples(p)} samples are needed, got "
            f"samples={samples}; raise samples, or take fewer players"
        )
    sample = paired_coalitions(p, samples, rng)
    rows = np.concatenate([np.zeros((1, p), bool), sample.coalitions, np.ones((1, p), bool)])

    def estimate(values: NDArray[np.float64]) -> Solution:
        return Solution(*kernel_values(sample, values[1:-1], values[0], values[-1]))

    return Plan(rows, estimate, is_exact=False)
