"""Duihua in the race: the pre-training stage's own parts (loader, network, loss, trainer) with a horizon in time.

The stage fixes its steps so that it can be repeated bit by bit; in the race the clock decides, so the trainer here asks for
the number of steps anew behind each step, as the drivers of the peers do. No checkpoint falls into the time: the peers write
none either. `--prepare` trains the tokenizer and tokenises the text before the clock.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from race.pace import FAR, Pace


def configs(settings: Path) -> tuple[Any, Any, list[str]]:
    """TokenizerConfig, PretrainConfig and the names of ideas (race/ideas.py) of a file with the keys `tokenizer`, `pretrain`
    and perhaps `ideas`."""
    from duihua.config import build
    from duihua.stages.configs.pretrain import PretrainConfig
    from duihua.stages.configs.tokenizer import TokenizerConfig

    given = json.loads(settings.read_text(encoding="utf-8"))
    tokenizer, pretrain = build(TokenizerConfig, given["tokenizer"], "tokenizer"), given["pretrain"]
    return tokenizer, build(PretrainConfig, pretrain, "pretrain"), given.get("ideas", [])


def prepare(given: argparse.Namespace) -> None:
    """The tokenizer (in --tokenizer, once) and the shards of its tokens (in the data directory)."""
    from duihua.data.source import open_source
    from duihua.stages import tokenizer as stage
    from duihua.stages.context import StageContext
    from duihua.stages.pretrain import token_shards
    from duihua.text.tokenizer import Tokenizer

    tokenizer_config, config, _ = configs(given.settings)
    if not (given.tokenizer / "result.json").exists():
        stage.run(tokenizer_config, StageContext(given.tokenizer, {}, given.data, "cpu", 1, given.threads))
    sources = [open_source(source, given.data) for source in config.sources]
    token_shards(sources, config.sources, Tokenizer.load(given.tokenizer), given.data)


def train(given: argparse.Namespace) -> None:
    """Train to the end of the time, then score."""
    from duihua.data.loaders import StreamedBatches
    from duihua.data.source import open_source
    from duihua.models.decoder import parameter_count
    from duihua.stages.execution import settled
    from duihua.stages.first_weights import fresh_network
    from duihua.stages.pretrain import language_model_loss, token_shards
    from duihua.text.tokenizer import Tokenizer
    from duihua.training.allocator import keep_freed_memory
    from duihua.training.trainer import Trainer
    from race.driver import finish
    from race.ideas import hooks_of

    hooks: list[Callable[[], None]] = []
    if given.clock == "processor":
        pace = Pace(given.seconds, 0.0, lambda: time.process_time() / given.threads)
    else:
        pace = Pace(given.seconds, given.started)

    class Paced(Trainer):
        """The trainer, with its last step where the time ends."""

        def step(self) -> dict[str, float]:
            for hook in hooks:
                hook()
            shown = super().step()
            self.steps = max(pace.finished_step(), self.step_number)
            return shown

    _, config, ideas = configs(given.settings)
    keep_freed_memory()
    tokenizer = Tokenizer.load(given.tokenizer)
    sources = [open_source(source, given.data) for source in config.sources]
    with settled("cpu", given.threads, given.seed), tempfile.TemporaryDirectory() as folder:
        shards, repeats = token_shards(sources, config.sources, tokenizer, given.data)
        shape = config.shape.decoder(tokenizer.vocabulary_size, config.length)
        trainer = Paced(
            fresh_network(config, shape, shards, repeats, given.seed)[0],
            language_model_loss,
            StreamedBatches(
                shards,
                repeats,
                config.rows,
                config.length,
                config.micro_batches,
                given.seed,
                tokenizer.end_of_text_id,
                config.mask_documents,
            ),
            steps=FAR,
            optimizer=config.optimizer,
            schedule=config.schedule,
            config=config.trainer,
            directory=Path(folder),
            seed=given.seed,
            label="race",
        )
        hooks += hooks_of(ideas, trainer)
        trained = trainer.run()
        network = trainer.network.eval()
        finish(
            given,
            pace,
            tokens=trained.tokens,
            parameters=parameter_count(network),
            encode=tokenizer.encode,
            token_bytes=tokenizer.token_bytes,
            separator=tokenizer.end_of_text_id,
            context=config.length,
            log_probabilities=lambda ids: network(ids).float().log_softmax(dim=-1),
            vocabulary=tokenizer.vocabulary_size,
            skipped_steps=trained.skipped_steps,
        )


def main() -> None:
    if "--prepare" in sys.argv:
        parser = argparse.ArgumentParser(description="Train Duihua's tokenizer and tokenise its text.")
        parser.add_argument("--prepare", action="store_true")
        parser.add_argument("--threads", type=int, required=True)
    else:
        from race.driver import arguments

        parser = arguments((__doc__ or "").splitlines()[0])
        parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    for name in ("--settings", "--tokenizer", "--data"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    prepare(given) if "--prepare" in sys.argv else train(given)


if __name__ == "__main__":
    main()
