"""Groups of regions by their names, and colours that stay apart."""

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from voxplain.study.anatomy import GROUP_COLOURS, by_group, colours_of, group_of

NAMES = {
    "cardiovascular": (
        "aorta", "heart", "pulmonary_vein", "heart_ventricle_left", "Left Ventricle",
        "liver_vessels",
        "inferior_vena_cava", "iliac_artery_right", "iliac_vena_left",
        "portal_vein_and_splenic_vein",
        "brachiocephalic_trunk", "superiorVenaCava", "RV", "aorta_false_lumen", "venous_sinuses",
    ),
    "respiratory": ("lung_upper_lobe_left", "trachea", "lung_airways", "nasal_cavity", "lungs"),
    "muscles": (
        "autochthon_left", "gluteus_maximus_right", "iliopsoas_left", "skeletal_muscle",
        "levator_scapulae_left", "temporalis_left", "quadriceps_femoris_left",
        "external_oblique_left",
    ),
    "skeleton": (
        "ribs", "rib_left_1", "vertebrae_T12", "vertebrae", "sternum", "costal_cartilages",
        "hip_left",
        "thyroid_cartilage", "scapula_left", "intervertebral_discs", "skull", "radius",
    ),
    "abdominal organs": (
        "liver", "kidney_right", "small_bowel", "urinary_bladder", "esophagus", "spleen",
        "adrenal_gland_left", "gallbladder", "liver_segment_4",
    ),
    "nervous": (
        "brain", "spinal_cord", "optic_nerve_left", "frontal_lobe", "third_ventricle",
        "ventricle_frontal_horn_left", "thalamus",
    ),
    "other organs": ("thyroid_gland", "breast", "eyeball_left", "subcutaneous_fat"),
    "pathology": (
        "pleural_effusion", "ground_glass", "lung_nodules", "kidney_cyst_left", "Enhancing tumor",
        "liver_tumor", "intracerebral_hemorrhage", "GroundGlass",
    ),
    "background": ("background",),
    "other": ("", "class 3", "marker", "hip_implant", "body_trunc", "7"),
}  # fmt: skip

# Machado, Oliveira and Fernandes (2009), severity 1, for linear red, green and blue
SEEN = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, names in NAMES.items() for n in names])
def test_group_by_name(group, name):
    assert group_of(name) == group


def test_classes_of_the_paper_and_of_totalsegmentator_are_known():
    tables = pytest.importorskip("totalsegmentator.map_to_binary")
    for task in (
        "total",
        "total_mr",
        "heartchambers_highres",
        "appendicular_bones",
        "abdominal_muscles",
    ):
        unknown = [n for n in tables.class_map[task].values() if group_of(n) == "other"]
        assert unknown == [], task


def test_user_goes_first():
    assert group_of("heart", {"heart": "nervous"}) == "nervous"
    assert group_of("aorta", {"heart": "nervous"}) == "cardiovascular"
    found = by_group(["b", "liver", "a", "heart", "aorta"], {"a": "mine", "b": "mine"})
    assert found == {
        "cardiovascular": ("heart", "aorta"), "abdominal organs": ("liver",), "mine": ("b", "a"),
    }  # fmt: skip
    assert list(found) == ["cardiovascular", "abdominal organs", "mine"]
    colours = colours_of(["mine", "heart's own", "skeleton"])
    assert colours["skeleton"] == GROUP_COLOURS["skeleton"]
    assert len(set(colours.values())) == 3


@pytest.mark.parametrize("kind", SEEN)
def test_colours_stay_apart(kind):
    rgb = (
        np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in GROUP_COLOURS.values()]) / 255
    )
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(SEEN[kind]).T, 0, 1)
    shown = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(shown)
    apart = deltaE_ciede2000(lab[:, None], lab[None, :]) + 100 * np.eye(len(lab))
    assert apart.min() > 11
