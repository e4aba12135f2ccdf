"""``voxplain methods``: what can be asked of ``--method`` and ``--set``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

EPILOG = """Example

voxplain explain --model unet --image ct.nii.gz --method smoothgrad --set n=8 --set noise=0.1"""


def methods() -> None:
    """List methods and presets with their kind, settings and defaults."""
    from rich.console import Console

    Console(highlight=False).print(_table())


def _table() -> Table:
    from rich.table import Table
    from rich.text import Text

    from voxplain.attribution import METHODS, PRESETS
    from voxplain.attribution.method import settings_of
    from voxplain.attribution.methods import describe_settings

    rows = [
        (name, kind.kind, (kind.__doc__ or "").strip().partition("\n")[0], describe_settings(kind))
        for name, kind in METHODS.items()
    ] + [
        (name, method.kind, f"Preset: {method.name} as published.", settings_of(method))
        for name, method in PRESETS.items()
    ]
    table = Table("method and kind", "what it is, settings with defaults", show_lines=True)
    table.columns[0].no_wrap = True
    for name, kind_of_map, words, settings in rows:
        given = "  ".join(f"{key}={value}" for key, value in settings.items())
        table.add_row(Text(f"{name}\n{kind_of_map}"), Text(f"{words}\n{given or 'no settings'}"))
    return table
