"""What is measured of an explanation, and how."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from voxplain.assess.baseline_maps import BASELINES, GIVEN
from voxplain.assess.removal import KINDS
from voxplain.attribution.baselines import Baseline, Constant
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
        for name, known in (("groups", GROUPS), ("orders", get_args(Order))):
            for word in getattr(self, name):
                if word not in known:
                    raise MethodError(f"{name}: no {word!r}{nearest(word, list(known))}")
        known_maps = (*BASELINES, f"{GIVEN}FILE")
        for name in self.baselines:
            if name not in BASELINES and not name.startswith(GIVEN):
                raise MethodError(f"no baseline {name!r}{nearest(name, known_maps)}")
        for kind in self.removals:
            word = kind.partition(":")[0]
            if word not in KINDS or (word == "supervoxels") != (":" in kind):
                raise MethodError(f"removals are voxels, regions or supervoxels:N, got {kind!r}")
        if self.preset not in get_args(Preset):
            raise MethodError(f"preset is one of {', '.join(get_args(Preset))}, got {self.preset}")
        least = {
            "n_runs": 3, "n_steps": 1, "n_copies": 1, "n_stages": 1, "n_randomisations": 1,
            "n_smooth": 1,
            "n_pairs": 1, "n_pictures": 0,
        }  # fmt: skip
        for name, number in least.items():
            if getattr(self, name) < number:
                raise MethodError(f"{name} is at least {number}, got {getattr(self, name)}")
        if not self.radius > 0:
            raise MethodError(f"radius of the noise is positive, got {self.radius}")

    def has(self, group: Group) -> bool:
        """Whether a group is measured."""
        return group in self.groups

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the plan and for provenance."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**values, "fill": str(self.fill)}
