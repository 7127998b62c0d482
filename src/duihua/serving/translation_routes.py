"""/v1/translations: texts in one language in, translations out, from a translator that is served.

    {"model": "fr-en", "input": "Je suis étudiant."}
    {"model": "fr-en", "input": ["un", "deux"], "source": "fr", "target": "en", "beam": 5, "n": 2}

The form of the answer is that of OpenAI's lists. An input without text has an empty translation, so that indices keep their
places.
"""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from duihua.engine.beam_settings import BeamSettings, LengthPenalty
from duihua.errors import ConfigError, GenerationError
from duihua.serving.api_errors import ApiError
from duihua.serving.leaving import while_waited_for
from duihua.serving.openai_schema import Strict
from duihua.serving.services import Shared

router = APIRouter(prefix="/v1")
MOST_INPUTS, MOST_BEAMS = 128, 16
MOST_ROWS = 128
"""Hypotheses that are searched for at the same time: each has a cache of its own, so this bounds a request's memory."""
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]


class TranslationRequest(Strict):
    """Body of POST /v1/translations. source, target: may be left out where the model has one direction."""

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
    source: Language | None = None
    target: Language | None = None
    beam: Annotated[int, Field(ge=1, le=MOST_BEAMS)] = 5
    n: Annotated[int, Field(ge=1, le=MOST_BEAMS)] = 1
    length_penalty: LengthPenalty = "gnmt"
    alpha: Annotated[float, Field(ge=0, le=10)] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None


@router.post("/translations")
async def translations(body: TranslationRequest, request: Request, services: Shared) -> dict[str, Any]:
    """The best `n` translations of each input, best first. A search that nobody waits for any more ends at its next token."""
    translator = services.models.translator(body.model)
    if body.n > body.beam:
        raise ApiError(400, f"n is {body.n}, and a beam of {body.beam} gives no more than that.", param="n")
    try:
        direction = translator.direction(body.source or "", body.target or "")
    except ConfigError as error:
        raise ApiError(400, f"{error.problem}. {error.remedy}.", param="target", code="unknown_direction") from error
    texts = [body.input] if isinstance(body.input, str) else body.input
    settings = BeamSettings(
        beam=body.beam,
        n_best=body.n,
        length_penalty=body.length_penalty,
        alpha=body.alpha,
        stopping="estimate",
        batch_sentences=MOST_ROWS // body.beam,
    )
    try:
        read = await run_in_threadpool(translator.tokens, texts, direction)
    except GenerationError as error:
        number = int(error.where.removeprefix("text ")) - 1
        raise ApiError(
            400, f"{error.problem}. {error.remedy}.", param=f"input.{number}", code="context_length_exceeded"
        ) from error
    answers = await while_waited_for(request, partial(translator.translate, texts, direction, settings))
    written = sum(found.tokens for answer in answers for found in answer)
    services.metrics.prompt_tokens.labels(translator.card.name).inc(read)
    return {
        "id": f"translate-{secrets.token_hex(12)}",
        "object": "list",
        "created": int(time.time()),
        "model": translator.card.name,
        "source": direction[0],
        "target": direction[1],
        "data": [
            {
                "object": "translation",
                "index": number,
                "text": answer[0].text,
                "translations": [
                    {"text": found.text, "score": found.score, "log_probability": found.log_probability}
                    for found in answer
                ],
            }
            for number, answer in enumerate(answers)
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }
