"""/v1/classifications: labels and probabilities from a classifier that is served.

    {"model": "reviews", "input": ["good", "bad"]}                                 one text, or a list of texts
    {"model": "mrpc", "input": [["one text", "the other"], ...]}                   a list of pairs
    {"model": "csqa", "input": [{"context": "...", "options": ["...", "..."]}]}    a list of choices

The form of the answer is that of OpenAI's lists; `label` of a choice is the option's number from 0.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from duihua.serving.api_errors import ApiError
from duihua.serving.openai_schema import Strict
from duihua.serving.services import Shared
from duihua.text.task_inputs import Task, text_count

if TYPE_CHECKING:
    from duihua.engine.classifier_model import Question

router = APIRouter(prefix="/v1")
MOST_INPUTS = 512
MOST_OPTIONS = 64


class ChoiceInput(Strict):
    """A context and what may follow it."""

    context: str
    options: Annotated[list[str], Field(min_length=2, max_length=MOST_OPTIONS)]


Item = str | list[str] | ChoiceInput


class ClassificationRequest(Strict):
    """Body of POST /v1/classifications."""

    model: str
    input: str | Annotated[list[Item], Field(min_length=1, max_length=MOST_INPUTS)]
    user: str | None = None
    metadata: dict[str, str] | None = None


@router.post("/classifications")
async def classifications(body: ClassificationRequest, services: Shared) -> dict[str, Any]:
    """The label and the probability of every label, for each input."""
    classifier = services.models.classifier(body.model)
    items = [body.input] if isinstance(body.input, str) else body.input
    task = classifier.card.task
    questions = [_question(item, task, number) for number, item in enumerate(items)]
    answers = await run_in_threadpool(classifier.classify, questions)
    tokens = sum(answer.tokens for answer in answers)
    services.metrics.prompt_tokens.labels(classifier.card.name).inc(tokens)
    return {
        "id": f"classify-{secrets.token_hex(12)}",
        "object": "list",
        "created": int(time.time()),
        "model": classifier.card.name,
        "task": task,
        "data": [
            {
                "object": "classification",
                "index": number,
                "label": answer.label,
                "probabilities": answer.probabilities,
                "cut_tokens": answer.cut_tokens,
            }
            for number, answer in enumerate(answers)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _question(item: Item, task: Task, number: int) -> Question:
    """One input as the classifier takes it; ApiError 400 where it has another form."""
    from duihua.engine.classifier_model import Question

    texts: tuple[str, ...]
    options: tuple[str, ...]
    if isinstance(item, ChoiceInput):
        texts, options = (item.context,), tuple(item.options)
    else:
        texts, options = ((item,) if isinstance(item, str) else tuple(item)), ()
    if (task == "multiple_choice") != bool(options) or len(texts) != text_count(task):
        wanted = {
            "classification": "a text",
            "entailment": "a list of two texts",
            "similarity": "a list of two texts",
            "multiple_choice": 'an object with "context" and "options"',
        }[task]
        raise ApiError(400, f"Each input of this model is {wanted}.", param=f"input.{number}", code="wrong_input_form")
    if not all(text.strip() for text in (*texts, *options)):
        raise ApiError(400, "A text is empty.", param=f"input.{number}", code="empty_input")
    return Question(texts, options)
