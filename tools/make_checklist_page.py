"""Write docs/alignment/checklist.md and its Chinese twin: every row of the alignment checklist, its tests and its mutations.

    python -m pytest -m checklist                                   # runs the rows, writes checklist.json
    python tools/make_checklist_page.py [checklist.json]            # writes both pages from it
    python tools/make_checklist_page.py --declared                  # the same from the marks in the tests, without running
    python tools/make_checklist_page.py --declared --check          # writes nothing; fails where a page is not up to date

Why from a run: a page that says which test holds what is only worth reading when the test did hold it. So a run of all rows
compares the pages with the checklist.json that it wrote, and fails where they differ (tests/checklist_plugin.py). The marks
should say the same without running anything, which is how a quick test sees that the pages are up to date.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

Language = Literal["en", "zh"]
ROOT = Path(__file__).parent.parent
PAGES: dict[Language, Path] = {
    "en": ROOT / "docs" / "alignment" / "checklist.md",
    "zh": ROOT / "docs" / "alignment" / "checklist.zh.md",
}


class Detail(NamedTuple):
    """A row in words."""

    en: str
    zh: str


DETAILS: tuple[Detail, ...] = (
    Detail(
        "Four roles: the policy and the critic are trained; the reference (the SFT model) and the reward model stand still",
        "四个角色：策略和评论家被训练；参考模型（SFT 模型）和奖励模型保持不动",
    ),
    Detail(
        "The reward model's trunk starts from the SFT bundle and learns by the same family of optimizer and rates",
        "奖励模型的主干从 SFT 模型出发，用同一类优化器和学习率训练",
    ),
    Detail(
        "The reward head starts from N(0, 1/(d+1)) and has no bias: the stored normalisation carries the offset",
        "奖励头从 N(0, 1/(d+1)) 出发且没有偏置：偏移由保存的归一化承担",
    ),
    Detail(
        "A critic of its own starts as the normalised reward model; a head on the shared trunk starts at zero",
        "独立的评论家从归一化后的奖励模型出发；共享主干上的价值头从零出发",
    ),
    Detail(
        "Bradley-Terry loss -log sigmoid(r_c - r_r), one epoch; margin and centering optional",
        "Bradley-Terry 损失 -log sigmoid(r_c - r_r)，一轮；间隔和居中可选",
    ),
    Detail("The reward is read at the last real token, the stop token", "奖励在最后一个真实词元（停止词元）处读取"),
    Detail(
        "The reward has mean 0 and deviation 1 on replies of the reference policy; stored, and checked on other replies",
        "奖励在参考策略的回复上均值为 0、标准差为 1；随模型保存，并在另一批回复上核对",
    ),
    Detail(
        "The pad token is not the stop token, and the stop token is learnt", "填充词元不是停止词元，停止词元要被学习"
    ),
    Detail("Places are counted without the pads on the left", "位置从真实词元数起，不计左侧填充"),
    Detail(
        "Replies have a fixed greatest length and end at their stop token", "回复有固定的最大长度，在停止词元处结束"
    ),
    Detail(
        "A reply that did not end is penalised; only the reply is looked at, not the prompt",
        "未结束的回复受罚；只看回复，不看提示",
    ),
    Detail(
        "The KL penalty is -beta (log pi - log pi_ref) on every token (k1)",
        "KL 惩罚在每个词元上为 -beta (log pi - log pi_ref)（k1）",
    ),
    Detail(
        "The KL coefficient is fixed, or steered to a target with the error clipped to 0.2",
        "KL 系数固定，或朝目标调节，误差截断在 0.2 以内",
    ),
    Detail("The score stands on the last generated token", "得分放在最后生成的词元上"),
    Detail("Generalised advantage estimation, gamma 1, lambda 0.95", "广义优势估计，gamma 为 1，lambda 为 0.95"),
    Detail("Rewards may be whitened; their mean is not shifted", "奖励可以白化；均值不移动"),
    Detail(
        "Advantages are whitened over the reply tokens of the whole rollout and of all ranks",
        "优势在整批、所有进程的回复词元上白化",
    ),
    Detail(
        "Clip 0.2, four epochs, each in a fresh order; the first ratio is exactly 1",
        "截断 0.2，四轮，每轮重新打乱；第一次的比值恰为 1",
    ),
    Detail("Value clip 0.2, coefficient 0.1", "价值截断 0.2，系数 0.1"),
    Detail(
        "The temperature divides every logit, in the sampler and in the trainer alike",
        "采样和训练中每个对数几率都除以同一温度",
    ),
    Detail("No top-k, no top-p, no repetition penalty in rollouts", "采样回复时不用 top-k、top-p 和重复惩罚"),
    Detail("Dropout is off in all four networks", "四个网络都关闭 dropout"),
    Detail("Adam's epsilon is 1e-5", "Adam 的 epsilon 为 1e-5"),
    Detail("The learning rate falls linearly to 0", "学习率线性降到 0"),
    Detail(
        "A rollout is given up early when the policy has moved too far, on all ranks alike",
        "策略偏离过远时提前放弃这批回复，所有进程一致",
    ),
    Detail("The loss is a mean over the tokens of the global batch", "损失是全局批次所有词元的平均"),
    Detail(
        "Logged: entropy, KL, ratio, clip fraction, explained variance, EOS rate, length, score, gold score, repetition",
        "记录：熵、KL、比值、截断比例、解释方差、结束率、长度、得分、真实得分、重复",
    ),
    Detail(
        "A sample's random numbers are a hash of run seed, iteration, prompt and sample",
        "每个样本的随机数由运行种子、迭代、提示和样本序号的哈希决定",
    ),
    Detail(
        "The reward model is probed: length, repeated text, off-topic, word salad, copy of the prompt",
        "奖励模型的探针：长度、重复文本、离题、词语打乱、复述提示",
    ),
    Detail("Sampled text is printed with score, KL and total", "打印采样文本及其得分、KL 和总分"),
)

WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "other": "[中文](checklist.zh.md) · [The whole way](README.md)",
        "title": "# The alignment checklist",
        "about": "Preference training has thirty details that are easily wrong and still seem to work. Each row below names "
        "the tests that hold one of them, with numbers that can be checked by hand, and at least one mutation: the detail "
        "turned off or made wrong in the running code, which the named tests then reject. `python -m pytest -m checklist` "
        "runs all of it, prints the table and writes `checklist.json`, from which `python tools/make_checklist_page.py` "
        "makes this page; a run of all tests fails where the page says something else. The sources of each detail are named "
        "where it is computed, mostly in "
        "`src/duihua/stages/ppo_math.py`, `rollout.py` and `reward.py`.",
        "head": "| row | detail | tests | mutation that is rejected |",
        "by": "rejected by",
        "mark": "`tests/checklist_plugin.py` says how a test is marked and how a mutation is applied.",
    },
    "zh": {
        "other": "[English](checklist.md) · [整条路](README.zh.md)",
        "title": "# 对齐检查表",
        "about": "偏好训练有三十个细节，做错了往往看起来仍然正常。下表每一行列出守住其中一个细节的"
        "测试（数字可以手算核对），以及至少一个变异："
        "在运行的代码里把这个细节关掉或改错，所列测试必须拒绝它。`python -m pytest -m checklist` 运行全部内容，打印表格并写出 "
        "`checklist.json`，`python tools/make_checklist_page.py` 再由它生成本页；运行全部测试时，本页与结果不符即失败。"
        "每个细节的出处写在计算它的代码旁，主要在 "
        "`src/duihua/stages/ppo_math.py`、`rollout.py` 和 `reward.py`。",
        "head": "| 行 | 细节 | 测试 | 被拒绝的变异 |",
        "by": "拒绝者",
        "mark": "测试如何标记、变异如何施加，见 `tests/checklist_plugin.py`。变异的名称与测试代码一致，为英文。",
    },
}


def declared(folder: Path) -> list[dict[str, Any]]:
    """The rows as the marks in the tests below `folder` say, in the form of checklist.json."""
    rows: dict[int, dict[str, Any]] = {
        number: {"number": number, "tests": [], "mutation": [], "rejected_by": []}
        for number in range(1, len(DETAILS) + 1)
    }
    for file in sorted(folder.rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "mark.checklist" not in text:
            continue
        name = file.relative_to(folder.parent).as_posix()
        for node in ast.parse(text).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            test = f"{name}::{node.name}"
            mutations = [str(call.args[0].value) for call in _marks(node, "mutation") if _constant(call.args[0])]
            for call in _marks(node, "checklist"):
                for argument in call.args:
                    assert isinstance(argument, ast.Constant) and isinstance(argument.value, int), test
                    row = rows[argument.value]
                    row["tests"].append(test)
                    row["mutation"] += [what for what in reversed(mutations) if what not in row["mutation"]]
                    row["rejected_by"] += [test] if mutations else []
    return [{**row, "mutation": "; ".join(row["mutation"])} for row in rows.values()]


def _marks(node: ast.FunctionDef, name: str) -> Iterator[ast.Call]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{name}":
            yield decorator


def _constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def page(rows: Sequence[dict[str, Any]], language: Language) -> str:
    """A page as text. rows: as in checklist.json."""
    words = WORDS[language]
    lines = [words["title"], "", words["other"], "", words["about"], "", words["head"], "|---|---|---|---|"]
    for row, detail in zip(rows, DETAILS, strict=True):
        tests = "<br>".join(f"`{test.rpartition('::')[2]}`" for test in sorted(row["tests"]))
        by = ", ".join(f"`{test.rpartition('::')[2]}`" for test in sorted(row["rejected_by"]))
        what = getattr(detail, language)
        mutations = "; ".join(sorted(row["mutation"].split("; ")))
        lines.append(f"| {row['number']} | {what} | {tests} | {mutations} ({words['by']}: {by}) |")
    files = sorted({test.partition("::")[0] for row in rows for test in row["tests"]})
    lines += ["", words["mark"], "", ", ".join(f"`{file}`" for file in files), ""]
    return "\n".join(lines)


def differences(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Where the pages as they are say otherwise than the rows of a run: a line for each line of a page; none, if nowhere."""
    found: list[str] = []
    for language, path in PAGES.items():
        name = path.relative_to(ROOT).as_posix()
        if not path.is_file():
            found.append(f"{name} does not exist")
            continue
        wanted, there = page(rows, language).splitlines(), path.read_text(encoding="utf-8").splitlines()
        for number, (run, said) in enumerate(zip_longest(wanted, there, fillvalue=""), start=1):
            if run != said:
                found.append(f"{name}:{number} is not what the run found: {_apart(run, said)}")
    return found


def _apart(run: str, said: str) -> str:
    """What stands in one line of a page and not in the other, by the tests and mutations that a line lists."""
    new, old = ({part.strip() for part in re.split(r"<br>|; |, |: |[()|]", line)} for line in (run, said))
    parts = [f"{what} {', '.join(sorted(of))}" for what, of in (("lacks", new - old), ("has", old - new)) if of]
    return "; ".join(parts) or "another order or spacing"


def main(argv: Sequence[str]) -> int:
    """Write the pages, or compare them; 1 where one is not up to date."""
    parser = argparse.ArgumentParser(description="Write docs/alignment/checklist.md and its Chinese twin.")
    parser.add_argument(
        "file", nargs="?", default=str(ROOT / "checklist.json"), help="what `pytest -m checklist` wrote"
    )
    parser.add_argument("--declared", action="store_true", help="read the marks in the tests instead of a run's file")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where a page is not up to date"
    )
    arguments = parser.parse_args(list(argv))
    if arguments.declared:
        rows = declared(ROOT / "tests")
    else:
        rows = json.loads(Path(arguments.file).read_text(encoding="utf-8"))
    if arguments.check:
        found = differences(rows)
        for line in found:
            print(line, file=sys.stderr)
        if found:
            print("Write them anew: python tools/make_checklist_page.py", file=sys.stderr)
        return int(bool(found))
    for language, path in PAGES.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(rows, language), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
