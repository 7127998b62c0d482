"""inside.html: attention viewer, logit lens and walk-through on one page that opens anywhere, without a network.

The numbers are in the page as JSON, the script (report/assets/inside.js) draws them; nothing is loaded. Why user and model
text are safe: no text can end the element that holds the JSON (`document.py`); the script puts text in as text alone; and the
page's own policy allows no script but ours (by hash) and no trusted HTML.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from duihua.errors import DataError
from duihua.files import write_atomic
from duihua.report.components import both, joined, note
from duihua.report.document import document
from duihua.report.inside.attention import attention_data
from duihua.report.inside.cross_attention import cross_data
from duihua.report.inside.layer_change import change_data
from duihua.report.inside.logit_lens import lens_data
from duihua.report.inside.picture import Picture
from duihua.report.inside.style import drawn
from duihua.report.inside.subject import LOVE, Look, Subject, look_at
from duihua.report.inside.walk_through import MOST_TOKENS as MOST_WALKED
from duihua.report.inside.walk_through import SQUARE, STEPS, title_of, walk
from duihua.report.texts import Text
from duihua.version import __version__

if TYPE_CHECKING:
    from duihua.engine.translation_model import TranslationModel
    from duihua.models.decoder import Decoder
    from duihua.text.tokenizer import Tokenizer

INTERACTIVE = ("walk-through", "attention", "cross-attention", "logit-lens", "layer-change")
"""Pictures that the page shows by script and not as a drawing."""
MOST_WALKS = 64
"""Heads whose steps are in the page; of a larger model the first layer's."""

SECTIONS: dict[str, tuple[Text, Text]] = {
    "attention": (
        Text("Attention", "注意力"),
        Text(
            "Point at a token: the darker another is, the more it is looked at. ⌀ is the mean of all heads. The "
            "small matrices are all heads, "
            "a row a layer; a click chooses one. Nothing that follows can be seen.",
            "把指针放在一个词元上：颜色越深，表示它看得越多。⌀ 为所有头的平均。小矩阵是全部的头，每行一层，点击即可"
            "选择。后面的内容看不到。",
        ),
    ),
    "cross": (
        Text("Cross-attention", "交叉注意力"),
        Text(
            "Point at a token of the translation: the source tokens that it looks at darken. Where the two languages "
            "order words "
            "differently, the dark cells leave the diagonal.",
            "把指针放在译文的词元上：它所看的原文词元会变深。两种语言词序不同的地方，深色格子会离开对角线。",
        ),
    ),
    "lens": (
        Text("Logit lens", "Logit lens"),
        Text(
            "What the model would say next if it stopped after each layer; the top row is what it says in fact. "
            "Point at a cell for the five likeliest tokens.",
            "若模型在某一层停下，它会预测什么；最上面一行是真实的预测。把指针放在格子上可看到最可能的五个词元。",
        ),
    ),
    "change": (
        Text("How much each layer changes the vectors", "每一层改变向量的程度"),
        Text(
            "Cosine of each token's vector with the one before the layer; darker: turned further.",
            "每个词元的向量与进入该层之前的余弦；颜色越深，方向改变越大。",
        ),
    ),
    "walk": (
        Text("Queries, keys and values, number by number", "查询、键与值，逐个数字"),
        Text(
            "The head chosen above, computed step by step on “{text}”: first {dimensions} of {width} dimensions. Q, "
            "K and V come from one input by three "
            "different matrices. This page's result and the network's own differ by {difference:.0e} at most.",
            "上面所选的头，在“{text}”上逐步计算：显示 {width} 维中的前 {dimensions} 维。Q、K、V 来自同一个输入，但乘"
            "的是三个不同的矩阵。"
            "此处的结果与网络自身的结果最多相差 {difference:.0e}。",
        ),
    ),
    "pictures": (Text("Pictures", "图片"), Text("Drawn by the same command.", "由同一条命令绘制。")),
}

CONTENT = Markup("""<div class="frame plain">
<main>
<div class="title"><span class="kicker">{kicker}</span><h1>{name}</h1><p class="facts">{facts}</p><p class="lead"><bdi>{text}</bdi></p>{form}</div>
{body}
<footer class="end">{footer}</footer>
</main>
</div>
""")  # noqa: E501 - HTML lines
VIEWER = Markup("""<div class="controls"><label>{layer} <select class="layer"></select></label><label>{head} <select class="head"></select></label></div>
<div class="viewer"><div>{strips}<p class="readout" aria-live="polite"></p><canvas class="matrix" aria-hidden="true"></canvas></div>
<div><p class="strip-name">{all_heads}</p><div class="heads"></div></div></div>""")  # noqa: E501
FORM = Markup(
    '<form class="ask" method="get"><input type="hidden" name="model" value="{model}">{languages}'
    '<input name="text" value="{text}" maxlength="2000" aria-label="Text 文本"><button>{look}</button></form>'
)
HIDDEN = Markup('<input type="hidden" name="{}" value="{}">')


def write_page(path: Path, subject: Subject, shown: Sequence[tuple[Picture, dict[str, Any]]]) -> Path:
    """Write the page of a subject with these pictures (and their data), and return its path."""
    cross = next((found for one, found in shown if one.name == "cross-attention"), None)
    look = subject.look if subject.model is not None else None
    name = (subject.model or subject.translator or Path("Duihua")).resolve().name
    html = render(
        name, look, cross=cross, pictures=[(one, found) for one, found in shown if one.name not in INTERACTIVE]
    )
    write_atomic(path, html.encode("utf-8", "replace"))
    return path


def served_page(name: str, network: Decoder, tokenizer: Tokenizer, text: str, asks: bool) -> str:
    """The page of a served model: the same without drawings. asks: with a field for another text. Raises DuihuaError for a text
    that is empty or too long."""
    return render(name, look_at(network, tokenizer, text), asks=asks)


def served_translator_page(
    name: str, model: TranslationModel, text: str | None, languages: tuple[str, str], asks: bool
) -> str:
    """The page of a served translator: where each token of its translation looks. languages: read and written, "" where that
    goes without saying; a translator without any named shows its first direction. Raises DuihuaError for a text that is empty
    or too long, a direction that it has not, and a translator without attention."""
    direction = model.direction(*languages) if any(languages) else model.directions[0]
    return render(name, None, cross=cross_data(model, text, direction), asks=asks)


def render(
    name: str,
    look: Look | None,
    *,
    cross: dict[str, Any] | None = None,
    pictures: Sequence[tuple[Picture, dict[str, Any]]] = (),
    asks: bool = False,
) -> str:
    """The page. asks: whether it has a field for another text, which needs a server."""
    data: dict[str, Any] = {}
    body: list[Markup] = []
    if look is not None:
        data |= _model_data(look)
        walked = data["walks"][0][0]
        body += [
            _section("attention", _viewer([both("tokens", "词元")])),
            _section(
                "lens", Markup('<p class="readout" aria-live="polite"></p><div class="scroll" tabindex="0"></div>')
            ),
            _section("change", Markup('<div class="scroll" tabindex="0"></div>')),
            _section("walk", Markup('<p class="readout"></p><div class="steps"></div>'), **walked),
        ]
    if cross is not None:
        data["cross"] = {key: cross[key] for key in ("source", "target")} | {"weights": _thousandths(cross["weights"])}
        body.insert(1 if body else 0, _section("cross", _viewer([both("translation", "译文"), both("source", "原文")])))
    if pictures:
        body.append(
            _section("pictures", Markup('<div class="gallery">{}</div>').format(joined(map(_drawing, pictures))))
        )
    if not body:
        raise DataError("there is nothing to show", where="--html", remedy="Name a model or a picture")
    text = look.text if look is not None else cross["text"] if cross is not None else ""
    content = CONTENT.format(
        kicker=both("Inside a model", "模型内部"),
        name=name,
        facts=_facts(look),
        text=text,
        form=FORM.format(model=name, languages=_languages(cross), text=text, look=both("Look", "查看")) if asks else "",
        body=joined(body),
        footer=both(
            f"Written by Duihua {__version__}. This page is complete in itself: it loads nothing from the network.",
            f"由 Duihua {__version__} 生成。本页自成一体，不从网络加载任何内容。",
        ),
    )
    return document(
        name,
        content,
        styles=("report.css", "inside.css"),
        scripts=("report.js", "inside.js"),
        data=data,
        policy=(
            "img-src data:",
            "base-uri 'none'",
            "form-action 'self'" if asks else "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ),
    )


def _languages(cross: dict[str, Any] | None) -> Markup:
    """The direction of a translation, for the next one."""
    pairs = zip(("source", "target"), cross["direction"] if cross is not None else (), strict=False)
    return joined(HIDDEN.format(name, language) for name, language in pairs)


def _model_data(look: Look) -> dict[str, Any]:
    """What the script needs of a decoder."""
    config, network, tokenizer = look.network.config, look.network, look.tokenizer
    walked = look if len(look.ids) <= MOST_WALKED else look_at(network, tokenizer, LOVE)
    layers = config.layers if config.layers * config.heads <= MOST_WALKS else 1
    walks = [[walk(walked, layer, head) for head in range(config.heads)] for layer in range(layers)]
    return {
        "tokens": look.tokens,
        "attention": _thousandths(attention_data(look)["weights"]),
        "lens": lens_data(look),
        "change": change_data(look),
        "walks": walks,
        "walk_titles": {
            name: {language: title_of(name, language, config.head_width) for language in ("en", "zh")} for name in STEPS
        },
        "walk_square": SQUARE,
    }


def _thousandths(weights: Any) -> Any:
    """Nested weights as whole thousandths: a third of the size, and more than the eye can tell."""
    return [_thousandths(one) for one in weights] if isinstance(weights, list) else round(1000 * weights)


def _facts(look: Look | None) -> Markup:
    if look is None:
        return Markup("")
    config = look.network.config
    parameters = sum(weight.numel() for weight in look.network.parameters())
    return both(
        f"{parameters:,} parameters · {config.layers} layers · {config.heads} heads · {len(look.ids)} tokens",
        f"{parameters:,} 个参数 · {config.layers} 层 · {config.heads} 个头 · {len(look.ids)} 个词元",
    )


def _section(name: str, inner: Markup, **values: Any) -> Markup:
    title, about = SECTIONS[name]
    explained = both(Markup(about.en).format(**values), Markup(about.zh).format(**values))
    return Markup('<section id="{0}" aria-labelledby="{0}-title"><h2 id="{0}-title">{1}</h2>{2}\n{3}</section>').format(
        name, both(title.en, title.zh), note(explained), inner
    )


def _viewer(strips: Sequence[Markup]) -> Markup:
    named = joined(Markup('<p class="strip-name">{}</p><div class="strip"></div>').format(strip) for strip in strips)
    return VIEWER.format(
        layer=both("Layer", "层"), head=both("Head", "头"), strips=named, all_heads=both("All heads", "全部的头")
    )


def _drawing(shown: tuple[Picture, dict[str, Any]]) -> Markup:
    """A picture in both languages, of which one is shown."""
    one, found = shown
    images = []
    for language, about in (("en", one.about.en), ("zh", one.about.zh)):
        svg = drawn(lambda language=language: one.draw(found, language), "svg", one.name)  # type: ignore[misc]
        source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
        images.append(Markup('<img class="{}" alt="{}" src="{}">').format(language, about, source))
    return Markup('<figure id="picture-{}">{}</figure>').format(one.name, joined(images))
