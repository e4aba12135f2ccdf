"""A real network on a real CT, from files to files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from voxplain.records import Explanation
from voxplain.space import read_image

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODEL = SHARED / "models" / "ct16_unet"
CT = SHARED / "data" / "ct_thorax_abdomen" / "ct.nii.gz"

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not (MODEL.is_dir() and CT.is_file()), reason="../shared is not there"),
]


@pytest.mark.timeout(1800)
def test_all_classes_of_a_real_ct(voxplain, tmp_path):
    out = tmp_path / "out"
    done = voxplain(
        "explain", "--model", str(MODEL), "--image", str(CT), "--method", "smoothgrad",
        "--set", "n=2", "--save-maps", "--out", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    saved = Explanation.load(out, read_image(CT))
    assert len(saved.targets) == 16
    present = [target.name for target in saved.targets if target.n_windows]
    assert len(present) >= 12
    np.testing.assert_allclose(saved.table.matrix().loc[present].sum(axis=1), 1, atol=1e-5)
    image = SimpleITK.ReadImage(str(CT))
    for path in [out / "prediction.nii.gz", *out.glob("attribution_*.nii.gz")]:
        written = SimpleITK.ReadImage(str(path))
        assert written.GetSize() == image.GetSize()
        np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(written.GetSpacing(), image.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-6)
    page = out / "report.html"
    assert page.stat().st_size <= 25e6
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("everything but the page passed; there is no chromium to open it")
    opened = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--use-gl=angle",
         "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run",
         "--disable-background-networking", f"--user-data-dir={tmp_path / 'browser'}",
         "--virtual-time-budget=30000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert 'data-viewer="ready"' in opened.stdout
