"""``voxplain doctor``: what this installation and this machine can do."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

EPILOG = """Examples

voxplain doctor

voxplain doctor --json > machine.json"""

EXTRAS = {
    "nnunetv2": "nnunet",
    "TotalSegmentator": "totalseg",
    "pydicom": "dicom",
    "highdicom": "dicom",
    "pylibjpeg": "dicom",
}
"""Optional packages, each with the extra that brings it."""


def doctor(
    is_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of lines.")
    ] = False,
) -> None:
    """Tell versions, devices, memory, the report's viewer and optional packages."""
    found = _examine()
    if is_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for part, values in found.items():
        typer.echo(part)
        for name, value in values.items():
            typer.echo(f"  {name:<17} {value}")


def _examine() -> dict[str, dict[str, Any]]:
    import psutil

    from voxplain.records.provenance import package_versions
    from voxplain.report.html import viewer_script
    from voxplain.report.wording import storage

    viewer = "present"
    if viewer_script() is None:
        viewer = "absent: reports hold still pictures only; run make setup, or install the wheel"
    memory = psutil.virtual_memory()
    return {
        "versions": package_versions(),
        "machine": {
            "memory": f"{storage(memory.available)} free of {storage(memory.total)}",
            "cores": psutil.cpu_count(),
            **_torch(),
        },
        "report": {"viewer": viewer},
        "optional": {name: _optional(name) for name in EXTRAS},
    }


def _torch() -> dict[str, Any]:
    """Threads and devices as torch sees them, or why it cannot be imported."""
    from voxplain.report.wording import storage

    try:
        import torch
    except (ImportError, OSError) as error:
        return {"torch": f"cannot be imported: {error}"}
    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            devices[f"cuda:{index}"] = f"{name}, {storage(free)} free of {storage(total)}"
    else:
        devices["cuda"] = "none"
    return devices


def _optional(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return f"not installed; pip install 'voxplain[{EXTRAS[name]}]'"
