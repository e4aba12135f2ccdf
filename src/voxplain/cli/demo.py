"""``voxplain demo``: a synthetic patient and the shipped model, from scan to report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Examples

voxplain demo

voxplain demo --seed 905 --method gradient --out other-patient"""

_N = 2  # noise copies of the default method: two cores need less than two minutes


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the patient and the results.")
    ] = Path("voxplain-demo"),
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Attribution method with its default settings. Default: smoothgrad with n={_N}, "
            "to be quick.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Which synthetic patient; the model was trained on 100 to 135."),
    ] = 901,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")
    ] = False,
) -> None:
    """Explain a synthetic chest CT with the small model that ships, and write its report.

    The patient has a nodule in a lung. CT and true labels are written to DIR/data, the results
    to DIR.
    """
    from voxplain.cli.job import Job, result_folder
    from voxplain.cli.progress import passes_bar
    from voxplain.cli.summary import print_summary
    from voxplain.demo import model_path, write_patients

    settings = (f"n={_N}",) if method is None else ()
    with result_folder(out) as folder:
        (ct,) = write_patients(folder / "data", [seed], lesion=True)
        job = Job.read(model_path(), [ct], method=method or "smoothgrad", settings=settings)
        with passes_bar(quiet) as progress:
            explanation = job.run(folder, progress=progress)
        files = [path.name for path in folder.iterdir()]
    if not quiet:
        print_summary(explanation, out, files)
        words = ["--model", str(model_path()), "--image", str(out / "data" / ct.name)]
        words += ["--method", method or "smoothgrad", *(f"--set={s}" for s in settings)]
        words += ["--out", str(out)]
        typer.echo(f"the same by hand: voxplain explain {shlex.join(words)}")
    typer.echo(f"open {out / 'report.html'}")
