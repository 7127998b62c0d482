"""The words of the report, explained to a student who meets them for the first time, in both languages.

Why in the report itself: it opens without a network, and a number that one cannot read teaches nothing. Each entry says
what the thing is, which direction is good, and what a usual value looks like.
"""

from __future__ import annotations

from duihua.report.texts import Text

# term and explanation, in the order in which the road meets them
GLOSSARY: tuple[tuple[Text, Text], ...] = (
    (
        Text("Token", "词元"),
        Text(
            "A piece of text that the model reads or writes in one step: a word, a part of one, a character or a byte.",
            "模型一步读入或写出的一小段文本：可以是一个词、词的一部分、一个字符或一个字节。",
        ),
    ),
    (
        Text("Byte-level BPE", "字节级 BPE"),
        Text(
            "A vocabulary grown from the 256 bytes by joining the most frequent neighbours again and again. "
            "Any text can be written with it, so there is no unknown token.",
            "从 256 个字节出发，反复合并最常见的相邻片段而得到的词表。任何文本都能表示，因此没有“未知词元”。",
        ),
    ),
    (
        Text("Loss (nats per token)", "损失（奈特/词元）"),
        Text(
            "How surprised the model is by the next token: minus the natural logarithm of the probability it gave. "
            "Guessing evenly costs ln(vocabulary); lower is better.",
            "模型对下一个词元的意外程度，即它所给概率的自然对数的相反数。均匀乱猜的代价是 ln(词表大小)；越低越好。",
        ),
    ),
    (
        Text("Bits per byte", "每字节比特数"),
        Text(
            "The whole loss of a text in bits, divided by its bytes. It does not depend on the tokenizer, so two models "
            "with different vocabularies can be compared. Chinese uses three bytes a character, so its figure is lower.",
            "整段文本的损失换算成比特后除以字节数。它与分词器无关，因此词表不同的模型也能比较。"
            "一个汉字占三个字节，所以中文的数值会低一些。",
        ),
    ),
    (
        Text("Perplexity", "困惑度"),
        Text(
            "e to the power of the loss: among how many equally likely tokens the model seems to hesitate.",
            "e 的损失次方：模型仿佛在多少个同样可能的词元之间犹豫。",
        ),
    ),
    (
        Text("Held out", "留出"),
        Text(
            "Text that no stage trains on. Only there can one see whether a model has learned or memorised.",
            "任何阶段都不用于训练的文本。只有在它上面才能看出模型是学会了还是背下来了。",
        ),
    ),
    (
        Text("Learning rate, warm-up, decay", "学习率、预热、衰减"),
        Text(
            "The size of a training step. It rises in the first steps (warm-up), stays, and falls at the end (decay), "
            "which is where the loss often drops once more.",
            "训练每一步的步长。开头逐渐升高（预热），中间保持不变，最后下降（衰减），这时损失常会再降一截。",
        ),
    ),
    (
        Text("Gradient norm", "梯度范数"),
        Text(
            "The length of the direction in which the weights are pushed. Sudden peaks announce unstable training.",
            "推动权重的方向向量的长度。突然的尖峰预示训练不稳定。",
        ),
    ),
    (
        Text("SFT, supervised fine-tuning", "SFT，监督微调"),
        Text(
            "Training on conversations with the loss on the assistant's words only. It turns a model that continues "
            "text into one that answers.",
            "在对话数据上训练，只对助手说的话计算损失。它把会续写文本的模型变成会回答的模型。",
        ),
    ),
    (
        Text("Reward model", "奖励模型"),
        Text(
            "A network that gives a reply one number. It learns from pairs in which one reply is preferred "
            "(Bradley-Terry: the difference of two rewards is the logarithm of the odds).",
            "给一个回复打一个分数的网络。它从成对的偏好中学习（Bradley-Terry：两个奖励之差等于胜率比的对数）。",
        ),
    ),
    (
        Text("Calibration error", "校准误差"),
        Text(
            "How far stated confidence and real accuracy lie apart. 0 is perfect: of the pairs it calls 80% sure, "
            "80% are right.",
            "自称的把握与实际准确率之间的差距。0 为完美：它说有 80% 把握的那些对，确有 80% 判对。",
        ),
    ),
    (
        Text("PPO", "PPO（近端策略优化）"),
        Text(
            "Proximal policy optimisation: the model writes replies, the reward model judges them, and the model is "
            "moved towards the better ones in small, clipped steps.",
            "模型写出回复，奖励模型打分，然后以受限的小步让模型靠近得分更高的回复。",
        ),
    ),
    (
        Text("KL (nats per reply)", "KL 散度（奈特/回复）"),
        Text(
            "How far the model has moved from the fine-tuned one on its own replies. 0 means unchanged. A large value "
            "with a large reward is often a trick played on the reward model.",
            "在模型自己的回复上，它离微调模型有多远。0 表示没有变化。KL 很大而奖励也很大，往往是在钻奖励模型的空子。",
        ),
    ),
    (
        Text("Entropy", "熵"),
        Text(
            "How undecided the model is when it writes a token. If it falls to 0, all replies become the same.",
            "模型写每个词元时的犹豫程度。若降到 0，所有回复都会变得一样。",
        ),
    ),
    (
        Text("Clipped share", "被裁剪的比例"),
        Text(
            "The share of tokens whose step was cut short by PPO's limit. 0.05 to 0.3 is usual.",
            "步子被 PPO 的限制截短的词元所占比例。通常在 0.05 到 0.3 之间。",
        ),
    ),
    (
        Text("Critic, explained variance", "价值网络（评论家）、解释方差"),
        Text(
            "The critic predicts the reward to come. 1: it predicts all differences; 0: no better than the mean; "
            "below 0: worse.",
            "价值网络预测将来的奖励。1：差异全被预测到；0：与直接用平均值一样；小于 0：更差。",
        ),
    ),
    (
        Text("Standard error", "标准误"),
        Text(
            "How much a mean would vary if other prompts had been drawn. A difference of two or more is hardly chance.",
            "换一批提示时平均值会有多大波动。相差两个标准误以上就不大可能是偶然。",
        ),
    ),
    (
        Text("95% interval", "95% 区间"),
        Text(
            "The range in which the true value lies in 19 of 20 such experiments. Fewer examples make it wider.",
            "在 20 次这样的实验中约有 19 次包含真实值的范围。样本越少，区间越宽。",
        ),
    ),
    (
        Text("Majority baseline", "多数类基线"),
        Text(
            "The score of always saying the class that is most frequent in training. On uneven classes it is high, and a "
            "classifier that does not pass it has learnt nothing from the texts.",
            "总是回答训练中最常见类别所得的成绩。类别不均衡时它会很高；不能超过它的分类器，并没有从文本中学到东西。",
        ),
    ),
    (
        Text("F1", "F1"),
        Text(
            "For one class: twice the right ones, divided by how often it was said and how often it was true together. 1 is "
            "best; it punishes missing the class and saying it too often.",
            "对一个类别：判对数的两倍，除以“给出的次数”与“真实的次数”之和。1 为最佳；漏判和滥判都会使它降低。",
        ),
    ),
    (
        Text("Matthews' correlation (MCC)", "马修斯相关系数（MCC）"),
        Text(
            "How closely what is said follows what is true, over all classes: 1 always right, 0 as good as chance, below 0 "
            "worse. Always saying one class gives 0, however frequent it is.",
            "给出的类别与真实类别在所有类别上的相关程度：1 为全对，0 与瞎猜相当，小于 0 更差。"
            "总是回答同一类，无论它多常见，结果都是 0。",
        ),
    ),
    (
        Text("BLEU", "BLEU"),
        Text(
            "The share of word groups that a reply has in common with a reference, from 0 to 100. The signature states "
            "how it was computed; figures with different signatures must not be compared.",
            "回复与参考之间共有词组的程度，从 0 到 100。签名说明计算方式；签名不同的数值不可比较。",
        ),
    ),
    (
        Text("Repetition rate", "重复率"),
        Text(
            "The share of short word groups in a reply that have already occurred in it. High values mean babbling in "
            "circles.",
            "回复中已经出现过的短语片段所占的比例。数值高说明在兜圈子。",
        ),
    ),
)
