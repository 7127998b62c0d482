"""A small tokenizer of ours, trained once for the tests of this folder."""

from __future__ import annotations

import pytest

from duihua.text.tokenizer import Tokenizer

SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "How are you today? I'm fine, thank you; what's the weather like where you are?",
    "In 1998 there were 1234 people in the village, and they'd all known each other for years.",
    "A language model assigns a probability to every sequence of tokens in its vocabulary.",
    "今天天气很好，我们一起去公园散步吧。你觉得怎么样？",
    "语言模型给每一个词的序列一个概率，这个概率是从数据里学到的。",
    "你好，世界！我是一个小模型，很高兴认识你。",
    "中华人民共和国的一切权力属于人民。人民是国家的主人。",
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([sentence for sentence in SENTENCES for _ in range(4)], 600)
