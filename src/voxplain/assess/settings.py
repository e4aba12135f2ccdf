"""What is measured of an explanation, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from voxplain.assess.baseline_maps import BASELINES, GIVEN
from voxplain.assess.removal import KINDS
from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.fills import PartFill
from voxplain.errors import MethodError
from voxplain.space.labelmap import nearest

Group = Literal[
    "faithfulness", "curves", "road", "stability", "complexity", "utility", "randomisation",
    "agreement", "fills", "efficiency",
]  # fmt: skip
GROUPS: tuple[Group, ...] = get_args(Group)
Preset = Literal["default", "agg2exp", "arun2021"]
Order = Literal["top_down", "bottom_up", "independent"]


@dataclass(frozen=True)
class AssessSettings:
    """Everything that decides the table but models, data, methods and targets.

    Parameters
    ----------
    groups
        What is measured; see `GROUPS`.
    preset
        ``default``; ``agg2exp`` and ``arun2021`` add the published definitions beside ours.
    removals
        Random parts that are removed for faithfulness: ``voxels``, ``regions``,
        ``supervoxels:N``.
    n_runs
        Random removals of each kind.
    fill
        What stands where something is removed.
    n_steps
        Steps of deletion and insertion curves beside the clean image.
    radius
        Half width of the uniform noise of sensitivity, in the model's intensities.
    n_copies
        Noisy copies.
    shift
        Intensity shift, in the model's intensities.
    orders
        In which order layers are randomised.
    n_stages
        Steps of a cascade.
    n_randomisations
        Seeds of each cascade.
    n_smooth
        Noisy copies over which each map of a cascade is averaged (sMPRT); 1: the map alone.
    n_pairs
        Random pairs of cases that similarity is compared with.
    baselines
        Trivial maps; see `voxplain.assess.baseline_maps`.
    n_pictures
        Cases of which planes are kept for the report, the first ones.

    Raises
    ------
    MethodError
        If a word is unknown or a number out of range.
    """

    groups: tuple[Group, ...] = GROUPS
    preset: Preset = "default"
    removals: tuple[str, ...] = ("voxels",)
    n_runs: int = 100
    fill: Baseline = field(default_factory=Constant)
    n_steps: int = 8
    radius: float = 0.1
    n_copies: int = 3
    shift: float = 0.05
    orders: tuple[Order, ...] = ("top_down",)
    n_stages: int = 8
    n_randomisations: int = 1
    n_smooth: int = 1
    n_pairs: int = 50
    baselines: tuple[str, ...] = ("random", "edges", "intensity", "center", "prediction")
    n_pictures: int = 4

    def __post_init__(self) -> None:
        self._check_words()
        least = {
            "n_runs": 3, "n_steps": 1, "n_copies": 1, "n_stages": 1, "n_randomisations": 1,
            "n_smooth": 1, "n_pairs": 1, "n_pictures": 0,
        }  # fmt: skip
        for name, number in least.items():
            if getattr(self, name) < number:
                raise MethodError(f"{name} is at least {number}, got {getattr(self, name)}")
        if not self.radius > 0:
            raise MethodError(f"radius of the noise is positive, got {self.radius}")
        if self.shift == 0:
            raise MethodError("shift of the intensities is another number than 0")
        if isinstance(self.fill, PartFill):
            raise MethodError(
                "inpainting fills parts from around them, and single voxels are removed here; take "
                "a number, mean, blur:MM or noise"
            )

    def _check_words(self) -> None:
        known_maps = (*BASELINES, f"{GIVEN}FILE")
        words: tuple[tuple[str, str, str, Sequence[str]], ...] = (
            ("--metrics", "group", "groups", GROUPS),
            ("--order", "order", "orders", get_args(Order)),
            ("--baseline", "trivial map", "baselines", known_maps),
        )
        for option, what, name, known in words:
            chosen = getattr(self, name)
            for word in chosen:
                if word not in known and not (name == "baselines" and word.startswith(GIVEN)):
                    raise MethodError(f"{option}: {_unknown(word, what, known)}")
            if len(set(chosen)) < len(chosen):
                raise MethodError(f"{option} holds a word twice: {', '.join(chosen)}")
        if self.preset not in get_args(Preset):
            raise MethodError(f"preset is one of {', '.join(get_args(Preset))}, got {self.preset}")
        kinds = [kind.partition(":")[0] for kind in self.removals]
        for kind, word in zip(self.removals, kinds, strict=True):
            if word not in KINDS or (word == "supervoxels") != (":" in kind):
                raise MethodError(f"removals are voxels, regions or supervoxels:N, got {kind!r}")
        if len(set(kinds)) < len(kinds):
            raise MethodError(f"removals are of different kinds, got {', '.join(self.removals)}")

    def has(self, group: Group) -> bool:
        """Whether a group is measured."""
        return group in self.groups

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the plan and for provenance."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**values, "fill": str(self.fill)}


def _unknown(word: str, what: str, known: Sequence[str]) -> str:
    """Tell what is known in place of a word; of the name of a metric its group."""
    from voxplain.assess.metrics import GROUPS_OF  # which needs the groups above

    if what == "group" and word in GROUPS_OF:
        groups = GROUPS_OF[word]
        if not groups:
            return f"{word} is a metric, not a group, and is always measured; leave it out"
        told = " and ".join(f"the group {group}" for group in groups)
        return f"{word} is a metric of {told}; write --metrics {groups[0]}"
    hint = nearest(word, list(known))
    return f"no {what} {word!r}{'' if hint.startswith(';') else '.'}{hint}"
