"""report.html: one run on one page that opens anywhere, without a network, in English and Chinese.

Why one file with everything inside (`document.py`): it is mailed, archived and printed, and must read the same in ten years.
Without scripts the page reads in English.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup, escape

from duihua.files import write_atomic
from duihua.report.components import joined, stage_name, t
from duihua.report.document import document
from duihua.report.run_record import RunRecord, read_run
from duihua.report.sections import (
    alignment,
    classification,
    compare,
    counts,
    curves,
    data,
    facts,
    fine_tuning,
    gaming,
    language,
    overview,
    prediction,
    recurrent,
    replies,
    tokens,
    translation,
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
    ("recurrent", recurrent.recurrent),
    ("translate", translation.translate),
    ("sft", fine_tuning.sft),
    ("reward", alignment.reward_model),
    ("ppo", alignment.ppo),
    ("compare", compare.compare),
    ("gaming", gaming.gaming),
    ("classify", classification.classify),
    ("replies", replies.replies),
    ("data", data.data),
    ("prediction", prediction.prediction),
    ("cost", facts.cost),
    ("settings", facts.settings),
    ("again", facts.again),
    ("glossary", facts.glossary),
)

CONTENT = Markup("""<div class="frame">
<nav aria-label="Contents 目录"><ol>{contents}</ol></nav>
<main>
<div class="title"><span class="kicker">{kicker}</span><h1>{name}</h1><p class="facts">{facts}</p>{partial}</div>
{body}
<footer class="end">{footer}</footer>
</main>
</div>
""")


def write_report(run_directory: Path) -> Path:
    """Write `run_directory`/report.html and return its path. Raises DuihuaError where run.json is not one."""
    html = render(read_run(run_directory))
    path = run_directory / "report.html"
    # A lone surrogate (half a character that a broken file brought in) cannot be UTF-8; it becomes "?".
    write_atomic(path, html.encode("utf-8", "replace"))
    return path


def render(record: RunRecord) -> str:
    """The page of a run that has been read."""
    built = [(name, body) for name, section in SECTIONS if (body := section(record)) is not None]
    contents = joined(Markup('<li><a href="#{}">{}</a></li>').format(name, t(f"{name}.title")) for name, _ in built)
    body = joined(
        Markup('<section id="{0}" aria-labelledby="{0}-title"><h2 id="{0}-title">{1}</h2>\n{2}</section>').format(
            name, t(f"{name}.title"), inner
        )
        for name, inner in built
    )
    content = CONTENT.format(
        contents=contents,
        kicker=t("page.kicker"),
        name=record.name,
        facts=_facts(record),
        partial=_partial(record),
        body=body,
        footer=t("page.footer", version=__version__),
    )
    return document(record.name, content)


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
