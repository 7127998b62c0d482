"""The shell of the report's pages: what its policy allows, and text that cannot leave its place."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from importlib import resources

import pytest
from markupsafe import Markup

from duihua.report.document import document


def digests(page: str) -> list[str]:
    """SHA-256 of every program that stands in the page, as a browser computes it."""
    programs = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    return [base64.b64encode(hashlib.sha256(program.encode()).digest()).decode() for program in programs]


def policy(page: str) -> dict[str, str]:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    return dict(each.strip().split(" ", 1) for each in unescape(found[1]).split(";"))


@pytest.mark.parametrize("scripts", [("report.js",), ("report.js", "inside.js")])
def test_the_policy_allows_these_programs_by_hash_and_no_other(scripts: tuple[str, ...]) -> None:
    page = document("name", Markup("<main>x</main>"), scripts=scripts)
    allowed = policy(page)["script-src"].split()
    assert allowed == [f"'sha256-{digest}'" for digest in digests(page)]
    assert len(allowed) == len(scripts)
    assert policy(page)["default-src"] == "'none'"
    # Control: one character more, and the browser would refuse it.
    changed = page.replace("</script>", " </script>")
    assert not {f"'sha256-{digest}'" for digest in digests(changed)} & set(allowed)


def test_titles_and_data_cannot_leave_their_place() -> None:
    hostile = "</title></script><script>window.hacked = 1</script><!--\u2028&\u202e"
    page = document(hostile, Markup("<main>x</main>"), data={"text": hostile})
    assert "<script>window.hacked" not in page
    assert "\u202e" not in page  # the mark that turns a line round
    assert page.count("<script>") == 1  # our own
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, flags=re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == {"text": hostile.replace("\u202e", "�")}
    # Control: as plain JSON the same data would have ended the element.
    assert "</script>" in json.dumps({"text": hostile})


def test_style_sheets_stand_in_order_and_the_content_as_it_is() -> None:
    assets = resources.files("duihua.report").joinpath("assets")
    first, second = (assets.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "inside.css"))
    page = document("n", Markup("<main>1 &amp; 2</main>\n"), styles=("report.css", "inside.css"))
    assert f"<style>{first}{second}</style>" in page
    assert page.endswith("</header>\n<main>1 &amp; 2</main>\n</body>\n</html>\n")
    assert 'id="data"' not in page
