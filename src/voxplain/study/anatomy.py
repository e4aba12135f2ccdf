"""Anatomical groups of regions, told from the words of their names, and their colours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from voxplain.space.labelmap import BACKGROUND

OTHER = "other"

GROUP_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "cardiovascular": "#d55e00",
        "respiratory": "#6acaf2",
        "muscles": "#b082b7",
        "skeleton": "#e6b800",
        "abdominal organs": "#009e73",
        "nervous": "#065b93",
        "other organs": "#7069e9",
        "pathology": "#5a1020",
        "background": "#a5adb5",
        OTHER: "#5f6a75",
    }
)
"""Colour of each group. Any two are at least 11 apart (CIEDE2000) in normal sight, and for people
without red, green or blue cones; begun from Okabe and Ito, Color Universal Design, 2008."""

_SPARE = ("#332288", "#44aa99", "#999933", "#882255")

# the first line with a word (or words in a row) of the name decides
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (OTHER, ("implant", "pacemaker", "catheter", "marker")),
    ("pathology", (
        "pathology", "anomaly", "tumor", "tumour", "lesion", "nodule", "cyst", "cancer",
        "carcinoma", "adenoma", "metastasis", "metastases", "glioma", "edema", "oedema", "necrosis",
        "necrotic", "enhancing", "effusion", "infiltrate", "infiltration", "consolidation",
        "ground glass", "opacity", "opacities", "covid", "pneumonia", "pneumothorax",
        "emphysema", "fibrosis", "atelectasis", "hemorrhage", "haemorrhage", "bleed", "bleeding",
        "hematoma", "haematoma", "aneurysm", "thrombus", "embolism", "embolus", "plaque",
        "calcification", "stenosis", "fracture", "infarct", "stroke", "polyp", "abscess",
        "hyperintensity", "hyperintensities", "wmh",
    )),
    ("nervous", (
        "brain", "brainstem", "spinal cord", "spinal canal", "cerebellum", "cerebrum", "thalamus",
        "hippocampus", "amygdala", "putamen", "pallidum", "caudate", "lentiform", "insular",
        "internal capsule", "central sulcus", "frontal lobe", "parietal lobe", "occipital lobe",
        "temporal lobe", "septum pellucidum", "subarachnoid", "grey matter", "gray matter",
        "white matter", "csf", "third ventricle", "fourth ventricle", "lateral ventricle",
        "ventricle frontal", "ventricle occipital", "ventricle temporal", "ventricle trigone",
        "ventricle body", "nerve", "optic", "chiasm", "cochlea", "cortex cerebri",
    )),
    ("cardiovascular", (
        "heart", "cardiac", "myocardium", "myocardial", "pericardium", "atrium", "atrial",
        "left ventricle", "right ventricle", "ventricle left", "ventricle right", "ventricular",
        "lv", "rv", "myo", "aorta", "aortic", "artery", "arteries", "arterial", "vein", "vena",
        "venous", "cava", "vessel", "coronary", "carotid", "jugular", "subclavian",
        "brachiocephalic", "portal", "celiac trunk", "annulus", "sinotubular", "lumen",
        "pul annulus", "pul sinotubular", "pul bifurcation", "pul left", "pul right",
    )),
    ("respiratory", (
        "lung", "airway", "trachea", "bronchus", "bronchi", "bronchia", "pleura", "pleural",
        "larynx", "nasopharynx", "hypopharynx", "nasal", "sinus", "pulmonary",
    )),
    ("muscles", (
        "muscle", "muscular", "autochthon", "iliopsoas", "psoas", "gluteus", "erector",
        "transversospinalis", "quadratus", "pectoralis", "rectus", "serratus", "latissimus",
        "trapezius", "oblique", "quadriceps", "sartorius", "deltoid", "supraspinatus",
        "infraspinatus", "subscapularis", "coracobrachial", "teres", "triceps", "biceps",
        "hamstring", "adductor", "masseter", "temporalis", "pterygoid", "tongue", "digastric",
        "sternocleidomastoid", "constrictor", "platysma", "levator", "scalene", "thyroid hyoid",
        "sterno thyroid", "thyrohyoid", "prevertebral", "thigh", "diaphragm",
    )),
    ("skeleton", (
        "bone", "rib", "vertebra", "vertebrae", "intervertebral", "sacrum", "coccyx", "spine",
        "sternum", "cartilage", "costal", "clavicula", "clavicle", "scapula", "humerus", "radius",
        "ulna", "carpal", "metacarpal", "phalanges", "hip", "pelvis", "femur", "patella", "tibia",
        "fibula", "tarsal", "metatarsal", "skull", "mandible", "jawbone", "teeth", "tooth", "hyoid",
        "cricoid", "zygomatic", "styloid", "incisor", "canine", "premolar", "molar", "skeleton",
    )),
    ("abdominal organs", (
        "liver", "hepatic", "spleen", "kidney", "renal", "pancreas", "gallbladder", "stomach",
        "duodenum", "bowel", "intestine", "colon", "rectum", "esophagus", "oesophagus", "bladder",
        "prostate", "uterus", "ovary", "ovaries", "testis", "adrenal", "pharynx", "oropharynx",
        "palate", "abdominal",
    )),
    ("other organs", (
        "thyroid", "thymus", "breast", "parotid", "submandibular", "gland", "eye", "eyeball",
        "lens", "auditory", "skin", "fat", "lymph", "face", "mediastinum",
    )),
)  # fmt: skip

_GROUP_OF = [
    (group, tuple(tuple(phrase.split()) for phrase in phrases)) for group, phrases in _WORDS
]
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def group_of(region: str, groups: Mapping[str, str] | None = None) -> str:
    """Return the anatomical group of a region.

    Parameters
    ----------
    region
        Its name in English or anatomical Latin, as TotalSegmentator, MONAI and public nnU-Net
        models write it: words apart by ``_``, a blank, or a capital letter.
    groups
        The user's own group of some regions, which goes first; may be a new group.

    Returns
    -------
    str
        One of `GROUP_COLOURS` or of `groups`; ``other``: no word of the name is known.

    Notes
    -----
    It serves order and colour of figures only. A finding goes before the organ it is in
    (``kidney_cyst_left`` is pathology), a vessel before its organ (``liver_vessels``).
    """
    if groups is not None and region in groups:
        return groups[region]
    words = [word.lower() for word in _WORD.findall(region)]
    if words == [BACKGROUND]:
        return "background"
    for group, phrases in _GROUP_OF:
        if any(_has(words, phrase) for phrase in phrases):
            return group
    return OTHER


def by_group(
    regions: Iterable[str], groups: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the regions of each group that occurs, groups in the order of `GROUP_COLOURS`.

    Parameters
    ----------
    regions, groups
        As in `group_of`; regions of a group keep their order.
    """
    found: dict[str, list[str]] = {}
    for region in regions:
        found.setdefault(group_of(region, groups), []).append(region)
    known = [group for group in GROUP_COLOURS if group in found]
    new = sorted(set(found) - set(known))
    return {group: tuple(found[group]) for group in known + new}


def colours_of(groups: Iterable[str]) -> dict[str, str]:
    """Return ``#rrggbb`` of each group; a group of the user's own takes a spare colour."""
    found = set(groups)
    new = sorted(found - set(GROUP_COLOURS))
    spare = {group: _SPARE[i % len(_SPARE)] for i, group in enumerate(new)}
    return {g: c for g, c in GROUP_COLOURS.items() if g in found} | spare


def _has(words: list[str], phrase: tuple[str, ...]) -> bool:
    """Tell whether these words stand in a row, the last one perhaps with an s."""
    n = len(phrase)
    for start in range(len(words) - n + 1):
        part = words[start : start + n]
        if part[:-1] == list(phrase[:-1]) and part[-1] in (phrase[-1], f"{phrase[-1]}s"):
            return True
    return False
