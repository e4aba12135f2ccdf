"""What every attribution method offers."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.inference.pipeline import Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.records.finding import Finding

if TYPE_CHECKING:
    from voxplain.attribution.question import Question

ALL_CHANNELS = "all channels"
"""Name of the one channel of maps that do not tell image channels apart."""


@dataclass(frozen=True)
class Outcome:
    """What a method tells beside its maps.

    Parameters
    ----------
    baseline_values
        Value of each target at the baseline, for the completeness gap of contributions.
    share_errors
        Standard error of the region shares, (n_targets, n_regions, n_channels).
    players
        Columns target, player, partner, value, error, n_voxels (see `PlayerTable`), where the
        method plays a game.
    settings
        What was decided on the way, e.g. the number of points.
    findings
        Coded remarks.
    """

    baseline_values: list[float] | None = None
    share_errors: NDArray[np.float64] | None = None
    players: pd.DataFrame | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


class Method(Protocol):
    """An attribution method: a frozen dataclass of its settings.

    Contract: `attribute` emits, for all targets at once, every voxel of the padded volume
    that can differ from zero exactly once, in slabs (n_targets, n_channels, *box.shape), where
    a method that cannot tell image channels apart has one channel; draws come from
    ``question.noise`` only; `passes` is what `attribute` runs, told before (for adaptive
    methods: the most). `unit` holds ``{}`` where the target's unit stands.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    unit: ClassVar[str]

    @property
    def has_channels(self) -> bool:
        """Whether the maps tell image channels apart; else there is one map for all."""

    @property
    def is_adaptive(self) -> bool:
        """Whether it stops when a tolerance is met, perhaps with fewer passes."""

    def passes(self, question: Question) -> Passes:
        """Return the window passes that `attribute` will run."""

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""


def channels_of(method: Method, question: Question) -> tuple[str, ...]:
    """Names of the channels of a method's maps."""
    names = question.pipeline.image.channels
    return names if method.has_channels or len(names) == 1 else (ALL_CHANNELS,)


def settings_of(method: Method) -> dict[str, Any]:
    """Return a method's settings as plain values, for provenance."""
    return {f.name: _plain(getattr(method, f.name)) for f in fields(method)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return "+".join(str(v) for v in value)
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
