"""The program ``voxplain`` and its verbs; imports nothing heavy, so that ``--help`` is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from voxplain import __version__
from voxplain.cli import (
    assess,
    context,
    counterfactual,
    data,
    demo,
    doctor,
    explain,
    export,
    instances,
    instances_study,
    layers,
    methods,
    report,
    response,
    study,
    train,
)
from voxplain.cli.faults import PlainFaults

app = typer.Typer(
    name="voxplain",
    cls=PlainFaults,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Start here:\n\n"
        "voxplain demo\n\n"
        "voxplain explain --model DIR --image ct.nii.gz --target class:liver\n\n"
        "A mistake in the input ends with one line and exit code 2; set VOXPLAIN_TRACEBACK=1 "
        "to see where it was found."
    ),
)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"voxplain {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Explain medical image models, exactly, through sliding windows."""


app.command(epilog=explain.EPILOG, no_args_is_help=True)(explain.explain)
app.command(epilog=instances.EPILOG, no_args_is_help=True)(instances.instances)
app.command(name="instances-study", epilog=instances_study.EPILOG, no_args_is_help=True)(
    instances_study.instances_study
)
app.command(epilog=context.EPILOG, no_args_is_help=True)(context.context)
app.command(epilog=response.EPILOG, no_args_is_help=True)(response.response)
app.command(epilog=assess.EPILOG, no_args_is_help=True)(assess.assess)
app.add_typer(study.app, name="study")
app.add_typer(counterfactual.app, name="counterfactual")
app.add_typer(data.app, name="data")
app.command(epilog=demo.EPILOG)(demo.demo)
app.command(epilog=report.EPILOG, no_args_is_help=True)(report.report)
app.command(epilog=export.EPILOG, no_args_is_help=True)(export.export)
app.command(epilog=train.EPILOG, no_args_is_help=True)(train.train)
app.command(epilog=methods.EPILOG)(methods.methods)
app.command(epilog=layers.EPILOG, no_args_is_help=True)(layers.layers)
app.command(epilog=doctor.EPILOG)(doctor.doctor)


def main() -> None:
    """Run the program."""
    app()
