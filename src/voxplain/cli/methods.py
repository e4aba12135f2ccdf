"""``voxplain methods``: what can be asked of ``--method`` and ``--set``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

EPILOG = """Examples

All methods in short, then one of them with formula, settings, cost and source:

voxplain methods

voxplain methods shapley

voxplain explain --model unet --image ct.nii.gz --method shapley --set fill=mean"""


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A method or preset to describe.", show_default=False
        ),
    ] = None,
) -> None:
    """List methods and presets, or describe one: formula, settings with defaults, cost, source."""
    from rich.console import Console

    console = Console(highlight=False)
    if name is None:
        console.print(_table())
    else:
        console.print(_description(name), markup=False)


def _table() -> Table:
    from rich.table import Table
    from rich.text import Text

    from voxplain.attribution import METHODS, PRESETS

    table = Table("method", "kind", "what it is", title="Methods", title_justify="left")
    table.columns[0].no_wrap = True
    for key, kind in METHODS.items():
        table.add_row(key, kind.kind, Text(_first_line(kind)))
    table.add_section()
    for key, method in PRESETS.items():
        table.add_row(key, method.kind, Text(f"{method.name} with the settings of published work"))
    return table


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _description(name: str) -> str:
    from inspect import cleandoc

    from voxplain.attribution import METHODS, method_of
    from voxplain.attribution.method import settings_of
    from voxplain.attribution.methods import describe_settings

    method = method_of(name) if name not in METHODS else None
    kind = METHODS[name] if method is None else METHODS[method.name]
    settings = describe_settings(kind) if method is None else settings_of(method)
    given = "\n".join(f"  --set {key}={value}" for key, value in settings.items())
    title = name if method is None else f"{name}: {method.name} as published"
    unit = kind.unit.format("unit of the target")
    return (
        f"{title}\n\n{cleandoc(kind.__doc__ or '')}\n\n"
        f"Kind: {kind.kind}, in {unit}\n\nSettings:\n{given or '  none'}\n"
    )
