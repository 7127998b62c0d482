"""report.html: one run on one page that opens anywhere, without a network, in English and Chinese.

Why one file with everything inside: it is mailed, archived and printed, and must read the same in ten years. A content
security policy in the page itself forbids every request and every script but ours (by its hash), so that text written by
a model stays text even if an escape were forgotten. Without scripts the page reads in English.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from markupsafe import Markup, escape

from duihua.files import write_atomic
from duihua.report.components import joined, stage_name, t, visible
from duihua.report.run_record import RunRecord, read_run
from duihua.report.sections import (
    alignment,
    classification,
    counts,
    curves,
    data,
    facts,
    language,
    overview,
    replies,
    tokens,
)
from duihua.version import __version__

Section = Callable[[RunRecord], Markup | None]
SECTIONS: tuple[tuple[str, Section], ...] = (
    ("headline", overview.headline),
    ("normal", overview.normal),
    ("samples", replies.samples),
    ("curves", curves.curves),
    ("tokens", tokens.tokens),
    ("language", language.language),
    ("ngram", counts.ngram),
    ("reward", alignment.reward_model),
    ("ppo", alignment.ppo),
    ("classify", classification.classify),
    ("replies", replies.replies),
    ("data", data.data),
    ("cost", facts.cost),
    ("settings", facts.settings),
    ("again", facts.again),
    ("glossary", facts.glossary),
)

PAGE = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src '{script_hash}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{name} · Duihua 对话</title>
<style>{style}</style>
<script>{script}</script>
</head>
<body>
<header class="top"><div class="inner"><span class="brand">Duihua <span lang="zh-CN">对话</span></span>
<div class="switch" role="group" aria-label="Language 语言"><button type="button" data-language="en" lang="en">English</button><button type="button" data-language="zh" lang="zh-CN">中文</button></div></div></header>
<div class="frame">
<nav aria-label="Contents 目录"><ol>{contents}</ol></nav>
<main>
<div class="title"><span class="kicker">{kicker}</span><h1>{name}</h1><p class="facts">{facts}</p>{partial}</div>
{body}
<footer class="end">{footer}</footer>
</main>
</div>
</body>
</html>
""")  # noqa: E501 - HTML lines


def write_report(run_directory: Path) -> Path:
    """Write `run_directory`/report.html and return its path. Raises DuihuaError where run.json is not one."""
    html = render(read_run(run_directory))
    path = run_directory / "report.html"
    # A lone surrogate (half a character that a broken file brought in) cannot be UTF-8; it becomes "?".
    write_atomic(path, html.encode("utf-8", "replace"))
    return path


def render(record: RunRecord) -> str:
    """The page of a run that has been read."""
    script, style = _asset("report.js"), _asset("report.css")
    built = [(name, body) for name, section in SECTIONS if (body := section(record)) is not None]
    contents = joined(Markup('<li><a href="#{}">{}</a></li>').format(name, t(f"{name}.title")) for name, _ in built)
    body = joined(
        Markup('<section id="{0}" aria-labelledby="{0}-title"><h2 id="{0}-title">{1}</h2>\n{2}</section>').format(
            name, t(f"{name}.title"), inner
        )
        for name, inner in built
    )
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return visible(
        PAGE.format(
            script_hash=f"sha256-{digest}",
            name=record.name,
            style=Markup(style),
            script=Markup(script),
            contents=contents,
            kicker=t("page.kicker"),
            facts=_facts(record),
            partial=_partial(record),
            body=body,
            footer=t("page.footer", version=__version__),
        )
    )


def _facts(record: RunRecord) -> Markup:
    run = record.run
    known = [t(f"page.{key}", value=run[key]) for key in ("device", "threads", "seed") if run.get(key) is not None]
    dates = [escape(str(run[key])[:10]) for key in ("finished", "started") if run.get(key)][:1]
    return Markup(" · ").join([*known, *dates])


def _partial(record: RunRecord) -> Markup:
    missing = record.missing()
    if not missing:
        return Markup("")
    stages = Markup(", ").join(stage_name(stage) for stage in missing)
    return Markup('<p class="partial">{}</p>').format(t("page.partial", stages=stages))


def _asset(name: str) -> str:
    return resources.files("duihua.report").joinpath("assets", name).read_text(encoding="utf-8")
