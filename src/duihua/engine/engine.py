"""Many replies at once from one decoder: continuous batching over the slots of its key-value cache.

The idea (Orca; Yu et al. 2022): a batch is not a fixed set of requests that begin and end together. After every token,
requests that ended leave and waiting ones enter, so that a short reply never waits for a long one. A step is

    drop what was cancelled -> fill free slots (one forward over the new prompts) -> one forward for a token of everyone

Here is the queue and what callers see; the batch that a step moves on is `running_batch.py`.

The same class serves PPO's rollouts: the network is the one being trained, dropout is off inside and the training mode
is put back after. Keys of an old policy must never meet a new one, so prompts are found again in the cache
(`reuse_prefix`) only where the caller says that the weights stand still.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from duihua.engine.request import Completion, Request, TokenEvent
from duihua.engine.running_batch import RunningBatch
from duihua.engine.sampling import fresh_seed, sample_seed
from duihua.engine.settings import SamplingSettings
from duihua.errors import GenerationError
from duihua.models.decoder import Decoder
from duihua.nn.packed_weights import packed_weights
from duihua.text.text_stream import TextStream
from duihua.text.tokenizer import Tokenizer


class Engine:
    """Generates from `network`. Safe to call from several threads; `EngineService` runs it in the background.

    slots: replies that run at once. context: most tokens of prompt and reply together (default and upper bound: the
    network's). prefill_tokens: most prompt tokens of one step, so that long prompts do not hold up running replies (a
    single longer prompt goes in whole). reuse_prefix: keep finished conversations in free slots, and compute only what
    a new prompt adds to one; only for weights that stand still. compute_dtype: run the forward under autocast in this
    type, as training does. tokenizer None: no text, and end tokens come from the settings.
    """

    def __init__(
        self,
        network: Decoder,
        tokenizer: Tokenizer | None,
        slots: int = 8,
        *,
        context: int | None = None,
        prefill_tokens: int = 8192,
        reuse_prefix: bool = False,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        if slots < 1:
            raise GenerationError(
                f"must be at least 1, found {slots}", where="slots", remedy="Set it to 1 or more, or leave it out"
            )
        self.network = network
        self.tokenizer = tokenizer
        self.slots = slots
        self.context = min(context or network.config.context, network.config.context)
        self.compute_dtype = compute_dtype
        self._batch = RunningBatch(network, slots, self.context, prefill_tokens, reuse_prefix)
        self._arrived: deque[Request] = deque()  # put in by any thread, taken out under the lock
        self._waiting: deque[Request] = deque()
        self._lock = threading.Lock()  # whoever steps; a step never begins within a step

    # -- what callers use -----------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        settings: SamplingSettings | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """A completion of each prompt (ids), in order.

        seeds: one for each prompt (see `sample_seed`); without them prompt i gets sample_seed(settings.seed, 0, i, 0),
        or a fresh one where the settings name no seed. Raises GenerationError when a prompt is empty, holds an unknown
        id, or leaves no room for a token in the context.
        """
        settings = settings or SamplingSettings()
        if seeds is None:
            seeds = default_seeds(settings, len(prompts))
        elif len(seeds) != len(prompts):
            raise GenerationError(
                f"{len(seeds)} seeds for {len(prompts)} prompts", where="seeds", remedy="Give one each"
            )
        requests = [self.request(p, settings, s) for p, s in zip(prompts, seeds, strict=True)]
        laid_out = packed_weights(self.network) if len(requests) > 1 else nullcontext()
        with self._evaluating(), laid_out:
            try:
                for request in requests:
                    self.enqueue(request)
                while any(request.finish_reason is None for request in requests):
                    self.step()
            finally:
                self.cancel(*requests)
        for request in requests:
            if request.error is not None:  # its logits are no numbers, or another thread's step failed
                raise request.error
        return [request.completion() for request in requests]

    def stream(self, prompt: Sequence[int], settings: SamplingSettings | None = None) -> Iterator[TokenEvent]:
        """An event for each token of one reply; the last one has a finish_reason. Closing the iterator frees the slot.

        Several streams of one engine run together: whoever asks for a token moves all of them. Errors as in `generate`,
        raised here and not at the first token.
        """
        return self.open(prompt, settings)[1]

    def open(
        self, prompt: Sequence[int], settings: SamplingSettings | None = None
    ) -> tuple[Request, Generator[TokenEvent, None, None]]:
        """As `stream`, with the request, which shows at any time what there is of the reply."""
        settings = settings or SamplingSettings()
        events: deque[TokenEvent] = deque()
        request = self.request(prompt, settings, default_seeds(settings, 1)[0], events.append)
        return request, self._events(request, events)

    def _events(self, request: Request, events: deque[TokenEvent]) -> Generator[TokenEvent, None, None]:
        try:
            self.enqueue(request)
            while True:
                while events:
                    event = events.popleft()
                    if event.error is not None:
                        raise event.error
                    yield event
                    if event.finish_reason is not None:
                        return
                self.step()
        finally:
            self.cancel(request)

    @property
    def active(self) -> int:
        """Replies that hold a slot."""
        return len(self._batch.requests)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._arrived) + len(self._waiting)

    def release_memory(self) -> None:
        """Give the cache back; it is made again when needed. Nothing may be running."""
        with self._lock:
            assert not self._batch.requests
            self._batch.memory.release()

    # -- one request at a time ------------------------------------------------------------------------------------

    def request(
        self,
        prompt: Sequence[int],
        settings: SamplingSettings,
        seed: int,
        deliver: Callable[[TokenEvent], None] | None = None,
    ) -> Request:
        """Check a request against the model and prepare it, without queueing it. deliver is called with each event."""
        vocabulary = self.network.config.vocabulary_size
        prompt = list(prompt)
        if not prompt:
            raise GenerationError("the prompt is empty", where="prompt", remedy="Give at least one token")
        if min(prompt) < 0 or max(prompt) >= vocabulary:
            raise GenerationError(
                f"holds an id outside the vocabulary of {vocabulary}",
                where="prompt",
                remedy="Encode the prompt with the model's own tokenizer",
            )
        for where, ids in (("logit_bias", settings.logit_bias), ("stop_ids", settings.stop_ids or ())):
            if any(not 0 <= token < vocabulary for token in ids):
                raise GenerationError(
                    f"names an id outside the vocabulary of {vocabulary}",
                    where=where,
                    remedy="Name ids of the model's own tokenizer",
                )
        room = self.context - len(prompt)
        if room < 1:
            raise GenerationError(
                f"{len(prompt)} tokens leave no room for a reply in the context of {self.context}",
                where="prompt",
                remedy="Shorten it or use a model with a longer context",
            )
        stop_ids = settings.stop_ids
        if stop_ids is None:
            ends = self.tokenizer.stop_ids if self.tokenizer is not None else ()
            stop_ids = tuple(token for token in ends if token < vocabulary)  # a tokenizer may know more than its model
        if settings.stop and self.tokenizer is None:
            raise GenerationError(
                "stop strings need a tokenizer", where="stop", remedy="Give the engine the tokenizer, or use stop_ids"
            )
        text_stream = TextStream(self.tokenizer, settings.stop) if self.tokenizer is not None else None
        limit = min(settings.max_new_tokens, room)
        return Request(prompt, settings, seed, stop_ids, limit, text_stream, deliver)

    def enqueue(self, request: Request) -> None:
        """Put a prepared request at the end of the queue; `step` moves it on. Never blocks."""
        self._arrived.append(request)

    def cancel(self, *requests: Request) -> None:
        """End requests that are not finished. Their slots are free by the next step at the latest. Never blocks."""
        for request in requests:
            if request.finish_reason is None:
                request.cancelled = True
        if any(request.cancelled for request in requests) and self._lock.acquire(blocking=False):
            try:
                self._drop_cancelled()
            finally:
                self._lock.release()

    def cancel_all(self) -> None:
        """End whatever runs or waits."""
        with self._lock:
            self._take_arrivals()
            for request in [*self._batch.requests, *self._waiting]:
                request.cancelled = True
            self._drop_cancelled()

    def step(self) -> bool:
        """Move everything on by one token. Returns whether anything is left to do.

        When the forward fails, every request ends with the error, the slots are free again, and the error is raised.
        A request whose own logits are no numbers ends alone.
        """
        with self._lock, self._evaluating(), torch.inference_mode(), self._autocast():
            try:
                self._drop_cancelled()
                self._batch.check_placement()
                self._batch.fill(self._waiting)
                self._batch.decode()
            except BaseException as error:
                self._take_arrivals()
                for request in [*self._batch.requests, *self._waiting]:
                    request.end("error" if isinstance(error, Exception) else "cancelled", error)
                self._batch.clear()
                self._waiting.clear()
                raise
            return bool(self.active or self.waiting)

    # -- inside a step --------------------------------------------------------------------------------------------

    def _take_arrivals(self) -> None:
        while self._arrived:
            self._waiting.append(self._arrived.popleft())

    @torch.inference_mode()  # the cache was made in this mode, and may be called from outside of a step
    def _drop_cancelled(self) -> None:
        self._take_arrivals()
        self._batch.drop_cancelled()
        for request in [request for request in self._waiting if request.cancelled]:
            self._waiting.remove(request)
            request.end("cancelled")

    def _autocast(self) -> AbstractContextManager[object]:
        if self.compute_dtype is None:
            return nullcontext()
        return torch.autocast(self.network.embedding.weight.device.type, dtype=self.compute_dtype)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Dropout and the like off inside; the network's mode put back after."""
        if not self.network.training:
            yield
            return
        self.network.eval()
        try:
            yield
        finally:
            self.network.train()


def default_seeds(settings: SamplingSettings, count: int) -> list[int]:
    """The seeds of `count` samples: from settings.seed by index, or fresh ones."""
    if settings.seed is None:
        return [fresh_seed() for _ in range(count)]
    return [sample_seed(settings.seed, 0, index, 0) for index in range(count)]
