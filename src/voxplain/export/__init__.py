"""Results in the formats of other programs: DICOM for archives and viewers."""

from voxplain.export.dicom import PARTS, Part, export_dicom

__all__ = ["PARTS", "Part", "export_dicom"]
