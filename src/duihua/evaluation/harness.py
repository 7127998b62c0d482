"""EleutherAI's lm-evaluation-harness drives our models: the three questions that it asks of every model, answered by ours.

    import lm_eval
    from duihua.evaluation.harness import harness_model
    lm_eval.simple_evaluate(model=harness_model("runs/quickstart/pretrain"), tasks=["hellaswag"])

Why an adapter and not only `duihua evaluate tasks`: the harness has hundreds of tasks, and figures are comparable only where
the same code asked. Why not through an exported directory and its own `hf` model: that works for decoders, and gives the
same numbers (a test compares them), but not for recurrent networks and n-grams.

lm_eval is no dependency of ours: it is imported when a model for it is made. Windows of `loglikelihood_rolling` are the
harness's: they do not overlap but the last, which reaches back for a full context (its documentation shows them).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from duihua import console
from duihua.engine.engine import Engine
from duihua.engine.settings import SamplingSettings
from duihua.errors import BundleError, ConfigError
from duihua.evaluation.bits_per_byte import altered_line
from duihua.evaluation.language_model import DecoderModel, LanguageModel, open_language_model
from duihua.evaluation.likelihood import likelihoods
from duihua.evaluation.perplexity import Window

GENERATED_TOKENS = 256
"""Most tokens of an answer where the task does not say, as in the harness."""
SLOTS = 8


class Asked(Protocol):
    """A request of the harness: what it asks stands in `args`."""

    @property
    def args(self) -> tuple[Any, ...]: ...


class HarnessAdapter:
    """The three questions. Mixed with the harness's own base class by `harness_model`."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def loglikelihood(self, requests: Sequence[Asked], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood of the continuation, whether it is what greedy decoding would write) of each (context,
        continuation)."""
        made = likelihoods(self.model, [(str(each.args[0]), str(each.args[1])) for each in requests])
        if any(one.greedy is None for one in made):
            console.warn(
                f"{self.model.name} does not say which token is likeliest: what needs that (LAMBADA's acc) reads 0"
            )
        return [(one.log_likelihood, bool(one.greedy)) for one in made]

    def loglikelihood_rolling(self, requests: Sequence[Asked], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, from the document separator on.

        The harness divides by the bytes of the texts; where the ids do not say all of them, a line says that it should not.
        """
        texts = [str(each.args[0]) for each in requests]
        altered = 0
        sequences: list[list[int]] = []
        counted: list[int] = []
        owners: list[int] = []
        for index, ids in enumerate(self.model.encode(texts)):
            altered += not self.model.whole(texts[index], ids)
            stream = [self.model.start_id, *ids]
            for window in rolling_windows(len(ids), self.model.context):
                sequences.append(stream[window.begin : window.end + 1])
                counted.append(window.counted)
                owners.append(index)
        if altered:
            console.warn(f"{self.model.name}: {altered_line(altered, len(texts))}: the harness's are none")
        totals = [0.0] * len(requests)
        for owner, made in zip(owners, self.model.predict(sequences, counted), strict=True):
            totals[owner] -= float(made.nats.sum())
        return totals

    def generate_until(self, requests: Sequence[Asked], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, until a stop string, an end token or the limit of the task.

        A context that leaves no room for the answer loses its front.
        """
        if not isinstance(self.model, DecoderModel):
            raise BundleError(
                "only decoders answer in free text here",
                where=self.model.name,
                remedy="Choose tasks that score answers",
            )
        bundle = self.model.bundle
        engine = Engine(bundle.policy, bundle.tokenizer, slots=SLOTS)
        groups: dict[str, tuple[SamplingSettings, list[int]]] = {}
        for index, each in enumerate(requests):
            settings = generation_settings(each.args[1], engine.context)
            groups.setdefault(repr(settings), (settings, []))[1].append(index)
        written = [""] * len(requests)
        for settings, members in groups.values():
            room = engine.context - settings.max_new_tokens
            texts = self.model.encode([str(requests[index].args[0]) for index in members])
            prompts = [ids[-room:] or [self.model.start_id] for ids in texts]
            for index, completion in zip(members, engine.generate(prompts, settings), strict=True):
                written[index] = completion.text
        return written

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps requests under."""
        return self.model.name.replace("/", "__")

    def apply_chat_template(self, chat_history: list[Any], add_generation_prompt: bool = True) -> str:
        """A conversation as text; its control tokens are read as plain text by the three questions, so it is refused."""
        raise ConfigError(
            "control tokens are never made out of text here, so a chat template cannot be put into a prompt",
            where="apply_chat_template",
            remedy="Run the task without it, or export the model and use the harness's own hf model",
        )


def rolling_windows(inputs: int, context: int | None) -> list[Window]:
    """The harness's windows: one behind the other, the last one moved back so that it is full; each token counted once."""
    if context is None:
        return [Window(0, inputs, inputs)] if inputs else []
    windows = []
    for begin in range(0, inputs, context):
        end = min(begin + context, inputs)
        windows.append(Window(max(0, end - context), end, end - begin))
    return windows


def generation_settings(asked: Mapping[str, Any], context: int) -> SamplingSettings:
    """The harness's words for how an answer is written, as ours: greedy unless sampling is asked for."""
    until = asked.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(str(each) for each in until)
    most = int(asked.get("max_gen_toks", GENERATED_TOKENS))
    if most >= context:
        raise ConfigError(
            f"the task wants answers of {most} tokens, the model's context is {context}",
            where="max_gen_toks",
            remedy="Use a model with a longer context, or give the task a smaller max_gen_toks",
        )
    temperature = float(asked.get("temperature", 0.0)) if asked.get("do_sample") else 0.0
    return SamplingSettings(
        temperature=temperature,
        top_k=int(asked.get("top_k", 0)),
        top_p=float(asked.get("top_p", 1.0)),
        max_new_tokens=most,
        stop=tuple(each for each in stop if each),
        seed=int(asked.get("seed", 0)),
    )


def harness_model(directory: str | Path, device: str = "cpu") -> Any:
    """The model in a directory as the harness's `LM`, for `lm_eval.simple_evaluate(model=...)`.

    Raises ConfigError where the harness is not installed, BundleError where the directory holds no model.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "the lm-evaluation-harness is not installed",
            where="lm_eval",
            remedy="Run `pip install lm-eval`, or use `duihua evaluate tasks`, which needs nothing more",
        )
    base = importlib.import_module("lm_eval.api.model").LM
    return type("DuihuaLM", (HarnessAdapter, base), {})(open_language_model(directory, device))
