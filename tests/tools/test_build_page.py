"""The page's build: which Node will do, what the lock file may say, and that changed sources are noticed."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_page", ROOT / "tools" / "build_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("version", "enough"),
    [
        ("v20.19.0", True),
        ("v22.12.0", True),
        ("v24.1.0", True),
        ("v20.18.3", False),
        ("v22.11.0", False),
        ("v21.7.0", False),
        ("v18.20.0", False),
        ("", False),
    ],
)
def test_node_is_new_enough_for_vite(build_page: ModuleType, version: str, enough: bool) -> None:
    assert build_page.new_enough(version) is enough


def test_the_lock_file_names_no_registry_and_pins_every_package_by_hash() -> None:
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert len(packages) > 20
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert package["integrity"].startswith("sha512-"), name
    manifest = json.loads((ROOT / "web" / "package.json").read_text(encoding="utf-8"))
    for name, version in {**manifest["dependencies"], **manifest["devDependencies"]}.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name


def test_a_changed_source_makes_the_page_stale(build_page: ModuleType, tmp_path: Path) -> None:
    web, page = tmp_path / "web", tmp_path / "page"
    (web / "src").mkdir(parents=True)
    (web / "node_modules").mkdir()
    page.mkdir()
    (web / "src" / "a.ts").write_text("one")
    assert not build_page.is_current(page, web)
    (page / build_page.STAMP).write_text(build_page.sources_hash(web))
    assert build_page.is_current(page, web)
    (web / "node_modules" / "x.js").write_text("not a source")
    assert build_page.is_current(page, web)
    (web / "src" / "a.ts").write_text("two")
    assert not build_page.is_current(page, web)


def test_the_built_page_asks_no_other_host_and_has_nothing_inline() -> None:
    page = ROOT / "src" / "duihua" / "serving" / "page"
    if not (page / "index.html").is_file():
        pytest.skip("the page is not built (python tools/build_page.py)")
    html = (page / "index.html").read_text(encoding="utf-8")
    assert "//" not in html.replace("<!--", "")
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html) == []
    styles = "".join(path.read_text(encoding="utf-8") for path in page.glob("assets/*.css"))
    assert "url(" not in styles
    assert "@import" not in styles
