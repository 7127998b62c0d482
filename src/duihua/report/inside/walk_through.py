"""Attention computed by hand: one head of one layer on 我爱你, with the real numbers of a real model.

Embed, norm, project to queries, keys and values, (norm and) turn, multiply, scale, mask, softmax, weighted sum: each step is
taken from the model's own weights, and the end is compared with what the network itself computed. The input of the three
projections is shared, the projections differ, so Q, K and V are three different matrices (Vaswani et al. 2017, section
3.2.1). A vector is shown by its first dimensions, but everything is computed with all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.errors import DataError
from duihua.report.inside.picture import Picture
from duihua.report.inside.style import Language, canvas, heat, pick
from duihua.report.inside.subject import Look, Subject, rounded
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

DIMENSIONS = 4
MOST_TOKENS = 9
"""So many has 我爱你 where a tokenizer knows no Chinese: a byte each. The page falls back on that sentence."""
TITLE = Text("One attention head step by step: '{text}'", "逐步计算一个注意力头：“{text}”")
STEPS: dict[str, Text] = {
    "embedding": Text("Embedding: the token's row of the table", "词嵌入：查表得到词元的向量"),
    "input": Text("What the layer gets (after the norm)", "该层的输入（归一化之后）"),
    "query": Text("Q = x ⋅ W_Q", "Q = x ⋅ W_Q"),
    "key": Text("K = x ⋅ W_K", "K = x ⋅ W_K"),
    "value": Text("V = x ⋅ W_V", "V = x ⋅ W_V"),
    "turned_query": Text("Q, normed and turned by its place", "Q：归一化并按位置旋转"),
    "turned_key": Text("K, normed and turned by its place", "K：归一化并按位置旋转"),
    "products": Text("Q ⋅ Kᵀ", "Q ⋅ Kᵀ"),
    "scores": Text("Scores: divided by √{width}", "得分：除以 √{width}"),
    "masked": Text("Mask: nothing that follows", "掩码：看不到后面"),
    "weights": Text("Softmax: each row adds up to 1", "softmax：每行之和为 1"),
    "mixed": Text("Weighted sum of V", "V 的加权和"),
}
SQUARE = ("products", "scores", "masked", "weights")
NOTE = Text(
    "Layer {layer}, head {head} of a model of {parameters:,} parameters; first {dimensions} of {width} dimensions, computed "
    "with all. Q, K and V come from the "
    "same input by different matrices. Computed here and by the network itself: largest difference {difference:.0e}.",
    "模型共 {parameters:,} 个参数，第 {layer} 层第 {head} 个头；只显示 {width} 维中的前 {dimensions} 维，计算时使用全部。"
    "Q、K、V 来自同一个输入，但乘的是不同的矩阵。此处的计算与网络自身结果的最大差异为 {difference:.0e}。",
)


def data(subject: Subject) -> dict[str, Any]:
    """Every step as a matrix with a row for each token; see `walk`."""
    return walk(subject.love)


def walk(look: Look, layer: int = 0, head: int = 0) -> dict[str, Any]:
    """tokens, ids, and steps: name -> matrix (token, dimension) or (token, token), in the order of computing.

    difference: the largest between this computation and the network's own. Raises DataError for more than a few tokens.
    """
    if len(look.ids) > MOST_TOKENS:
        raise DataError(
            f"{len(look.ids)} tokens are too many to follow by hand",
            where="text",
            remedy=f"Give at most {MOST_TOKENS} tokens, or leave this picture out",
        )
    import torch

    network, attention = look.network, look.inside.layers("self")[layer]
    module: Any = network.get_submodule(attention.name)
    width, shared = network.config.head_width, network.config.heads // network.config.key_value_heads
    assert attention.input_btd is not None and attention.output_btd is not None
    x_td = attention.input_btd[0]
    with torch.no_grad():
        projected = [_head(layer_(x_td), number, width) for layer_, number in (
            (module.query, head), (module.key, head // shared), (module.value, head // shared))]  # fmt: skip
    query, key, value = (
        attention.query_bhte[0, head],
        attention.key_bgse[0, head // shared],
        attention.value_bgse[0, head // shared],
    )
    products = query @ key.T
    scores = products / width**0.5
    masked = scores.masked_fill(~torch.ones_like(scores).tril().bool(), -torch.inf)
    weights = masked.softmax(dim=-1)
    mixed = weights @ value
    steps: dict[str, Any] = {
        "embedding": network.embedding.weight[look.ids],
        "input": x_td,
        "query": projected[0],
        "key": projected[1],
        "value": projected[2],
    }
    if not torch.equal(projected[0], query):
        steps |= {"turned_query": query, "turned_key": key}
    steps |= {"products": products, "scores": scores, "masked": masked, "weights": weights, "mixed": mixed}
    return {
        "text": look.text,
        "tokens": look.tokens,
        "ids": look.ids,
        "layer": layer + 1,
        "head": head + 1,
        "width": width,
        "dimensions": DIMENSIONS,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "difference": _difference(look, layer, head, mixed),
        "steps": {
            name: rounded(matrix if name in SQUARE else matrix[:, :DIMENSIONS]) for name, matrix in steps.items()
        },
    }


def _head(projected_tk: Tensor, head: int, width: int) -> Tensor:
    return projected_tk[:, head * width : (head + 1) * width]


def _difference(look: Look, layer: int, head: int, mixed: Tensor) -> float:
    """How far the weighted sum is from what the network's fused kernel gave to its output projection: seen through the
    projection, where the other heads are those of the capture."""
    import torch

    attention = look.inside.layers("self")[layer]
    heads = attention.mixed()[0].clone()  # (h, t, e)
    heads[head] = mixed
    assert attention.output_btd is not None
    module: Any = look.network.get_submodule(attention.name)
    with torch.no_grad():
        given = module.output(heads.transpose(0, 1).flatten(1))
    return float((given - attention.output_btd[0]).abs().max())


def title_of(step: str, language: Language, width: int) -> str:
    """What a step is called."""
    return pick(STEPS[step], language, width=width)


def draw(found: dict[str, Any], language: Language) -> Figure:
    """One panel a step, numbers in the cells, numbered in the order of computing."""
    steps, tokens = found["steps"], found["tokens"]
    across = 4
    down = -(-len(steps) // across)
    height = 0.62 + 0.36 * len(tokens)
    note = pick(
        NOTE,
        language,
        **{key: found[key] for key in ("layer", "head", "parameters", "dimensions", "width", "difference")},
    )
    figure = canvas(12.4, down * (height + 0.25), pick(TITLE, language, text=found["text"]), note)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(steps) :]:
        axes.set_axis_off()
    for number, (name, matrix) in enumerate(steps.items()):
        axes = grid.flat[number]
        kind = "sequential" if name == "weights" else "diverging"
        columns = tokens if name in SQUARE else [str(place + 1) for place in range(len(matrix[0]))]
        high = 1.0 if name == "weights" else None
        heat(axes, matrix, tokens, columns, kind=kind, high=high, low=0.0 if high else None, numbers=".2f", hidden="−∞",  # type: ignore[arg-type]
             square=False, size=8.5)  # fmt: skip
        axes.set_title(f"{number + 1}  {title_of(name, language, found['width'])}", fontsize=9, pad=6)
    return figure


PICTURE = Picture(
    "walk-through",
    Text(
        "queries, keys and values step by step with real numbers on 我爱你",
        "以“我爱你”为例，用真实数值逐步展示查询、键与值",
    ),
    data,
    draw,
    needs="model",
)
