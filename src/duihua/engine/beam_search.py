"""Beam search: the likeliest translations of many sentences at once, for any translator.

At each step every kept hypothesis is continued by every token, and the best `beam` continuations are kept (Sutskever et al.
2014, section 3.2). Twice as many candidates are looked at, since those that end leave the beam, but only ends among the
best `beam` count as finished; transformers and fairseq do so too, and the results are compared with the former in tests.
Scores are sums of the model's own log-probabilities: what is forbidden (pads, repeated n-grams) is taken out after the
softmax and its probability is not handed to the others. At its longest a hypothesis must end, and pays for it.

What makes it quick: the source's keys and values are computed once a sentence and shared by its beams; the past is cached
and moved only where a hypothesis takes another's place; a finished sentence leaves the batch; sentences of similar length
go together; a row's best tokens are taken from its logits, so that no table of log-probabilities is ever written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duihua.engine.beam_settings import BeamSettings
from duihua.errors import GenerationError
from duihua.models.translator import Translator, pad_rows

LEAST_ATTENTION = 1e-6
"""Attention below which a source token counts as having this much: the logarithm of nothing would outweigh all else."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished translation. ids: without start and end. score: with length and coverage penalties, what hypotheses are
    compared by. log_probability: of the ids and the end, in nats."""

    ids: tuple[int, ...]
    score: float
    log_probability: float


class SearchStoppedError(GenerationError):
    """The search was given up because it was told to stop."""

    def __init__(self) -> None:
        super().__init__("the translation was stopped before its end", remedy="Ask for it again")


def never() -> bool:
    """What a search asks that nobody stops."""
    return False


def beam_search(
    network: Translator,
    source_ids: Sequence[Sequence[int]],
    settings: BeamSettings | None = None,
    advance: Callable[[int], None] | None = None,
    stop: Callable[[], bool] = never,
) -> list[list[Hypothesis]]:
    """The best translations of each source, best first, at most `settings.n_best` each, in the order of the sources.

    source_ids: as the network was trained to read them, so with end_id at the end. advance: told after each batch how many
    sentences are done. stop: asked before each token, and true ends the search. Raises GenerationError for an empty source and
    one that is longer than the model reads, SearchStoppedError where `stop` says so.
    """
    settings = settings or BeamSettings()
    for number, row in enumerate(source_ids):
        if not row:
            raise GenerationError(
                "an empty source has no translation",
                where=f"sentence {number + 1}",
                remedy="Leave it out, or give it a text",
            )
    found: list[list[Hypothesis]] = [[] for _ in source_ids]
    order = sorted(range(len(source_ids)), key=lambda number: len(source_ids[number]), reverse=True)
    was_training = network.training
    network.train(False)
    try:
        with torch.inference_mode():
            for start in range(0, len(order), settings.batch_sentences):
                chosen = order[start : start + settings.batch_sentences]
                search = _Search(network, [source_ids[number] for number in chosen], settings)
                for number, hypotheses in zip(chosen, search.run(stop), strict=True):
                    found[number] = hypotheses
                if advance is not None:
                    advance(len(chosen))
    finally:
        network.train(was_training)
    return found


def greedy_stream(
    network: Translator, source_ids: Sequence[int], settings: BeamSettings | None = None
) -> Iterator[int]:
    """The ids of the greedy translation, each as soon as it is known, the end left out: what `beam_search` finds with a beam
    of 1. The network must be in evaluation mode."""
    settings = settings or BeamSettings()
    if not source_ids:
        raise GenerationError("an empty source has no translation", remedy="Leave it out, or give it a text")
    assert not network.training
    config = network.config
    written: list[int] = []
    limit = settings.most_tokens(len(source_ids), config.most_tokens)
    with torch.inference_mode():
        source, mask = pad_rows([source_ids], config.pad_id, _device(network))
        state = network.start(network.encode(source, mask))
    token = config.start_id
    while len(written) + 1 < limit:
        with torch.inference_mode():
            logits = network.step(torch.tensor([token], device=source.device), state).float()
            logits[:, [one for one in (config.pad_id, config.start_id) if one != config.end_id]] = -torch.inf
            _forbid_repeats(logits, torch.tensor([written], device=logits.device), settings.no_repeat_ngram)
            token = int(logits.argmax())
        if token == config.end_id:
            return
        written.append(token)
        yield token


class _Search:
    """The search for one batch of sentences. Axes: b sentences still searched for, k beams, r = b k rows."""

    def __init__(self, network: Translator, sources: Sequence[Sequence[int]], settings: BeamSettings) -> None:
        self.network, self.settings, self.config = network, settings, network.config
        self.device = _device(network)
        self.finished: list[list[Hypothesis]] = [[] for _ in sources]
        self.limits = [settings.most_tokens(len(source), self.config.most_tokens) for source in sources]
        self.alive = list(range(len(sources)))  # which sentence each group of the state is
        ids, self.mask_bs = pad_rows(sources, self.config.pad_id, self.device)
        self.state = network.start(network.encode(ids, self.mask_bs), settings.beam, watch=settings.coverage > 0)
        count, beam = len(sources), settings.beam
        self.scores_bk = torch.full((count, beam), -torch.inf, device=self.device)
        self.scores_bk[:, 0] = 0.0  # all beams begin alike: one speaks for them
        self.tokens_bkt = torch.full((count, beam, 1), self.config.start_id, device=self.device)
        self.coverage_rs: Tensor | None = None
        self.never = [one for one in (self.config.pad_id, self.config.start_id) if one != self.config.end_id]

    def run(self, stop: Callable[[], bool]) -> list[list[Hypothesis]]:
        """Search until every sentence is done, or until it is to stop."""
        while self.alive:
            if stop():
                raise SearchStoppedError
            self._step()
        return [kept[: self.settings.n_best] for kept in self.finished]

    def _step(self) -> None:
        """One token more for every hypothesis."""
        beam = self.settings.beam
        values_bc, parents_bc, ids_bc = self._candidates()
        self._cover()
        ends_bc = (ids_bc == self.config.end_id) & (values_bc > -torch.inf)
        self._finish(ends_bc, values_bc, parents_bc)
        running_bc = values_bc.masked_fill(ends_bc, -torch.inf)
        self.scores_bk, places_bk = running_bc.topk(beam, dim=1)
        parents_bk = parents_bc.gather(1, places_bk)
        ids_bk = ids_bc.gather(1, places_bk)
        tokens = self.tokens_bkt.gather(1, parents_bk[..., None].expand(-1, -1, self.tokens_bkt.shape[-1]))
        self.tokens_bkt = torch.cat((tokens, ids_bk[..., None]), dim=-1)
        best = self.scores_bk[:, 0].tolist()
        kept = [group for group in range(len(self.alive)) if not self._done(self.alive[group], best[group])]
        rows_bk = parents_bk + torch.arange(0, parents_bk.numel(), beam, device=self.device)[:, None]
        if len(kept) < len(self.alive):
            self.alive = [self.alive[group] for group in kept]
            index = torch.tensor(kept, dtype=torch.long, device=self.device)
            self.scores_bk, self.tokens_bkt = self.scores_bk[index], self.tokens_bkt[index]
            self.mask_bs, rows_bk = self.mask_bs[index], rows_bk[index]
        if self.alive:
            rows_r = rows_bk.flatten()
            self.state.reorder(rows_r)
            self.coverage_rs = None if self.coverage_rs is None else self.coverage_rs[rows_r]

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations of each sentence, best first: log-probabilities, beams that they continue and tokens, three
        tensors (b, c) with c twice the beam, or fewer where the vocabulary is smaller."""
        groups, beam, written = self.tokens_bkt.shape
        logits_rv = self.network.step(self.tokens_bkt[:, :, -1].flatten(), self.state).float()
        normaliser_r1 = logits_rv.logsumexp(dim=-1, keepdim=True)
        end = self.config.end_id
        logits_rv[:, self.never] = -torch.inf
        _forbid_repeats(logits_rv, self.tokens_bkt[:, :, 1:].flatten(0, 1), self.settings.no_repeat_ngram)
        if any(written >= self.limits[sentence] for sentence in self.alive):
            must_end = torch.tensor([written >= self.limits[sentence] for sentence in self.alive], device=self.device)
            rows = must_end.repeat_interleave(beam).nonzero()[:, 0]
            ends = logits_rv[rows, end]
            logits_rv[rows] = -torch.inf
            logits_rv[rows, end] = ends
        best_rc, ids_rc = logits_rv.topk(min(2 * beam, logits_rv.shape[1]), dim=-1)
        width = best_rc.shape[1]
        best_rc = best_rc - normaliser_r1 + self.scores_bk.view(-1, 1)
        values_bc, places_bc = best_rc.view(groups, -1).topk(min(2 * beam, beam * width), dim=1)
        ids_bc = ids_rc.view(groups, -1).gather(1, places_bc)
        return values_bc, places_bc // width, ids_bc

    def _cover(self) -> None:
        """Add the attention of this step to what each source token has received."""
        attention_rs = self.state.attention_rs
        if attention_rs is not None:
            self.coverage_rs = attention_rs if self.coverage_rs is None else self.coverage_rs + attention_rs

    def _finish(self, ends_bc: Tensor, values_bc: Tensor, parents_bc: Tensor) -> None:
        """Keep the hypotheses that end among the best `beam` candidates; of each sentence's, the best `beam`."""
        beam = self.settings.beam
        places = ends_bc[:, :beam].nonzero()
        if not len(places):
            return
        groups, ranks = places[:, 0], places[:, 1]
        parents = parents_bc[groups, ranks]
        coverage = self._coverage_penalty(groups, parents)
        written = self.tokens_bkt[groups, parents, 1:].tolist()
        log_probabilities = values_bc[groups, ranks].tolist()
        touched = set()
        for group, ids, total, extra in zip(groups.tolist(), written, log_probabilities, coverage, strict=True):
            score = total / self.settings.penalty(len(ids) + 1) + extra
            self.finished[self.alive[group]].append(Hypothesis(tuple(ids), score, total))
            touched.add(self.alive[group])
        for sentence in touched:
            self.finished[sentence].sort(key=lambda one: one.score, reverse=True)
            del self.finished[sentence][beam:]

    def _coverage_penalty(self, groups: Tensor, parents: Tensor) -> list[float]:
        """beta sum_i log(min(sum_j p_ij, 1)) (Wu et al. 2016, equation 14) of some hypotheses, over the real tokens."""
        if self.coverage_rs is None:
            return [0.0] * len(groups)
        received = self.coverage_rs[groups * self.settings.beam + parents].clamp(LEAST_ATTENTION, 1.0).log()
        sums = (received * self.mask_bs[groups]).sum(dim=1) * self.settings.coverage
        return [float(one) for one in sums.tolist()]

    def _done(self, sentence: int, best_running: float) -> bool:
        """Whether nothing that still runs may change the result. best_running: log-probability of the best running one."""
        if best_running == -torch.inf:
            return True
        settings, kept = self.settings, self.finished[sentence]
        if settings.stopping == "exact":  # a log-probability only falls, so this is the best that it can become
            bound = best_running / settings.penalty(self.limits[sentence])
            return len(kept) >= settings.n_best and bound <= kept[settings.n_best - 1].score
        if len(kept) < settings.beam:
            return False
        now = best_running / settings.penalty(self.tokens_bkt.shape[-1] - 1)
        return settings.stopping == "full" or now <= kept[-1].score


def _forbid_repeats(logits_rv: Tensor, written_rt: Tensor, size: int) -> None:
    """Take out, in place, every token that would complete an n-gram of `size` tokens for the second time in its row."""
    written = written_rt.shape[1]
    if not size or written < size:
        return
    grams = written_rt.unfold(1, size, 1)  # (r, t - n + 1, n)
    last = written_rt[:, written - size + 1 :]
    rows, places = (grams[..., :-1] == last[:, None]).all(dim=-1).nonzero(as_tuple=True)
    logits_rv[rows, grams[rows, places, -1]] = -torch.inf


def _device(network: Translator) -> torch.device:
    return next(iter(network.parameters())).device
