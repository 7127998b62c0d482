"""What the chat in the terminal says, in English and Chinese."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

Language = Literal["en", "zh"]

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "help": ("/help", "/帮助"),
    "system": ("/system", "/系统"),
    "temperature": ("/temperature", "/温度"),
    "retry": ("/retry", "/重答"),
    "reset": ("/reset", "/重来"),
    "save": ("/save", "/保存"),
    "exit": ("/exit", "/quit", "/退出"),
}
"""Each command with its names; the first is English, the last Chinese."""

TEXTS: Mapping[str, tuple[str, str]] = {
    "you": ("you> ", "你> "),
    "model": ("model> ", "模型> "),
    "banner": (
        "{name}{stage}: {parameters} parameters, context of {context} tokens, replies of up to {reply}",
        "{name}{stage}：参数量 {parameters}，上下文 {context} 个词元，回复最多 {reply} 个词元",
    ),
    "stage": (" ({stage})", "（{stage}）"),
    "base": (
        "This model was not taught to converse; it goes on with the text. A model of stage sft or ppo replies better.",
        "此模型没有学过对话，只会续写文本。sft 或 ppo 阶段的模型回答更好。",
    ),
    "limits": (
        "It has learnt from {sources}; beyond that so small a model babbles. Do not trust its facts.",
        "它从 {sources} 学习过；这么小的模型，超出这些就是胡言乱语。请不要相信它说的事实。",
    ),
    "try": ("Something to begin with: {prompts}", "可以这样开始：{prompts}"),
    "hint": (
        "/help lists the commands; Ctrl-C stops a reply, Ctrl-D leaves.",
        "/帮助 列出命令；Ctrl-C 停止回复，Ctrl-D 退出。",
    ),
    "help": (
        "/help               these lines\n"
        "/system [TEXT]      set the system message and start anew; without text show it; - removes it\n"
        "/temperature [X]    how wild the replies are: 0 always the likeliest, 1 as learned\n"
        "/retry              another reply to the last message\n"
        "/reset              forget the conversation\n"
        "/save FILE          save it: .jsonl adds a line of training data, .json or .md makes a new file\n"
        "/exit               leave\n"
        "A line that ends with \\ goes on in the next; //text sends a message that begins with a slash.",
        "/帮助               这些说明\n"
        "/系统 [文字]        设定系统消息并重新开始；不带文字则显示，- 则删除\n"
        "/温度 [数]          回复的随意程度：0 总取最可能的词，1 为学到的分布\n"
        "/重答               对上一条消息再答一次\n"
        "/重来               忘掉本次对话\n"
        "/保存 文件          .jsonl 追加一行训练数据，.json 或 .md 写成新文件\n"
        "/退出               退出\n"
        "英文命令（/help、/system、/exit 等）同样可用。\n"
        "行末的 \\ 表示下一行继续；以斜杠开头的消息写作 //文字。",
    ),
    "system_is": ("system: {text}", "系统消息：{text}"),
    "system_none": ("There is no system message.", "没有系统消息。"),
    "system_set": (
        "The system message is set, the conversation starts anew.",
        "已设定系统消息，对话重新开始。",
    ),
    "system_removed": (
        "The system message is removed, the conversation starts anew.",
        "已删除系统消息，对话重新开始。",
    ),
    "temperature_is": ("temperature {value:g}", "温度 {value:g}"),
    "temperature_wrong": ("{text!r} is no temperature; try /temperature 0.8", "{text!r} 不是温度；可试 /温度 0.8"),
    "reset": ("The conversation is forgotten.", "已忘掉本次对话。"),
    "nothing": ("There is nothing yet.", "还没有内容。"),
    "save_where": ("Name a file: /save conversation.jsonl", "请写文件名：/保存 对话.jsonl"),
    "saved": ("Saved to {path}.", "已存入 {path}。"),
    "exists": ("{path} exists already; name another file.", "{path} 已存在，请换一个文件名。"),
    "unknown": ("There is no command {name}; {remedy}", "没有命令 {name}；{remedy}"),
    "nearest": ("did you mean {name}?", "是不是 {name}？"),
    "see_help": ("/help lists them.", "/帮助 列出全部命令。"),
    "stopped": ("stopped", "已停止"),
    "length": ("cut off at the limit", "到达上限而截断"),
    "speed": (
        "{tokens} tokens, {rate:.1f} tokens/s, first after {first:.2f} s",
        "{tokens} 个词元，{rate:.1f} 词元/秒，首个用时 {first:.2f} 秒",
    ),
    "dropped": (
        "turns left out, as the context is full: the oldest {count}",
        "上下文已满，略去最早的 {count} 轮",
    ),
    "again": ("Ctrl-D or /exit leaves.", "Ctrl-D 或 /退出 可退出。"),
    "bye": ("Goodbye.", "再见。"),
}
"""Name to the English and the Chinese text."""


def language_of_locale(environment: Mapping[str, str] | None = None) -> Language:
    """zh when the locale's messages are Chinese, en otherwise."""
    environment = os.environ if environment is None else environment
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environment.get(name):
            return "zh" if environment[name].lower().startswith("zh") else "en"
    return "en"


def text(key: str, language: Language, /, **values: object) -> str:
    """A text by its name, filled in."""
    return TEXTS[key][language == "zh"].format(**values)
