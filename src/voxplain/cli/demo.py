"""``voxplain demo``: a synthetic patient and the shipped model, from scan to report."""

from __future__ import annotations

import json
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

    The patient has a nodule in a lung. The patient's CT and true labels are written to DIR/data, the results to DIR.
    """
    from voxplain.cli.job import Job
    from voxplain.cli.progress import passes_bar
    from voxplain.cli.summary import print_summary
    from voxplain.demo import model_path
    from voxplain.space import atomic_folder

    settings = (f"n={_N}",) if method is None else ()
    with atomic_folder(out) as folder:
        ct = _write_patient(folder / "data", seed)
        job = Job.read(model_path(), [ct], method=method or "smoothgrad", settings=settings)
        with passes_bar(quiet) as progress:
            explanation = job.run(folder, progress=progress)
        files = [path.name for path in folder.iterdir()]
    if not quiet:
        print_summary(explanation, out, files)
        words = " ".join(
            ["voxplain explain --model", str(model_path()), "--image", str(out / "data" / ct.name)]
        )
        typer.echo(f"the same by hand: {words}")
    typer.echo(f"open {out / 'report.html'}")


def _write_patient(folder: Path, seed: int) -> Path:
    """Write the demo's patient: CT, true labels and their names; return the CT's file."""
    import numpy as np

    from voxplain.demo import demo_case
    from voxplain.space import atomic_file, write_nifti

    image, labels = demo_case(seed)
    ct = folder / f"{image.name}.nii.gz"
    write_nifti(ct, image.data, image.grid, np.int16)
    write_nifti(folder / f"{image.name}_labels.nii.gz", labels.layers, labels.grid, np.uint8)
    with atomic_file(folder / "labels.json") as path:
        path.write_text(json.dumps({str(k): labels.names[k] for k in labels.names if k}, indent=2))
    return ct
