"""Writes the bundled tiny sample (src/duihua/data/tiny/): `python tools/make_tiny_data.py`.

Why our own text: tests and recipes/tiny.yaml must run without network, and its terms must be beyond doubt (CC0). Why
templates: a model of a few hundred thousand parameters learns them in seconds, so a test can tell learning from none.
The same seed writes the same bytes.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "src" / "duihua" / "data" / "tiny"

COLOURS = [
    ("red", "红色"),
    ("green", "绿色"),
    ("blue", "蓝色"),
    ("yellow", "黄色"),
    ("white", "白色"),
    ("black", "黑色"),
]
THINGS = [
    ("the apple", "苹果", 0), ("the leaf", "树叶", 1), ("the sky", "天空", 2), ("the sea", "大海", 2),
    ("the banana", "香蕉", 3), ("the snow", "雪", 4), ("the night", "夜晚", 5), ("the grass", "草地", 1),
    ("the milk", "牛奶", 4), ("the lemon", "柠檬", 3), ("the tomato", "西红柿", 0), ("the coal", "煤", 5),
]  # fmt: skip
ANIMALS = [
    ("cat", "猫", "fish", "鱼", "says meow", "喵喵叫"), ("dog", "狗", "bones", "骨头", "barks", "汪汪叫"),
    ("cow", "牛", "grass", "草", "says moo", "哞哞叫"), ("duck", "鸭子", "seeds", "种子", "quacks", "嘎嘎叫"),
    ("sheep", "羊", "leaves", "树叶", "bleats", "咩咩叫"), ("bird", "小鸟", "worms", "虫子", "sings", "唱歌"),
    ("horse", "马", "hay", "干草", "neighs", "嘶叫"), ("frog", "青蛙", "flies", "苍蝇", "croaks", "呱呱叫"),
]  # fmt: skip
CITIES = [
    ("Beijing", "北京", "China", "中国"), ("Shanghai", "上海", "China", "中国"), ("London", "伦敦", "England", "英国"),
    ("Paris", "巴黎", "France", "法国"), ("Tokyo", "东京", "Japan", "日本"), ("Rome", "罗马", "Italy", "意大利"),
    ("Berlin", "柏林", "Germany", "德国"), ("Madrid", "马德里", "Spain", "西班牙"),
]  # fmt: skip
NAMES = [("Anna", "小安"), ("Ben", "小本"), ("Lily", "丽丽"), ("Tom", "小明"), ("Mei", "小梅"), ("Wei", "小伟")]
WEATHER = [("sunny", "晴朗"), ("rainy", "下雨"), ("windy", "刮风"), ("cold", "寒冷"), ("warm", "温暖")]
NUMBERS = [
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
    list("零一二三四五六七八九十"),
]

GREETINGS = {
    "en": [
        ("Hello", "Hello! How can I help you?"),
        ("Hi", "Hi! Nice to meet you."),
        ("Hi there", "Hi! Nice to meet you."),
        ("Good morning", "Good morning! I hope you slept well."),
        ("Good evening", "Good evening! How was your day?"),
        ("Good night", "Good night! Sleep well."),
        ("How are you?", "I am fine, thank you. And you?"),
        ("How do you do?", "I am fine, thank you. And you?"),
        ("What is your name?", "My name is Duihua."),
        ("Who are you?", "I am Duihua, a small language model."),
        ("Are you a robot?", "I am a program that learned to talk."),
        ("Can you help me?", "Yes, I will try to help you."),
        ("Thank you", "You are welcome."),
        ("Thanks a lot", "You are welcome."),
        ("Goodbye", "Goodbye! See you soon."),
        ("See you", "See you! Take care."),
        ("I am happy", "I am glad to hear that."),
        ("I am sad", "I am sorry to hear that."),
        ("I am tired", "Then take a good rest."),
        ("I am hungry", "Then eat something good."),
    ],
    "zh": [
        ("你好", "你好！我能帮你什么？"),
        ("您好", "你好！我能帮你什么？"),
        ("嗨", "嗨！很高兴认识你。"),
        ("早上好", "早上好！希望你睡得好。"),
        ("晚上好", "晚上好！今天过得怎么样？"),
        ("晚安", "晚安！祝你好梦。"),
        ("你好吗？", "我很好，谢谢。你呢？"),
        ("最近怎么样？", "我很好，谢谢。你呢？"),
        ("你叫什么名字？", "我叫对话。"),
        ("你是谁？", "我是对话，一个小小的语言模型。"),
        ("你是机器人吗？", "我是一个学会说话的程序。"),
        ("你能帮我吗？", "可以，我会尽力帮你。"),
        ("谢谢", "不客气。"),
        ("非常感谢", "不客气。"),
        ("再见", "再见！希望很快见到你。"),
        ("回头见", "回头见！保重。"),
        ("我很高兴", "听到这个我很开心。"),
        ("我很难过", "听到这个我很难过。"),
        ("我累了", "那就好好休息吧。"),
        ("我饿了", "那就吃点好吃的吧。"),
    ],
}
UNHELPFUL = {
    "en": ["I do not know.", "No.", "Go away.", "Why do you ask me that?", "Whatever."],
    "zh": ["我不知道。", "不。", "走开。", "你为什么问我这个？", "随便。"],
}
JOIN = {"en": " ", "zh": ""}


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def facts(language: str) -> list[tuple[str, str, str]]:
    """(question, answer, the same as a sentence of running text) for every fact that the sample knows."""
    zh, found = language == "zh", []
    for en_thing, zh_thing, colour in THINGS:
        en_colour, zh_colour = COLOURS[colour]
        if zh:
            found.append((f"{zh_thing}是什么颜色？", f"{zh_thing}是{zh_colour}的。", f"{zh_thing}是{zh_colour}的。"))
        else:
            answer = f"{capital(en_thing)} is {en_colour}."
            found.append((f"What colour is {en_thing}?", answer, answer))
    for en, cn, en_food, zh_food, en_sound, zh_sound in ANIMALS:
        if zh:
            found += [
                (f"{cn}吃什么？", f"{cn}吃{zh_food}。", f"{cn}喜欢吃{zh_food}。"),
                (f"{cn}怎么叫？", f"{cn}会{zh_sound}。", f"{cn}会{zh_sound}。"),
            ]
        else:
            found += [
                (f"What does the {en} eat?", f"The {en} eats {en_food}.", f"The {en} likes to eat {en_food}."),
                (f"What sound does the {en} make?", f"The {en} {en_sound}.", f"The {en} {en_sound}."),
            ]
    for en_city, zh_city, en_land, zh_land in CITIES:
        if zh:
            found.append((f"{zh_city}在哪里？", f"{zh_city}在{zh_land}。", f"{zh_city}是{zh_land}的城市。"))
        else:
            found.append((f"Where is {en_city}?", f"{en_city} is in {en_land}.", f"{en_city} is a city in {en_land}."))
    for first in range(1, 6):
        for second in range(1, 6):
            a, b, total = (NUMBERS[zh][number] for number in (first, second, first + second))
            if zh:
                found.append((f"{a}加{b}等于几？", f"{a}加{b}等于{total}。", f"{a}加{b}等于{total}。"))
            else:
                answer = f"{capital(a)} plus {b} is {total}."
                found.append((f"What is {a} plus {b}?", answer, answer))
    return found


def story(language: str, chance: random.Random) -> str:
    """Three sentences about somebody's day."""
    zh = language == "zh"
    name, city, weather = chance.choice(NAMES)[zh], chance.choice(CITIES)[zh], chance.choice(WEATHER)[zh]
    animal, colour = chance.choice(ANIMALS)[zh], chance.choice(COLOURS)[zh]
    if zh:
        return f"今天{city}天气{weather}。{name}带着一只{colour}的{animal}去公园。他们都很高兴。"
    return f"Today it is {weather} in {city}. {name} goes to the park with a {colour} {animal}. They are very happy."


def documents(chance: random.Random) -> list[dict[str, Any]]:
    rows = []
    for language in ("en", "zh"):
        known = [sentence for _, _, sentence in facts(language)]
        for number in range(84):
            if number % 3 == 0:
                text = story(language, chance)
            else:
                text = JOIN[language].join(chance.sample(known, 3))
            rows.append({"text": text, "language": language})
    return rows


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def conversations(chance: random.Random) -> list[dict[str, Any]]:
    rows = []
    for language in ("en", "zh"):
        known = [(question, answer) for question, answer, _ in facts(language)]
        for question, answer in GREETINGS[language] + known:
            messages = [turn("user", question), turn("assistant", answer)]
            if chance.random() < 0.3:
                more_question, more_answer = chance.choice(known)
                messages += [turn("user", more_question), turn("assistant", more_answer)]
            rows.append({"messages": messages, "language": language})
    return rows


def preferences(chance: random.Random) -> list[dict[str, Any]]:
    """The right answer against an unhelpful one or the answer to another question, in turn."""
    rows = []
    for language in ("en", "zh"):
        known = GREETINGS[language] + [(question, answer) for question, answer, _ in facts(language)]
        for number, (question, answer) in enumerate(known):
            other = chance.choice([reply for _, reply in known if reply != answer])
            worse = chance.choice(UNHELPFUL[language]) if number % 2 else other
            rows.append({"prompt": [turn("user", question)], "chosen": answer, "rejected": worse, "language": language})
    return rows


def main() -> None:
    chance = random.Random(20)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, rows in (
        ("documents", documents(chance)),
        ("conversations", conversations(chance)),
        ("preferences", preferences(chance)),
    ):
        lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
        path = FOLDER / f"{name}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{path.name}: {len(rows)} records, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
