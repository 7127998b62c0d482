"""From a store that the API has written to a promoted version that the server serves: `duihua feedback` as a person uses it.

Models are tiny and random, and what people prefer is easy to see. What is held here is the way, not how much is learnt,
which the alignment stages hold for themselves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from duihua.cli.main import main
from duihua.engine.chat_model import ChatModel
from duihua.errors import ConfigError, DataError
from duihua.files import read_json, write_json
from duihua.models.versions import read_versions
from duihua.report import feedback, feedback_request
from duihua.report.promotion import promote, why_not
from duihua.stages import blind_comparison, dpo

ASKED = 64
QUICK = [
    "--prompts", "10", "--replies", "1", "--threads", "1", "--set", "judge.epochs=2", "--set", "judge.normalisation_samples=8",
    "--set", "judge.verification_samples=8", "--set", "judge.reply_tokens=8",
]  # fmt: skip
DPO = [*QUICK, "--set", "dpo.epochs=2", "--set", "dpo.reply_tokens=8", "--set", "dpo.optimizer.learning_rate=0.003"]


@pytest.fixture(scope="module")
def written(serve: Callable[..., Any], scripted: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store into which a server has written: questions, two versions of each reply, a vote on both."""
    folder = tmp_path_factory.mktemp("page")
    said = iter(word for number in range(ASKED) for word in (f"fine {number}", f"BAD {number}"))
    model = scripted(script=lambda text: next(said))
    with serve(folder, lambda: model) as running, httpx.Client(base_url=f"{running.address}/api", timeout=20) as api:
        for number in range(ASKED):
            conversation = api.post("/conversations", json={}).json()["id"]
            at = f"/conversations/{conversation}"
            asked = api.post(f"{at}/messages", json={"content": f"hello {number}"}).json()["id"]
            for vote in (1, -1):
                answer = api.post(f"{at}/replies", json={"parent_id": asked, "model": "scripted"}).text
                done = json.loads(answer.strip().rpartition("data: ")[2])["message"]
                api.put(f"{at}/messages/{done['id']}/judgement", json={"vote": vote}).raise_for_status()
    return folder / "conversations.sqlite3"


@pytest.fixture(scope="module")
def made(written: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after one `train`, not promoted."""
    folder = tmp_path_factory.mktemp("made") / "feedback"
    assert main(["feedback", "train", str(written), "--bundle", str(tiny_bundle), "--output", str(folder), *DPO]) == 0
    return folder


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "feedback", ignore=shutil.ignore_patterns(".lock")))


def with_low(output: Path, low: float) -> None:
    """Write another lower end of the win rate into the record: what gates look at."""
    stored = read_json(output / "versions.json")
    stored["versions"][1]["comparison"]["win_rate"]["low"] = low
    write_json(output / "versions.json", stored)


def test_one_command_goes_from_votes_to_a_version_that_was_compared_blind(made: Path) -> None:
    versions = read_versions(made)
    assert [version.name for version in versions.versions] == ["v0", "v1"]
    assert versions.promoted == "v0", "nobody has said so, and no gate was stated"
    facts = versions.get("v1").facts
    rate = facts["comparison"]["win_rate"]
    assert rate["n"] == 10 and rate["wins"] + rate["ties"] + rate["losses"] == 10
    assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
    assert facts["comparison"]["against"] == "v0"
    assert facts["comparison"]["judge"]["accuracy"]["n"] == facts["pairs"]["heldout"] > 0
    told = read_json(made / "v1-comparison" / "comparison.json")
    assert {"length", "eos_rate", "repetition_rate", "samples"} <= set(told)
    assert (made / "v1" / "report.html").is_file()
    learnt, judged, held = (
        {json.loads(line)["prompt"][-1]["content"] for line in (made / "v1-data" / f"pairs-{part}.jsonl").open()}
        for part in ("learn", "judge", "heldout")
    )
    assert not learnt & judged and not (learnt | judged) & held
    assert len(learnt | judged | held) == ASKED
    used = read_json(made / "v1" / "dpo" / "result.json")["metrics"]["pairs"]["train"]["human"]
    of_judge = read_json(made / "v1-judge" / "judge" / "result.json")["metrics"]["pairs"]["train"]["human"]
    assert (used, of_judge) == (len(learnt), len(judged)), "no pair of either was lost on the way"


def test_who_is_promoted_is_served_first_and_the_old_one_can_be_chosen(
    output: Path, serve_run: Callable[..., AbstractContextManager[Any]], tmp_path: Path, tiny_bundle: Path
) -> None:
    def served(folder: Path) -> tuple[list[str], str]:
        with serve_run(output, folder) as running:
            models = httpx.get(f"{running.address}/v1/models").json()["data"]
            return [model["id"] for model in models], httpx.get(f"{running.address}/api/status").json()["default_model"]

    assert served(tmp_path / "before") == (["v1", "v0"], "v0")
    assert main(["feedback", "promote", str(output), "v1"]) == 0
    assert served(tmp_path / "after") == (["v0", "v1"], "v1")
    assert ChatModel.load(output).directory == output / "v1" / "dpo"
    assert ChatModel.load(output / "v0").directory.resolve() == tiny_bundle.resolve()
    assert main(["feedback", "promote", str(output), "v0"]) == 0
    assert [one["version"] for one in read_versions(output).promotions] == ["v1", "v0"]


@pytest.mark.parametrize(("low", "code", "promoted"), [(0.56, 0, "v1"), (0.55, 1, "v0"), (0.3, 1, "v0")])
def test_a_gate_promotes_only_above_itself(
    output: Path, low: float, code: int, promoted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with_low(output, low)
    assert main(["feedback", "promote", str(output), "v1", "--gate", "0.55"]) == code
    assert read_versions(output).promoted == promoted
    assert ("not above the gate of 0.55" in capsys.readouterr().err) == bool(code)


def test_a_gate_says_nothing_of_a_comparison_with_another_version(output: Path) -> None:
    with_low(output, 0.9)
    promote(output, "v1")
    versions, refused = promote(output, "v0", gate=0.5)
    assert "has not been compared" in refused and versions.promoted == "v1"
    stored = read_json(output / "versions.json")
    stored["versions"].append({**stored["versions"][1], "name": "v2"})
    write_json(output / "versions.json", stored)
    assert "compared with v0, and v1 is promoted" in why_not(
        read_versions(output), read_versions(output).get("v2"), 0.5
    )


def test_the_same_again_makes_nothing_and_the_stated_gate_is_asked_once_more(
    output: Path, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["feedback", "train", str(written), "--output", str(output), *DPO]
    with_low(output, 0.7)
    for more, promoted in (([], "v0"), (["--gate", "0.5"], "v1")):
        assert main([*command, *more, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["new"], said["version"], said["promoted"]) == (False, "v1", promoted)
    assert read_versions(output).promotions[0]["by"] == "gate"


@contextmanager
def stopped(owner: Any, name: str, call: int) -> Any:
    """Ctrl-C at the given call of a function."""
    right, calls = getattr(owner, name), 0

    def stop(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return right(*arguments, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, stop)
        yield


def test_what_was_stopped_goes_on_with_the_pairs_of_its_beginning_and_ends_the_same(
    made: Path, written: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, output = tmp_path / "store.sqlite3", tmp_path / "feedback"
    shutil.copy(written, store)
    command = ["feedback", "train", str(store), "--bundle", str(tiny_bundle), "--output", str(output), *DPO]
    with stopped(dpo, "preference_loss", 2):
        assert main(command) == 130
    assert "Go on with the same command" in capsys.readouterr().out
    assert read_versions(output).get("v1").bundle is None
    store.unlink()  # the conversations may be gone by now
    with stopped(blind_comparison, "blind_verdicts", 1):
        assert main(command) == 130
    assert main(command) == 0
    assert "Going on with v1" in capsys.readouterr().out
    for weights in ("v1/dpo/model.safetensors", "v1-judge/judge/model.safetensors"):
        assert (output / weights).read_bytes() == (made / weights).read_bytes()
    assert read_versions(output).get("v1").facts["comparison"]["win_rate"]["n"] == 10


def test_ppo_learns_a_reward_of_its_own_and_is_judged_by_another(
    written: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "feedback"
    quick = ["ppo.iterations=1", "ppo.rollout_prompts=8", "ppo.epochs=1", "ppo.minibatches=1", "ppo.reply_tokens=8"]
    quick += [
        "reward.epochs=1",
        "reward.normalisation_samples=8",
        "reward.verification_samples=8",
        "reward.reply_tokens=8",
    ]
    quick += ["ppo.train_prompts=16", "ppo.heldout_prompts=4"]
    words = ["--method", "ppo", "--bundle", str(tiny_bundle), "--output", str(output), *QUICK]
    assert main(["feedback", "train", str(written), *words, *(word for one in quick for word in ("--set", one))]) == 0
    assert read_versions(output).get("v1").bundle == output / "v1" / "ppo"
    reward, judge = output / "v1" / "reward" / "settings.json", output / "v1-judge" / "judge" / "settings.json"
    read = [Path(read_json(one)["preferences"][0]["path"]).name for one in (reward, judge)]
    assert read == ["pairs-learn.jsonl", "pairs-judge.jsonl"]
    rate = read_versions(output).get("v1").facts["comparison"]["win_rate"]
    assert rate["n"] == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which model the votes are about"),
        (["--bundle", "NONE"], "no such folder"),
        (["--bundle", "BUNDLE", "--gate", "55"], "must be a share of wins"),
        (["--bundle", "BUNDLE", "--set", "dpo.betta=1"], "The nearest known name is 'beta'"),
        (["--bundle", "BUNDLE", "--set", "ppo.clip=1"], "there is no stage 'ppo'"),
        (["--bundle", "BUNDLE", "--judge", "BUNDLE"], "this model has no score"),
        (["--bundle", "BUNDLE", "--set", "dpo.prompt_tokens=200"], "need a context of"),
        (["--bundle", "BUNDLE", "--replies", "0"], "must be at least 1"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_trained(
    written: Path, tiny_bundle: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"BUNDLE": str(tiny_bundle), "NONE": str(tmp_path / "none")}
    output = tmp_path / "feedback"
    given = [places.get(word, word) for word in words]
    assert main(["feedback", "train", str(written), "--output", str(output), *given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(output.glob("v*")), "nothing was begun"


def test_bad_stores_are_one_line(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from duihua.serving.conversations import ConversationStore

    empty = tmp_path / "empty.sqlite3"
    few = tmp_path / "few.sqlite3"
    ConversationStore(f"sqlite:///{empty}").close()
    store = ConversationStore(f"sqlite:///{few}")
    conversation = store.create().id
    asked = store.add(conversation, parent_id=None, role="user", content="hi").id
    reply = store.add(conversation, parent_id=asked, role="assistant", content="no")
    store.judge(conversation, reply.id, vote=-1, correction="yes")
    broken = tmp_path / "broken.sqlite3"
    broken.write_text("no database")
    for path, said in (
        (tmp_path / "none.sqlite3", "no such file"),
        (broken, "is no store of conversations"),
        (empty, "holds no vote and no correction"),
        (few, "too few pairs, 1 in all"),
    ):
        words = ["feedback", "train", str(path), "--bundle", str(tiny_bundle), "--output", str(tmp_path / "out")]
        assert main(words) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert main(["feedback", "show", str(few), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["pairs"] == 1
    assert any(line.endswith("pairs to learn from, 16 are needed") for line in shown["short_of"])
    assert main(["feedback", "show", str(few)]) == 0
    assert "Not enough for a training yet: " in capsys.readouterr().out


def test_a_folder_with_other_things_or_another_model_is_refused(
    output: Path, written: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"holds other things than versions, such as 'letter\.txt'"):
        feedback_request.check_folder(other)
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    assert main(["feedback", "train", str(written), "--bundle", str(copy), "--output", str(output)]) == 2
    shutil.rmtree(output / "v1-data")
    stored = read_json(output / "versions.json")
    stored["versions"][1]["bundle"] = None
    write_json(output / "versions.json", stored)
    with pytest.raises(DataError, match="the pairs of this version are gone"):
        feedback.train(feedback_request.Request(store=written, output=output, data_directory=tmp_path, threads=1))
