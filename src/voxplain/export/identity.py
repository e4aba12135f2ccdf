"""Whose object it is, who made it, and what it is for: the same in every object written."""

from __future__ import annotations

from typing import Any

from voxplain.export.source import Source
from voxplain.records.explanation import Explanation
from voxplain.records.provenance import package_versions

PURPOSE = "Research, not for diagnosis"


def maker(explanation: Explanation) -> dict[str, Any]:
    """Arguments of highdicom's objects: the program, and the model in the place of a device."""
    return {
        "manufacturer": "voxplain",
        "manufacturer_model_name": "voxplain",
        "software_versions": package_versions().get("voxplain", "unknown"),
        "device_serial_number": explanation.provenance.model_sha256[:16] or "unknown",
    }


def finish(written: Any, source: Source, title: str, words: str) -> Any:
    """Copy patient and study from the source, and say what the object is for.

    Parameters
    ----------
    written
        Object of highdicom, with patient and study blank.
    source
        What it is derived from.
    title
        What it is, for the list of series.
    words
        How it was made, in full.

    Notes
    -----
    Highdicom gets to see no patient: it refuses values that archives hold, and prints names.
    """
    written.SpecificCharacterSet = "ISO_IR 192"
    written.copy_patient_and_study_information(source.patient)
    is_burned = str(source.patient.get("BurnedInAnnotation")) == "YES"
    written.BurnedInAnnotation = "YES" if is_burned else "NO"
    written.SeriesDescription = text(f"{PURPOSE}: {title}", 64)
    written.ImageComments = text(f"{PURPOSE}. {words}", 1024)
    written.ContentQualification = "RESEARCH"
    return written


def made_by(explanation: Explanation) -> str:
    """Program, method and model in words."""
    known = explanation.provenance
    version = known.versions.get("voxplain", "unknown")
    return (
        f"voxplain {version}, {explanation.method}, model {known.model} ({known.model_sha256[:16]})"
    )


def text(words: str, n: int) -> str:
    """Text that DICOM can hold: one line, no backslash, at most n characters."""
    return " ".join(words.replace("\\", "/").split())[:n]
