"""What is measured, and of which methods, unless the user says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from voxplain.assess.settings import GROUPS, Group, Preset


class Choice(NamedTuple):
    """Methods and groups of metrics of a preset."""

    methods: tuple[str, ...]
    groups: tuple[Group, ...]


PRESETS: Mapping[Preset, Choice] = MappingProxyType(
    {
        "default": Choice(
            ("gradient", "smoothgrad", "integrated_gradients"),
            tuple(group for group in GROUPS if group != "road"),
        ),
        "agg2exp": Choice(
            (
                "agg2exp-gradient", "agg2exp-integrated_gradients", "agg2exp-smoothgrad",
                "agg2exp-kernelshap_semantic", "agg2exp-kernelshap_cubes",
            ),
            ("faithfulness", "stability", "complexity", "efficiency"),
        ),
        "arun2021": Choice(
            (
                "arun-gradient", "arun-smoothgrad", "arun-integrated_gradients", "arun-smooth_ig",
                "arun-grad_cam", "arun-xrai", "arun-guided_backprop", "arun-guided_grad_cam",
            ),
            ("utility", "randomisation", "agreement"),
        ),
    }
)  # fmt: skip
"""``agg2exp``: table of Chrabąszcz et al. 2025; ``arun2021``: the four criteria of Arun et al."""
