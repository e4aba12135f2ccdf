"""A result as DICOM objects that reference the series it was computed on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import GridError, ImageError, OutputError
from voxplain.export.source import Source, read_source
from voxplain.records.archive import slugs
from voxplain.records.attribution import Attribution
from voxplain.records.explanation import Explanation
from voxplain.records.provenance import package_versions
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap, nearest
from voxplain.space.resample import resample, resample_labels
from voxplain.space.volume import Volume
from voxplain.space.write import atomic_folder

Part = Literal["seg", "map", "key"]
PARTS: tuple[Part, ...] = get_args(Part)
_SERIES_NUMBER = {"seg": 9001, "map": 9002, "key": 9003}
_SCHEME = "99VOXPLAIN"


def export_dicom(
    explanation: Explanation, source: Path, out: Path, *, only: Sequence[Part] = PARTS
) -> tuple[list[Path], tuple[str, ...]]:
    """Write prediction, maps and key images of a result as DICOM.

    Parameters
    ----------
    explanation
        With its image, if key images are wanted.
    source
        Folder of the DICOM series that was explained (``DIR#2``: the second of several).
    out
        Folder for the files; made whole or not at all.
    only
        ``seg``: the prediction as a Segmentation, one segment a class that is present;
        ``map``: each kept map as a Parametric Map, one a channel; ``key``: each target's planes
        through its peak as a Secondary Capture picture.

    Returns
    -------
    files
        What was written.
    generated
        UIDs that the source lacks and that references had to make up.

    Raises
    ------
    MissingExtraError
        If highdicom is not installed.
    GridError
        If the result does not lie on the slices of the series.
    ImageError
        If the series is not one volume, or the image is needed and not there.
    OutputError
        If there is nothing to write.

    Notes
    -----
    Patient and study are copied from the source and nothing is added to them: what was
    anonymised stays so. Objects are marked as research and as not for diagnosis by their
    descriptions.
    """
    found = read_source(source)
    n_files = 0
    with atomic_folder(out) as folder:
        for part in only:
            for name, written in _WRITERS[part](explanation, found):
                _finish(written, found)
                written.save_as(folder / name)
                n_files += 1
        if not n_files:
            raise OutputError(
                f"nothing to write: the result holds no {' and no '.join(map(_word, only))}"
            )
        names = sorted(path.name for path in folder.iterdir())
    return [out / name for name in names], found.generated


def parts_of(words: Sequence[str]) -> tuple[Part, ...]:
    """Check words that name what to write.

    Raises
    ------
    OutputError
        If one is not known.
    """
    for word in words:
        if word not in PARTS:
            raise OutputError(f"nothing to write is called {word!r}{nearest(word, PARTS)}")
    return tuple(part for part in PARTS if part in words)


def _word(part: str) -> str:
    return {"seg": "prediction", "map": "map (explain with --save-maps)", "key": "target"}[part]


# -- the three kinds ------------------------------------------------------------------------
def _segmentation(explanation: Explanation, source: Source) -> Iterator[tuple[str, Any]]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    if explanation.prediction is None:
        return
    labels = _labels_on(explanation.prediction, source.grid)
    present = [label for label in sorted(labels.names) if label and labels.mask(label).any()]
    if not present:
        return
    algorithm = hd.AlgorithmIdentificationSequence(
        name=_text(explanation.provenance.model, 64),
        family=codes.DCM.ArtificialIntelligence,
        version=explanation.provenance.model_sha256[:16],
    )
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=_text(labels.names[label], 64),
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=_code(labels.names[label]),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for number, label in enumerate(present, 1)
    ]
    masks = np.stack([labels.mask(label) for label in present], axis=-1).astype(np.uint8)
    yield (
        "segmentation.dcm",
        hd.seg.Segmentation(
            source_images=source.headers,
            pixel_array=masks.transpose(2, 1, 0, 3),
            segmentation_type="BINARY",
            segment_descriptions=segments,
            content_label="PREDICTION",
            content_description="voxplain: what the model predicts; research only",
            series_description="voxplain prediction (research only)",
            **_identity("seg", 1),
        ),
    )


def _maps(explanation: Explanation, source: Source) -> Iterator[tuple[str, Any]]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    stems = slugs([target.name for target in explanation.targets])
    number = 0
    for name, kept in explanation.attributions.items():
        values = _map_on(kept, source.grid)
        for channel, data in zip(kept.channels, values, strict=True):
            number += 1
            limit = float(np.abs(data).max()) or 1.0
            mapping = hd.pm.RealWorldValueMapping(
                lut_label=_text(kept.kind.upper(), 16),
                lut_explanation=_text(f"{kept.kind} in {kept.unit}", 64),
                unit=codes.UCUM.NoUnits,
                value_range=(-limit, limit),
                slope=1.0,
                intercept=0.0,
            )
            suffix = f"_{slugs([channel])[channel]}" if len(kept.channels) > 1 else ""
            title = f"{explanation.method} of {name}" + (f", {channel}" if suffix else "")
            yield (
                f"map_{stems[name]}{suffix}.dcm",
                hd.pm.ParametricMap(
                    source_images=source.headers,
                    pixel_array=np.ascontiguousarray(data.transpose(2, 1, 0), np.float32),
                    contains_recognizable_visual_features=False,
                    real_world_value_mappings=[mapping],
                    voi_lut_transformations=[
                        hd.VOILUTTransformation(window_center=0.0, window_width=2 * limit)
                    ],
                    content_label=f"MAP{number}",
                    content_description=_text(f"voxplain: {title}; research only", 64),
                    series_description=_text(f"voxplain {title} (research only)", 64),
                    **_identity("map", number),
                ),
            )


def _key_images(explanation: Explanation, source: Source) -> Iterator[tuple[str, Any]]:
    import highdicom as hd
    from PIL import Image

    from voxplain.report.plane_figures import planes

    if not explanation.has_image:
        raise ImageError(
            "key images need the image that was explained, and the series is not it; export the "
            "rest with --only seg --only map"
        )
    stems = slugs([target.name for target in explanation.targets])
    series = hd.UID()
    for number, target in enumerate(explanation.targets, 1):
        title = f"{target.name}: {explanation.method} of {explanation.provenance.model}"
        drawing = planes(explanation, target.name)
        drawing.figure.text(0.01, 0.99, f"{title}; research only, not for diagnosis", va="top")
        picture = np.array(Image.open(BytesIO(drawing.png())).convert("RGB"))
        written = hd.sc.SCImage.from_ref_dataset(
            source.headers[0],
            pixel_array=picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            manufacturer="voxplain",
            series_instance_uid=series,
            series_number=_SERIES_NUMBER["key"],
            sop_instance_uid=hd.UID(),
            instance_number=number,
        )
        written.SeriesDescription = "voxplain key images (research only)"
        written.ImageComments = _text(
            f"{explanation.method} of {target.name}; research only, not for diagnosis", 1024
        )
        written.SourceImageSequence = [_reference(header) for header in source.headers]
        yield f"key_{number:02d}_{stems[target.name]}.dcm", written


_WRITERS = {"seg": _segmentation, "map": _maps, "key": _key_images}


# -- parts of the objects -------------------------------------------------------------------
def _identity(part: str, number: int) -> dict[str, Any]:
    import highdicom as hd

    return {
        "series_instance_uid": hd.UID(),
        "series_number": _SERIES_NUMBER[part],
        "sop_instance_uid": hd.UID(),
        "instance_number": number,
        "manufacturer": "voxplain",
        "manufacturer_model_name": "voxplain",
        "software_versions": package_versions()["voxplain"],
        "device_serial_number": "0",
    }


def _finish(written: Any, source: Source) -> None:
    """State that nothing identifies a patient beyond what the source says."""
    written.BurnedInAnnotation = "NO"
    for name in ("PatientIdentityRemoved", "DeidentificationMethod"):
        if source.headers[0].get(name):
            setattr(written, name, source.headers[0].get(name))


def _reference(header: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item


def _code(name: str) -> Any:
    """Code of a class in a scheme of our own: class names are the model's."""
    import highdicom as hd

    value = re.sub(r"[^A-Z0-9_]", "_", name.upper())[:16] or "CLASS"
    return hd.sr.CodedConcept(value, _SCHEME, _text(name, 64))


def _text(text: str, n: int) -> str:
    """Text that DICOM can hold: one line, no backslash, at most n characters."""
    return " ".join(text.replace("\\", "/").split())[:n]


# -- places ---------------------------------------------------------------------------------
def _labels_on(labels: LabelMap, grid: Grid) -> LabelMap:
    if labels.grid.matches(grid):
        return labels
    _check_place(labels.grid, grid)
    return resample_labels(labels, grid)


def _map_on(kept: Attribution, grid: Grid) -> NDArray[np.floating[Any]]:
    if kept.grid.matches(grid):
        return kept.values
    _check_place(kept.grid, grid)
    return resample(Volume(kept.values, kept.grid, kept.channels), like=grid).data


def _check_place(own: Grid, grid: Grid) -> None:
    """Refuse a result whose voxels are not those of the series, in whatever order of axes."""
    if own.rank != 3 or not own.reorient(grid.orientation).matches(grid):
        raise GridError(
            f"the result lies on {own.describe()}, the series on {grid.describe()}; explain the "
            "series itself: voxplain explain --image DIR"
        )
