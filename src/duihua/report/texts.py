"""Every sentence of the report, in English and Chinese side by side.

Why one table: a translation that stands next to its original is not forgotten when the original changes, and a test can
hold that both are there and that both name the same {values}. Sentences, not words glued together: the two languages
order them differently.
"""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """One text in both languages; {names} in braces are filled in."""

    en: str
    zh: str


TEXTS: dict[str, Text] = {
    # frame
    "page.kicker": Text("Run report", "训练报告"),
    "page.seed": Text("seed {value}", "随机种子 {value}"),
    "page.threads": Text("threads: {value}", "{value} 线程"),
    "page.device": Text("on {value}", "设备 {value}"),
    "page.footer": Text(
        "Written by Duihua {version}. This file is complete in itself: it loads nothing from the network.",
        "由 Duihua {version} 生成。本文件自成一体，不从网络加载任何内容。",
    ),
    "page.partial": Text(
        "This run is not complete. Without a result so far: {stages}. Their parts of the report are left out.",
        "本次运行尚未完成。暂无结果的阶段：{stages}。报告中省略了相应的部分。",
    ),
    "page.unreadable": Text(
        "Lines of {file} that could not be read and are not drawn: {count}.",
        "{file} 中有 {count} 行无法读取，未画入曲线。",
    ),
    "page.empty": Text("(empty)", "（空）"),
    # stages
    "stage.tokenizer": Text("Tokenizer", "分词器"),
    "stage.pretrain": Text("Pre-training", "预训练"),
    "stage.sft": Text("Supervised fine-tuning", "监督微调"),
    "stage.reward": Text("Reward model", "奖励模型"),
    "stage.ppo": Text("PPO", "PPO 强化学习"),
    "stage.dpo": Text("DPO", "DPO 偏好优化"),
    "stage.grpo": Text("GRPO", "GRPO 强化学习"),
    "stage.rejection_sampling": Text("Rejection sampling", "拒绝采样微调"),
    "stage.recurrent": Text("Recurrent language model", "循环语言模型"),
    "stage.classify": Text("Classification", "分类"),
    "stage.bag_of_words": Text("Bag of words", "词袋"),
    "stage.ngram": Text("n-gram model", "n 元语法模型"),
    "stage.translate": Text("Translation", "翻译"),
    "stage.evaluate": Text("Evaluation", "评估"),
    "stage.compare": Text("Comparison", "对比"),
    "stage.named": Text("{stage} ({name})", "{stage}（{name}）"),
    "stage.name.judge": Text("judge", "评判者"),
    "model.base": Text("Base", "预训练模型"),
    "model.sft": Text("SFT", "微调模型"),
    "model.ppo": Text("PPO", "PPO 模型"),
    "model.dpo": Text("DPO", "DPO 模型"),
    "model.grpo": Text("GRPO", "GRPO 模型"),
    "model.rejection_sampling": Text("Rejection sampling", "拒绝采样微调"),
    "model.best_of_n": Text("Best of {n}", "{n} 选一"),
    "model.before": Text("Before PPO", "PPO 之前"),
    "model.after": Text("After PPO", "PPO 之后"),
    "language.all": Text("Both", "合计"),
    "language.mixed": Text("English and Chinese", "中英混合"),
    "language.en": Text("English", "英文"),
    "language.zh": Text("Chinese", "中文"),
    "language.fr": Text("French", "法文"),
    "language.de": Text("German", "德文"),
    "role.user": Text("User", "用户"),
    "role.assistant": Text("Assistant", "助手"),
    "role.system": Text("System", "系统"),
    "split.train": Text("training part", "训练部分"),
    "split.heldout": Text("held-out part", "留出部分"),
    # headline
    "headline.title": Text("At a glance", "概览"),
    "headline.bits": Text("Held-out bits per byte", "留出文本的每字节比特数"),
    "headline.bits.note": Text("English\u00a0{en} · Chinese\u00a0{zh}", "英文\u00a0{en} · 中文\u00a0{zh}"),
    "headline.accuracy": Text("Reward model accuracy", "奖励模型准确率"),
    "headline.accuracy.note": Text("95% interval {low} to {high}", "95% 区间 {low} 至 {high}"),
    "headline.gain": Text("Reward gained by PPO", "PPO 带来的奖励提升"),
    "headline.gain.note": Text("± {error} (one standard error), {n} prompts", "± {error}（一个标准误），{n} 个提示"),
    "headline.greetings": Text("Greetings answered as in the data", "答得与数据一致的问候"),
    "headline.greetings.note": Text(
        "{model}: English\u00a0{en} · Chinese\u00a0{zh}", "{model}：英文\u00a0{en} · 中文\u00a0{zh}"
    ),
    "headline.classify": Text("Classification accuracy", "分类准确率"),
    "headline.classify.note": Text("always the most frequent class: {majority}", "总是回答最常见的类别：{majority}"),
    "headline.translate": Text("BLEU of the test, {direction}", "测试集 BLEU，{direction}"),
    "headline.translate.note": Text(
        "95% {low} to {high} · chrF {chrf} · {signature}", "95% 区间 {low} 至 {high} · chrF {chrf} · {signature}"
    ),
    "headline.minutes": Text("Minutes for the whole recipe", "整个配方用时（分钟）"),
    "headline.minutes.note": Text("interruptions not counted", "不含中断的时间"),
    "headline.memory": Text("Peak memory, GiB", "内存峰值（GiB）"),
    "headline.memory.note": Text("of the training process", "训练进程的内存占用"),
    # verdict
    "normal.title": Text("Is my loss normal?", "我的损失正常吗？"),
    "normal.here": Text("this run", "本次运行"),
    "normal.expected": Text("expected", "预期范围"),
    "normal.inside": Text(
        "Yes. {value} bits per byte lies inside the range of {low} to {high} that this recipe usually ends in.",
        "正常。每字节 {value} 比特，落在此配方通常到达的 {low} 至 {high} 之间。",
    ),
    "normal.above": Text(
        "Higher than usual: {value} bits per byte, where this recipe ends between {low} and {high}. "
        "Look first at whether the run was cut short, whether the text is the same, and at the curve below: "
        "a curve that still falls needs more steps, a curve with jumps needs a lower learning rate.",
        "偏高：每字节 {value} 比特，而此配方通常到达 {low} 至 {high}。"
        "请先检查训练是否提前结束、文本是否相同，再看下面的曲线：仍在下降说明步数不够，出现跳变说明学习率过高。",
    ),
    "normal.below": Text(
        "Lower than usual: {value} bits per byte, where this recipe ends between {low} and {high}. "
        "Good if you changed the data or trained longer; otherwise check that held-out text did not get into training.",
        "比通常更低：每字节 {value} 比特，而此配方通常到达 {low} 至 {high}。"
        "若更换了数据或训练更久，这是好事；否则请检查留出文本是否混入了训练数据。",
    ),
    "normal.no_range": Text(
        "This recipe states no expected range. Landmarks for {value}: guessing every byte evenly costs 8 bits; "
        "a general file compressor needs about 2.5 to 3.5 on such text; well under 2 is a small model that has learned.",
        "此配方没有给出预期范围。可与 {value} 对照的参考点：把每个字节当作均匀随机需要 8 比特；"
        "通用压缩程序在这类文本上约需 2.5 至 3.5 比特；明显低于 2，说明小模型确实学到了东西。",
    ),
    "normal.altered": Text(
        "Cannot be said: the tokenizer changes some held-out texts, so there are no bits per byte. Compare the perplexity "
        "with that of runs under the same tokenizer.",
        "无法判断：分词器改动了部分留出文本，因此没有每字节比特数。请与使用同一分词器的运行比较困惑度。",
    ),
    "normal.unmeasured": Text(
        "Cannot be said: nothing of the training text is held out, so the model was not measured on text that it has not seen. "
        "Add records, or name a file of held-out ones in the source's heldout.",
        "无法判断：训练文本没有留出任何部分，因此没有在模型未见过的文本上测量。"
        "请增加记录，或在来源的 heldout 中指定一个留出文件。",
    ),
    "normal.broken": Text(
        "No. The held-out loss is not a number: training diverged. Lower the learning rate, or look for broken data.",
        "不正常。留出损失不是一个数：训练已经发散。请降低学习率，或检查数据是否损坏。",
    ),
    "normal.translate": Text(
        "Yes. Validation perplexity {perplexity} a token, where guessing evenly gives {ids}; BLEU {bleu} of its greedy "
        "translations. Over 30, translations can generally be understood, over 50 they are good and fluent (Lavie 2010).",
        "正常。验证困惑度为每词元 {perplexity}，而均匀随机猜测为 {ids}；贪心译文的 BLEU 为 {bleu}。"
        "一般来说，高于 30 的译文可以看懂，高于 50 的译文质量好而通顺（Lavie，2010）。",
    ),
    "normal.translate.low": Text(
        "It has learned, but not enough to translate well: validation perplexity {perplexity} a token, where guessing evenly "
        "gives {ids}, and BLEU {bleu} of its greedy translations; under 30 they can often not be understood (Lavie 2010). "
        "More pairs or more epochs help most; look at the curves below for which.",
        "学到了东西，但还不足以翻译好：验证困惑度为每词元 {perplexity}，而均匀随机猜测为 {ids}；贪心译文的 BLEU 为 {bleu}，"
        "低于 30 的译文往往看不懂（Lavie，2010）。最有帮助的是更多句对或更多轮数；缺的是哪一样，请看下面的曲线。",
    ),
    "normal.translate.nothing": Text(
        "No. Validation perplexity {perplexity} a token is no better than guessing evenly among {ids}. Look at the pairs: do "
        "line n of both languages say the same?",
        "不正常。验证困惑度为每词元 {perplexity}，不优于在 {ids} 个词元中均匀随机猜测。"
        "请检查句对：两种语言的第 n 行说的是同一句话吗？",
    ),
    "normal.translate.unknown": Text(
        "Cannot be said: the sources have no validation part, so nothing was measured on unseen pairs. Read the sample "
        "translations, or add a source that has one.",
        "无法判断：来源没有验证部分，因此没有在未见过的句对上测量。请阅读样例译文，或加入带验证部分的来源。",
    ),
    "normal.elsewhere": Text(
        "This run has no finished pre-training, so there is no loss here that could be held against a usual range. If it began "
        "from a model of another run, that run's report answers the question.",
        "本次运行没有完成的预训练，因此没有可与通常范围对照的损失。若它从另一次运行的模型开始，答案在那次运行的报告里。",
    ),
    "normal.checks": Text("What else was checked", "其他检查"),
    "status.good": Text("fine", "正常"),
    "status.watch": Text("look", "留意"),
    "status.bad": Text("wrong", "异常"),
    "check.start": Text(
        "The first recorded loss, {value} nats, is near ln(vocabulary) = {expected}: a fresh model knows nothing.",
        "最先记录的损失为 {value} 奈特，接近 ln(词表大小) = {expected}：新模型一无所知，正该如此。",
    ),
    "check.start_low": Text(
        "The first recorded loss, {value} nats, is already below ln(vocabulary) = {expected}, as it should be at "
        "step {step}.",
        "最先记录的损失为 {value} 奈特，在第 {step} 步时已低于 ln(词表大小) = {expected}，符合预期。",
    ),
    "check.start_high": Text(
        "The first recorded loss, {value} nats, is above ln(vocabulary) = {expected}: worse than guessing. "
        "Look at the initialisation and the warm-up.",
        "最先记录的损失为 {value} 奈特，高于 ln(词表大小) = {expected}：比瞎猜还差。请检查初始化与预热。",
    ),
    "check.start_bigrams": Text(
        "The first recorded loss, {value} nats, is near {expected}, that of the counted bigrams from which the weights start.",
        "最先记录的损失为 {value} 奈特，接近 {expected}，即权重由之开始的二元计数的损失，正该如此。",
    ),
    "check.start_low_bigrams": Text(
        "The first recorded loss, {value} nats, is already below {expected}, that of the counted bigrams from which the "
        "weights start, as it should be at step {step}.",
        "最先记录的损失为 {value} 奈特，在第 {step} 步时已低于 {expected}，即权重由之开始的二元计数的损失，符合预期。",
    ),
    "check.start_high_bigrams": Text(
        "The first recorded loss, {value} nats, is above {expected}, that of the counted bigrams from which the weights start: "
        "training has unlearnt them. Look at the learning rates and the warm-up.",
        "最先记录的损失为 {value} 奈特，高于 {expected}，即权重由之开始的二元计数的损失：训练反而把它们忘了。"
        "请检查学习率与预热。",
    ),
    "check.falling": Text(
        "{stage}: the loss fell by {fall} nats over the last fifth of training; more steps would still help.",
        "{stage}：最后五分之一的训练中损失仍下降了 {fall} 奈特；继续训练还会有收获。",
    ),
    "check.flat": Text(
        "{stage}: the loss is level over the last fifth of training (change {fall} nats).",
        "{stage}：最后五分之一的训练中损失已经平稳（变化 {fall} 奈特）。",
    ),
    "check.rising": Text(
        "{stage}: the loss rose by {rise} nats over the last fifth of training. Lower the learning rate or stop earlier.",
        "{stage}：最后五分之一的训练中损失上升了 {rise} 奈特。请降低学习率或提前停止。",
    ),
    "check.not_finite": Text(
        "{stage}: recorded losses that are not numbers: {count}. Training diverged there.",
        "{stage}：有 {count} 个记录的损失不是数，训练在那里发散了。",
    ),
    "check.skipped": Text(
        "{stage}: steps passed over because their loss or gradient was not a number: {count}.",
        "{stage}：有 {count} 步因损失或梯度不是数而被跳过。",
    ),
    "check.spikes": Text(
        "{stage}: jumps of more than one nat above the curve: {count}. A few are harmless; many ask for a lower "
        "learning rate or stronger gradient clipping.",
        "{stage}：有 {count} 次高出曲线一奈特以上的跳变。少量无妨；若很多，请降低学习率或加强梯度裁剪。",
    ),
    "check.overfit": Text(
        "Fine-tuning: held-out loss {heldout} stands {gap} nats above training loss {loss}: it learns by heart. "
        "Use fewer passes or more data.",
        "监督微调：留出损失 {heldout} 比训练损失 {loss} 高 {gap} 奈特，说明在死记硬背。请减少轮数或增加数据。",
    ),
    "check.fits": Text(
        "Fine-tuning: held-out loss {heldout} is close to training loss {loss} (gap {gap} nats).",
        "监督微调：留出损失 {heldout} 与训练损失 {loss} 接近（相差 {gap} 奈特）。",
    ),
    "check.reward": Text(
        "Reward model: even the lower end of its accuracy, {low}, is above chance (0.5).",
        "奖励模型：准确率区间的下端 {low} 也高于瞎猜（0.5）。",
    ),
    "check.reward_human": Text(
        "Reward model: on the {n} held-out pairs that a person or a strong model judged, its accuracy, {value} "
        "[{low}, {high}], may be chance; the other pairs carry the mean. It tells replies of the data from sampled ones, but "
        "not which of two written ones is better. Read what PPO gained with care, and add judged pairs.",
        "奖励模型：在 {n} 个由人工（或强模型）评判的留出偏好对上，准确率 {value} [{low}, {high}] 可能只是碰巧，"
        "平均值靠其他的对支撑。"
        "它分得清数据中的回复与采样的回复，却未必分得出两个写好的回复中哪个更好。"
        "请谨慎看待 PPO 的提升，并增加经过评判的偏好对。",
    ),
    "check.reward_chance": Text(
        "Reward model: its accuracy may be chance (interval from {low}). PPO has nothing sound to climb.",
        "奖励模型：准确率可能只是碰巧（区间下端 {low}）。PPO 没有可靠的目标可以攀登。",
    ),
    "check.gain": Text(
        "PPO: the reward rose by {ratio} standard errors, which is hardly chance.",
        "PPO：奖励提升了 {ratio} 个标准误，不大可能是偶然。",
    ),
    "check.gain_small": Text(
        "PPO: the reward changed by {ratio} standard errors; fewer than two can be chance.",
        "PPO：奖励变化为 {ratio} 个标准误；不足两个时可能只是偶然。",
    ),
    "check.kl": Text(
        "PPO: a reply is {kl} nats away from the fine-tuned model on average: it has stayed near its start.",
        "PPO：平均每个回复与微调模型相距 {kl} 奈特，没有偏离起点太远。",
    ),
    "check.kl_far": Text(
        "PPO: a reply is {kl} nats away from the fine-tuned model on average (10 is far). "
        "Raise the KL coefficient or train for fewer steps, and read the samples: high reward may be a trick.",
        "PPO：平均每个回复与微调模型相距 {kl} 奈特（10 已算很远）。"
        "请提高 KL 系数或减少步数，并细读样例：高奖励可能只是投机取巧。",
    ),
    "check.repetition": Text(
        "PPO: replies repeat themselves no more than before ({before} to {after}).",
        "PPO：回复的重复率没有上升（{before} 到 {after}）。",
    ),
    "check.repetition_chance": Text(
        "PPO: replies repeat themselves about as much as before ({before} to {after}; the paired standard error is {error}).",
        "PPO：回复的重复率与之前相当（{before} 到 {after}；配对标准误为 {error}）。",
    ),
    "check.repetition_up": Text(
        "PPO: replies repeat themselves more than before ({before} to {after}): a usual sign of reward hacking.",
        "PPO：回复的重复率上升了（{before} 到 {after}）：这是钻奖励空子的常见迹象。",
    ),
    "check.length": Text(
        "PPO: the length of replies changed by no more than three tenths ({before} to {after} tokens on average).",
        "PPO：回复的长度变化不超过三成（平均 {before} 到 {after} 个词元）。",
    ),
    "check.shorter": Text(
        "PPO: replies became much shorter ({before} to {after} tokens on average). Part of the reward may come from saying "
        "less: read the samples below. Raise the KL coefficient, train for fewer steps, or give the reward model pairs whose "
        "better reply is the longer one.",
        "PPO：回复明显变短（平均 {before} 到 {after} 个词元）。部分奖励可能只是来自少说话：请细读下面的样例。"
        "可以提高 KL 系数、减少步数，或给奖励模型补充“较好的回复也较长”的偏好对。",
    ),
    "check.longer": Text(
        "PPO: replies became much longer ({before} to {after} tokens on average). Part of the reward may come from saying "
        "more: read the samples below. Raise the KL coefficient, train for fewer steps, or give the reward model pairs whose "
        "better reply is the shorter one.",
        "PPO：回复明显变长（平均 {before} 到 {after} 个词元）。部分奖励可能只是来自多说话：请细读下面的样例。"
        "可以提高 KL 系数、减少步数，或给奖励模型补充“较好的回复也较短”的偏好对。",
    ),
    "check.probes": Text(
        "Reward model: it prefers the true reply to each of the {count} kinds of spoilt copies more often than not.",
        "奖励模型：对 {count} 种被破坏的回复，它都更多地偏爱原回复。",
    ),
    "check.probe": Text("“{name}” ({value})", "“{name}”（{value}）"),
    "check.probes_low": Text(
        "Reward model: some spoilt replies score above the true one more often than not: {probes}; the figure is the share of "
        "prompts where the true reply wins. PPO could earn reward this way. More pairs, or pairs with just these faults, help.",
        "奖励模型：有些被破坏的回复多半得分高于原回复：{probes}；括号内是原回复胜出的比例。"
        "PPO 可能靠这些手法骗取奖励。增加偏好对，或专门补充含这类毛病的偏好对，会有帮助。",
    ),
    "check.bleu": Text(
        "PPO: BLEU against the reference replies did not fall ({before} to {after}).",
        "PPO：与参考回复相比的 BLEU 没有下降（{before} 到 {after}）。",
    ),
    "check.bleu_near": Text(
        "PPO: BLEU against the reference replies fell by no more than a point ({before} to {after}), about as much as two "
        "samplings of one model differ by.",
        "PPO：与参考回复相比的 BLEU 下降不超过一分（{before} 到 {after}），与同一模型两次采样的差别相当。",
    ),
    "check.bleu_down": Text(
        "PPO: BLEU against the reference replies fell ({before} to {after}): the reward rose, but the replies moved away from "
        "what people wrote. If you want a model to talk with, compare it with the fine-tuned one.",
        "PPO：与参考回复相比的 BLEU 下降了（{before} 到 {after}）：奖励升高了，但回复离人写的更远了。"
        "若要挑一个模型来对话，请与微调模型比较后再定。",
    ),
    "check.greeting": Text(
        "{language} {before} to {after} of {total}", "{language} {total} 个中由 {before} 变为 {after}"
    ),
    "check.greetings": Text(
        "PPO: no fewer greetings are answered as in the data ({counts}).",
        "PPO：答得与数据一致的问候没有减少（{counts}）。",
    ),
    "check.greetings_down": Text(
        "PPO: fewer greetings are answered as in the data ({counts}). Fewer steps or a higher KL coefficient keep more of what "
        "fine-tuning taught.",
        "PPO：答得与数据一致的问候变少了（{counts}）。减少步数或提高 KL 系数，可以保留更多微调所学。",
    ),
    "check.classify": Text(
        "{stage}: even the lower end of the accuracy, {low}, is above always saying the most frequent class ({majority}).",
        "{stage}：准确率区间的下端 {low} 也高于总是回答最常见的类别（{majority}）。",
    ),
    "check.classify_chance": Text(
        "{stage}: the accuracy may be no better than always saying the most frequent class ({majority}; interval from "
        "{low}). More examples, more passes or a better base model may help.",
        "{stage}：准确率可能并不优于总是回答最常见的类别（{majority}；区间下端 {low}）。"
        "增加样本、增加轮数或换用更好的基座模型，可能有帮助。",
    ),
    "check.smoothing": Text(
        "Translation: {loss} nats are of smoothed targets and can never fall below {floor} (a share of {smoothing} is spread "
        "over all tokens); without smoothing the same predictions cost {plain}. Only the latter compares with validation.",
        "翻译：{loss} 奈特是平滑目标的损失，永远不会低于 {floor}（每个目标有 {smoothing} 分摊给所有词元）；"
        "不平滑时同样的预测为 {plain}。只有后者可以与验证损失比较。",
    ),
    "check.translate_overfit": Text(
        "Translation: validation loss {heldout} against training loss {loss}, both unsmoothed ({gap} nats): it learns by "
        "heart. Use fewer epochs, more dropout or more pairs.",
        "翻译：验证损失 {heldout}，训练损失 {loss}，均未平滑（相差 {gap} 奈特）：它在死记硬背。"
        "请减少轮数、加大 dropout 或增加句对。",
    ),
    "check.translate_fits": Text(
        "Translation: validation loss {heldout} is close to training loss {loss}, both unsmoothed ({gap} nats).",
        "翻译：验证损失 {heldout} 与训练损失 {loss} 接近，均未平滑（相差 {gap} 奈特）。",
    ),
    "check.bleu_rising": Text(
        "Translation: validation BLEU still rose at the last evaluation ({last}); more epochs would help.",
        "翻译：验证集 BLEU 在最后一次评估时仍在上升（{last}）；增加轮数还会有收获。",
    ),
    "check.bleu_level": Text(
        "Translation: validation BLEU is level at its best ({last} at the end, {best} at most).",
        "翻译：验证集 BLEU 已平稳在最佳水平（结束时 {last}，最高 {best}）。",
    ),
    "check.bleu_declined": Text(
        "Translation: validation BLEU fell from {best} to {last}. Use fewer epochs, or keep: best.",
        "翻译：验证集 BLEU 从 {best} 降到 {last}。请减少轮数，或设 keep: best。",
    ),
    # comparison of all models
    "compare.title": Text("All stages side by side", "各阶段并排比较"),
    "compare.machine": Text("Time machine: one prompt, every stage", "时光机：同一提示，每个阶段的回复"),
    "compare.machine.note": Text(
        "Sampled at temperature {temperature}, from the same random numbers for all models.",
        "采样温度 {temperature}，所有模型使用相同的随机数。",
    ),
    "compare.more_prompts": Text("More prompts: {count}", "更多提示：{count} 个"),
    "compare.matrix": Text("Who wins against whom", "谁胜过谁"),
    "compare.note": Text(
        "Every model answers the same {n} held-out prompts once. The judge sees two replies without knowing whose they are, "
        "in one order and then in the other; a reply wins only where both verdicts name it, and a tie is half a win.",
        "每个模型对相同的 {n} 个留出提示各答一次。评判者看到两个回复，但不知道出自谁，先按一种顺序，再颠倒顺序；"
        "两次都选中同一个回复才算它胜，平局算半胜。",
    ),
    "compare.judge.known": Text(
        "The judge is a reward model that no policy was trained against. It prefers the better reply in {value} of its "
        "held-out pairs [{low}, {high}]; a judge near 0.5 would know nothing.",
        "评判者是一个没有任何策略针对它训练过的奖励模型。在它的留出偏好对上，它选中较好回复的比例为 {value} [{low}, {high}]；"
        "接近 0.5 的评判者等于什么也不懂。",
    ),
    "compare.judge.reward": Text(
        "The judge is a reward model that no policy was trained against.",
        "评判者是一个没有任何策略针对它训练过的奖励模型。",
    ),
    "compare.judge.rules": Text("The judge is a set of rules that are worked out.", "评判者是一组可以直接验算的规则。"),
    "compare.judge.same": Text(
        "Careful: the judge is the very reward model that policies were trained against. Its verdicts prove little.",
        "注意：评判者正是策略训练时所用的奖励模型，它的判断说明不了多少问题。",
    ),
    "compare.matrix.note": Text(
        "Per cent of prompts on which the model of the row wins over that of the column, with the 95% interval. Tinted: the "
        "whole interval lies above 50; pale: below.",
        "表中为该行模型胜过该列模型的提示占比（%）及其 95% 区间。着色：整个区间高于 50；变淡：低于 50。",
    ),
    "compare.against": Text("Against the fine-tuned model", "与微调模型相比"),
    "compare.against.note": Text(
        "What the judge says of each model, and how far from the fine-tuned one it had to go for it, in nats a reply.",
        "评判者对每个模型的看法，以及为此离开微调模型多远（每个回复的奈特）。",
    ),
    "compare.unseen.note": Text(
        "What the judge does not see: a policy that merely talks more, or repeats itself, should not count as better. Changes "
        "are paired by prompt, with their standard errors.",
        "评判者看不到的东西：只是话变多或自我重复的策略，不应算作更好。变化按提示配对计算，附标准误。",
    ),
    "compare.wins": Text("Wins", "胜率"),
    "compare.gain": Text("Judge’s score", "评判分变化"),
    "compare.kl": Text("KL", "KL 距离"),
    "compare.length": Text("Tokens", "词元数"),
    "compare.repetition": Text("Repeated", "重复率"),
    "compare.ended": Text("Ended", "自行结束"),
    "compare.worse": Text("Where it got worse", "哪些回复变差了"),
    "compare.worse.note": Text(
        "Of each model the replies that fell furthest in the judge’s eyes, beside the fine-tuned model’s reply to the same "
        "prompt. Read them: an average hides what was lost.",
        "每个模型在评判者眼中跌得最多的回复，旁边是微调模型对同一提示的回复。请读一读：平均值会掩盖失去的东西。",
    ),
    "compare.more_worse": Text("More of them: {count}", "更多：{count} 个"),
    "compare.score": Text("judge’s score {value}", "评判分 {value}"),
    "gaming.title": Text("Was the reward gamed?", "奖励被钻了空子吗？"),
    "gaming.note": Text(
        "A policy pushed far from its start finds what only its reward model likes. So its gain is shown by a judge that it "
        "was not trained against, at the distance that it cost. Up is better, left is cheaper.",
        "策略被推得离起点太远，就会找到只有它的奖励模型才喜欢的东西。因此这里的提升由没有参与训练的评判者给出，"
        "并标明为此走了多远。越高越好，越靠左代价越小。",
    ),
    "gaming.frontier": Text("What a gain costs", "提升的代价"),
    "gaming.gain": Text("change of the judge’s score", "评判分的变化"),
    "gaming.kl": Text("KL from the fine-tuned model, nats a reply", "与微调模型的 KL 距离（每个回复的奈特）"),
    "gaming.best_of": Text("best of 1 to {n} (distance: at most)", "1 至 {n} 选一（距离为上界）"),
    "gaming.point": Text("{gain} at {kl} nats", "{kl} 奈特处 {gain}"),
    "gaming.curve": Text("{stage}: scores while it trained", "{stage}：训练过程中的分数"),
    "gaming.score": Text("mean score on {n} prompts that are not trained on", "{n} 个未参与训练的提示上的平均分"),
    "gaming.reward": Text("the reward that it is trained on", "训练所用的奖励"),
    "gaming.judge": Text("a judge that it is not trained on", "未参与训练的评判者"),
    "gaming.gold": Text("a gold rule that it is not trained on", "未参与训练的真值规则"),
    "gaming.rules": Text("the trained rules: worked out, not learnt", "训练所用的规则：逐条验算，而非学得"),
    "gaming.by_reward": Text(
        "Nobody else judged: the best by the very reward that it is trained on, which cannot show whether that was gamed.",
        "没有别的评判者：这是按训练所用的奖励选出的，看不出奖励是否被钻了空子。",
    ),
    "gaming.best": Text("★ best at step {step}: {value}.", "★ 第 {step} 步最好：{value}。"),
    "gaming.last": Text("The last step was kept.", "保留了最后一步的权重。"),
    "gaming.kept": Text("Step {step} was kept.", "保留了第 {step} 步的权重。"),
    # curves
    "curves.title": Text("Training curves", "训练曲线"),
    "curves.note": Text(
        "Thin line: as recorded. Strong line: its moving average. All curves run over optimizer steps.",
        "细线为原始记录，粗线为移动平均。横轴均为优化器步数。",
    ),
    "curves.span": Text(
        "{first} → {last} · lowest {low}, highest {high}", "{first} → {last} · 最低 {low}，最高 {high}"
    ),
    "curves.more": Text("More curves: {stage}", "更多曲线：{stage}"),
    "curves.raw": Text("training", "训练"),
    "curves.heldout": Text("held out", "留出"),
    "axis.step": Text("step", "步"),
    "metric.loss": Text("Loss", "损失"),
    "metric.heldout_loss": Text("Held-out loss", "留出损失"),
    "metric.train_loss": Text("Loss of a source", "单个来源的损失"),
    "metric.reward.loss": Text("Bradley-Terry loss", "Bradley-Terry 损失"),
    "metric.ppo.loss": Text("PPO loss", "PPO 损失"),
    "metric.policy_loss": Text("Policy loss", "策略损失"),
    "metric.value_loss": Text("Value loss", "价值损失"),
    "metric.bits_per_byte": Text("Held-out bits per byte", "留出文本的每字节比特数"),
    "metric.valid_perplexity": Text("Validation perplexity", "验证困惑度"),
    "metric.learning_rate": Text("Learning rate", "学习率"),
    "metric.gradient_norm": Text("Gradient norm", "梯度范数"),
    "metric.tokens_per_second": Text("Speed", "速度"),
    "metric.accuracy": Text("Pair accuracy", "偏好对准确率"),
    "metric.classify.accuracy": Text("Training accuracy", "训练准确率"),
    "metric.heldout_accuracy": Text("Held-out accuracy", "留出准确率"),
    "metric.classify.loss": Text("Joint loss (L3)", "联合损失（L3）"),
    "metric.class_loss": Text("Loss of the classes (L2)", "分类损失（L2）"),
    "metric.language_loss": Text("Loss of the texts (L1)", "文本的语言模型损失（L1）"),
    "metric.reward": Text("Reward after penalties", "扣除惩罚后的奖励"),
    "metric.heldout_reward": Text("Reward, prompts not trained on", "奖励（未参与训练的提示）"),
    "metric.heldout_judge": Text(
        "Another judge's score, prompts not trained on", "另一评判者的分数（未参与训练的提示）"
    ),
    "metric.heldout_gold": Text("Gold score, prompts not trained on", "真值评分（未参与训练的提示）"),
    "metric.heldout_kl": Text(
        "KL from the fine-tuned model, prompts not trained on", "与微调模型的 KL 散度（未参与训练的提示）"
    ),
    "metric.heldout_length": Text("Reply length, prompts not trained on", "回复长度（未参与训练的提示）"),
    "metric.heldout_eos_rate": Text(
        "Replies that end by themselves, prompts not trained on", "自行结束的回复比例（未参与训练的提示）"
    ),
    "metric.heldout_repetition": Text("Repetition rate, prompts not trained on", "重复率（未参与训练的提示）"),
    "metric.heldout_bits_per_byte": Text("Held-out bits per byte, while training", "训练中留出文本的每字节比特数"),
    "metric.score": Text("Reward model's score", "奖励模型的打分"),
    "metric.gold_score": Text("Gold score (only watched)", "真值评分（仅观察）"),
    "metric.repetition": Text("Repetition rate", "重复率"),
    "metric.approximate_kl": Text("KL of one update", "单次更新的 KL"),
    "metric.ratio": Text("Probability ratio, new to old", "新旧策略的概率比"),
    "metric.sampler_difference": Text("Sampler against trainer", "采样与训练的差异"),
    "metric.reward_chosen": Text("Raw reward, chosen replies", "较好回复的原始奖励"),
    "metric.reward_rejected": Text("Raw reward, rejected replies", "较差回复的原始奖励"),
    "metric.kl": Text("KL from the fine-tuned model", "与微调模型的 KL 散度"),
    "metric.kl_coefficient": Text("KL coefficient", "KL 系数"),
    "metric.entropy": Text("Entropy", "熵"),
    "metric.margin": Text("Margin of the implicit rewards", "隐含奖励之差"),
    "metric.dpo.accuracy": Text("Pairs that the policy has the right way round", "策略判断正确的偏好对比例"),
    "metric.dpo.reward_chosen": Text("Implicit reward, chosen replies", "较好回复的隐含奖励"),
    "metric.dpo.reward_rejected": Text("Implicit reward, rejected replies", "较差回复的隐含奖励"),
    "metric.nll_chosen": Text("Negative log-likelihood of the chosen replies", "较好回复的负对数似然"),
    "metric.logprob_chosen": Text("Log-probability of the chosen replies", "较好回复的对数概率"),
    "metric.logprob_rejected": Text("Log-probability of the rejected replies", "较差回复的对数概率"),
    "metric.kl_loss": Text("KL term of the loss (k3)", "损失中的 KL 项（k3）"),
    "metric.group_deviation": Text("Deviation of the rewards within a group", "组内奖励的标准差"),
    "metric.solved_alike": Text("Groups whose replies all earn the same", "组内得分全部相同的比例"),
    "metric.clip_fraction": Text("Clipped share", "被裁剪的比例"),
    "metric.explained_variance": Text("Explained variance of the critic", "价值网络的解释方差"),
    "metric.eos_rate": Text("Replies that end by themselves", "自行结束的回复比例"),
    "metric.length": Text("Reply length", "回复长度"),
    "metric.translate.loss": Text("Loss of smoothed targets", "平滑目标的损失"),
    "metric.plain_loss": Text("Loss without smoothing", "不平滑的损失"),
    "metric.validation_loss": Text("Validation loss", "验证损失"),
    "metric.validation_perplexity": Text("Validation perplexity", "验证困惑度"),
    "metric.validation_bleu": Text("BLEU of greedy validation translations", "验证集贪心译文的 BLEU"),
    "unit.nats_token": Text("nats per token", "奈特/词元"),
    "unit.nats_pair": Text("nats per pair", "奈特/偏好对"),
    "unit.nats_example": Text("nats per example", "奈特/样本"),
    "unit.nats_reply": Text("nats per reply", "奈特/回复"),
    "unit.bits_byte": Text("bits per byte", "比特/字节"),
    "unit.perplexity": Text("perplexity", "困惑度"),
    "unit.bleu": Text("BLEU (signature: see Translation)", "BLEU（签名见“翻译”一节）"),
    "unit.rate": Text("learning rate", "学习率"),
    "unit.norm": Text("L2 norm", "L2 范数"),
    "unit.tokens_second": Text("tokens per second", "词元/秒"),
    "unit.share": Text("share", "比例"),
    "unit.reward": Text("normalised reward", "归一化奖励"),
    "unit.raw_reward": Text("raw reward", "原始奖励"),
    "unit.score": Text("score", "分数"),
    "unit.tokens": Text("tokens", "词元"),
    "unit.none": Text("value", "数值"),
    # language modelling
    "tokens.title": Text("Tokens", "词元"),
    "tokens.note": Text(
        "Each coloured piece is one token, with its id below it. The colours only tell neighbours apart.",
        "每个色块是一个词元，下方是它的编号。颜色只用来区分相邻的词元。",
    ),
    "tokens.sentences": Text("The same sentences under each vocabulary", "同样的句子，不同的词表"),
    "tokens.heldout": Text("On held-out text", "在留出文本上"),
    "tokens.heldout.note": Text(
        "All vocabularies come from the training text of this run and may have as many ids as its tokenizer; those of "
        "characters and words saw a megabyte of each language. A vocabulary of words spends the fewest tokens and pays "
        "for it with words that it cannot read or write; bytes know everything.",
        "所有词表都由本次运行的训练文本得到，编号数量的上限与分词器相同；字符词表和单词词表每种语言只读取一兆字节。"
        "单词词表用的词元最少，代价是有些词既读不懂也写不出；字节则什么都能表示。",
    ),
    "tokens.kind.bytes": Text("Byte-level BPE", "字节级 BPE"),
    "tokens.kind.characters": Text("Characters", "字符"),
    "tokens.kind.words": Text("Words", "单词"),
    "tokens.kind.words-jieba": Text("Words by jieba", "结巴分词"),
    "tokens.vocabulary": Text("{kind} ({ids} ids)", "{kind}（{ids} 个编号）"),
    "tokens.vocabulary.column": Text("Vocabulary", "词表"),
    "tokens.count": Text("Tokens", "词元数"),
    "tokens.unknown": Text("Unknown", "未登录"),
    "tokens.rate": Text("Characters per token", "每词元字符数"),
    "tokens.unknown.note": Text(
        "“unk” marks what the vocabulary has no entry for: all such words share one id and cannot be written back.",
        "“unk” 表示词表中没有的内容：它们共用同一个编号，无法还原。",
    ),
    "tokens.part.note": Text(
        "Hexadecimal numbers in angle brackets are bytes that are only a part of a character.",
        "尖括号中的十六进制数是字节，只是一个字符的一部分。",
    ),
    "tokens.unreadable": Text("{file} could not be read.", "无法读取 {file}。"),
    "recurrent.title": Text("Recurrent language models", "循环语言模型"),
    "recurrent.note": Text(
        "One token at a time, and all that came before in one state. The state is carried through the whole text, the "
        "gradient through a window of it. Perplexity: exp of the mean loss, ends of sentences counted like words.",
        "一次读一个词元，之前的一切都记在一个状态里。状态贯穿全文传递，梯度只在一个窗口内回传。困惑度为平均损失的指数，句末标记与词同样计数。",
    ),
    "recurrent.facts": Text(
        "{cell}, {parameters} parameters, trained on {tokens} tokens of {corpus}.",
        "{cell}，{parameters} 个参数，训练文本为 {corpus} 的 {tokens} 个词元。",
    ),
    "recurrent.averaged": Text(
        "Its weights are a mean over the last part of the training.", "其权重是训练后段权重的平均值。"
    ),
    "recurrent.unknown": Text(
        "Of the test's tokens {share} are &lt;unk&gt;; perplexities over other vocabularies do not compare.",
        "测试部分有 {share} 的词元是 &lt;unk&gt;；词表不同，困惑度不可比较。",
    ),
    "recurrent.treebank": Text(
        "The counts are those of the Penn Treebank, so the figures may be held against published ones.",
        "各部分的词元数与 Penn Treebank 一致，因此可与已发表的数字对照。",
    ),
    "recurrent.part": Text("Part", "部分"),
    "recurrent.measured": Text("Tokens measured", "测量的词元数"),
    "recurrent.evenly": Text("Guessing every token evenly", "均匀随机猜测"),
    "recurrent.train": Text("Training (its beginning)", "训练部分（开头）"),
    "recurrent.valid": Text("Validation", "验证部分"),
    "recurrent.test": Text("Test", "测试部分"),
    "recurrent.samples": Text("What it writes", "它写的文字"),
    "recurrent.samples.note": Text(
        "Drawn token by token from its own distribution, after the end of a sentence.",
        "从句末开始，按模型自身的分布逐个词元抽取。",
    ),
    "ngram.title": Text("Counted language models", "基于计数的语言模型"),
    "ngram.note": Text(
        "A model without a network: how often did these few tokens follow each other, smoothed by Kneser and Ney? Each "
        "more token of context helps less, because ever fewer of the longer sequences were seen before.",
        "没有神经网络的模型：这几个词元相继出现过多少次？再用 Kneser-Ney 方法平滑。上下文每多一个词元，收益就更小，"
        "因为越长的序列，先前见过的就越少。",
    ),
    "ngram.facts": Text(
        "{tokens} tokens were counted up to {order} at a time. Vocabulary: {kind}, {ids} ids.",
        "共统计 {tokens} 个词元，最多连续 {order} 个。词表：{kind}，{ids} 个编号。",
    ),
    "ngram.bits": Text("Held-out text costs {bits} bits per byte.", "留出文本每字节 {bits} 比特。"),
    "ngram.bits_at_least": Text(
        "Held-out text costs at least {bits} bits per byte: spaces, and unknown words ({share} of all), are not predicted.",
        "留出文本每字节至少 {bits} 比特：空格和未登录词（占 {share}）不在预测之列。",
    ),
    "ngram.order": Text("Order", "阶"),
    "ngram.ngrams": Text("Different n-grams", "不同的 n 元组"),
    "ngram.samples": Text("What it writes", "它写的文字"),
    "ngram.samples.note": Text(
        "Drawn token by token. A few words hang together, nothing longer does: it remembers no more than that.",
        "逐个词元抽取。几个词之内连得上，再长就不行了：它只记得这么多。",
    ),
    # translation
    "translate.title": Text("Translation", "翻译"),
    "translate.note": Text(
        "One network reads a sentence, another writes it in the other language, token by token. Every figure was measured on "
        "pairs that it did not learn from.",
        "一个网络读入句子，另一个网络逐个词元地用另一种语言写出。所有数字都在没有学过的句对上测得。",
    ),
    "translate.facts": Text(
        "{directions}: {network}, {parameters} parameters, one vocabulary of {ids} ids for both languages, {epochs} epochs in "
        "{steps} steps.",
        "{directions}：{network}，{parameters} 个参数，两种语言共用 {ids} 个编号的词表，{epochs} 轮，共 {steps} 步。",
    ),
    "translate.network.transformer": Text("Transformer", "Transformer 网络"),
    "translate.network.recurrent": Text("recurrent network", "循环网络"),
    "translate.pairs": Text("What it learned from and was tested on", "学习与测试所用的句对"),
    "translate.pairs.count": Text("Pairs", "句对数"),
    "translate.part": Text("Part", "部分"),
    "translate.part.train": Text("Training", "训练"),
    "translate.part.validation": Text("Validation", "验证"),
    "translate.part.test": Text("Test", "测试"),
    "translate.shared": Text(
        "The data set itself has {count} training pairs that share a text with its test; they stay, as published.",
        "数据集本身有 {count} 个训练句对与其测试集有相同的句子；按发表时的样子保留。",
    ),
    "translate.test": Text("Score of the test", "测试得分"),
    "translate.test.note": Text(
        "Translated once, at the end, by beam search (beam {beam}, length penalty {penalty}). The interval says what other "
        "test sentences would have shown (95%, bootstrap over sentences), not what another seed would.",
        "只在最后翻译一次，使用束搜索（束宽 {beam}，长度惩罚 {penalty}）。区间表示换一批测试句会怎样（95%，对句子自助抽样），"
        "并不表示换一个随机种子会怎样。",
    ),
    "translate.no_test": Text(
        "The sources have no test part, so nothing was scored.", "来源没有测试部分，因此没有评分。"
    ),
    "translate.direction": Text("Direction", "方向"),
    "translate.value": Text("Value [95%]", "数值 [95%]"),
    "translate.sentences": Text("Sentences", "句数"),
    "translate.by_length": Text("BLEU by the length of the source: {direction}", "按源句长度的 BLEU：{direction}"),
    "translate.unit.words": Text("Words", "词数"),
    "translate.unit.characters": Text("Characters", "字数"),
    "translate.weights.title": Text("Which weights were kept", "保留了哪一份权重"),
    "translate.weights.note": Text(
        "All measured on the validation part, its BLEU on greedy translations; in bold what was kept. Averaged: the mean of "
        "the last {count} snapshots.",
        "均在验证部分测得，BLEU 为贪心译文的得分；粗体为所保留的。“平均”指最后 {count} 份快照的平均。",
    ),
    "translate.weights": Text("Weights", "权重"),
    "translate.loss": Text("Loss, nats per token", "损失（奈特/词元）"),
    "translate.kept.last": Text("Last step", "最后一步"),
    "translate.kept.averaged": Text("Averaged", "平均"),
    "translate.kept.best": Text("Best evaluation", "最佳评估"),
    "translate.validation": Text("Validation BLEU", "验证集 BLEU"),
    "translate.samples": Text("Translations", "译文样例"),
    "translate.samples.note": Text(
        "The sentences that the recipe asks for, then the first of the test, unselected.",
        "先是配方指定的句子，然后是测试集最前面的几句，未经挑选。",
    ),
    "translate.written": Text("Its translation", "模型译文"),
    "translate.reference": Text("Reference", "参考译文"),
    "language.title": Text("Language modelling", "语言建模"),
    "language.tokenizer": Text("Tokenizer", "分词器"),
    "language.tokenizer.note": Text(
        "A byte-level BPE vocabulary of {vocabulary}. More characters per token means shorter sequences.",
        "字节级 BPE 词表，共 {vocabulary} 个词元。每个词元的字符越多，序列越短。",
    ),
    "language.characters": Text("Characters per token", "每词元字符数"),
    "language.sample": Text("Training sample", "训练样本"),
    "language.quality": Text("How well each model predicts held-out text", "各模型对留出文本的预测能力"),
    "language.quality.note": Text(
        "Every byte of the held-out documents counts once; bits per byte can be compared across tokenizers, perplexity "
        "and token accuracy only within one. Token accuracy is that of the assistant's words in held-out conversations. "
        "Fine-tuned models predict plain text worse: they have moved towards dialogue.",
        "留出文档的每个字节恰好计一次。每字节比特数可以跨分词器比较，困惑度和词元准确率只能在同一分词器内比较。词元准确率在留出对话中助手所说的词元上测得。"
        "微调后的模型对普通文本的预测会变差，因为它们偏向了对话。",
    ),
    "column.language": Text("Language", "语言"),
    "column.model": Text("Model", "模型"),
    "column.bits": Text("Bits\u00a0per\u00a0byte", "每字节比特数"),
    "column.perplexity": Text("Perplexity", "困惑度"),
    "column.token_accuracy": Text("Token accuracy", "词元准确率"),
    "column.repetition": Text("Repetition rate", "重复率"),
    "column.reward": Text("Mean reward", "平均奖励"),
    "language.base_row": Text("Base, all held-out text", "预训练模型（全部留出文本）"),
    "language.heldout": Text("Held-out text of pre-training: {bytes}.", "预训练的留出文本：{bytes}。"),
    "language.sampled": Text("Read of it by the evaluation of each model: {bytes}.", "评估各模型时从中读取：{bytes}。"),
    "language.sft": Text(
        "Fine-tuning: held-out loss {loss} nats per token, held-out token accuracy {accuracy}.",
        "监督微调：留出损失每词元 {loss} 奈特，留出词元准确率 {accuracy}。",
    ),
    # fine-tuning
    "sft.title": Text("Fine-tuning: learnt, or learnt by heart?", "监督微调：学会了，还是背下来了？"),
    "sft.note": Text(
        "Each source by itself: the loss on a few of its training conversations and on its held-out ones, with the same "
        "weights. Where both fall, it learns; where the first falls and the second rises, it learns by heart.",
        "逐个来源：用同一份权重，在少量训练对话与留出对话上测得的损失。两者都下降，说明在学习；前者下降而后者上升，说明在死记硬背。",
    ),
    "sft.exact": Text(
        "Greedy replies that are, word for word, a reply that the data gives to the prompt: {train} of prompts that were "
        "trained on, {heldout} of held-out ones.",
        "贪心回复与数据给该提示的某个回复逐字相同的比例：训练过的提示为 {train}，留出的提示为 {heldout}。",
    ),
    "sft.more": Text("More sources: {count}", "更多来源：{count} 个"),
    "sft.source": Text("{name}: seen {times} times", "{name}：见过 {times} 次"),
    "sft.source_gap": Text(
        "{name}: seen {times} times, gap {gap} nats per token", "{name}：见过 {times} 次，差距 {gap} 奈特/词元"
    ),
    "sft.train": Text("Trained on", "训练过"),
    "sft.heldout": Text("Held out", "留出"),
    "sft.none": Text("nothing is held out", "没有留出对话"),
    "sft.not_measured": Text("none of {count} was measured", "{count} 段均未测量"),
    "sft.loss": Text("Loss", "损失"),
    "sft.equal": Text("Equal, %", "逐字相同 %"),
    "sft.run": Text("Run, %", "最长片段 %"),
    "sft.copied": Text("Copied, %", "照抄 %"),
    "sft.size": Text("{conversations} conversations, {prompts} prompts", "对话 {conversations} 段，提示 {prompts} 个"),
    "sft.tokens": Text("{count} tokens", "{count} 词元"),
    "sft.people": Text("people {value}", "人写的 {value}"),
    "sft.columns": Text(
        "Seen: how often training passed over a conversation of the source, not counting other sources that hold it too. "
        "Loss: nats per token. Equal: replies that are, as a whole, a reply that the data gives to the prompt. Run: the share "
        "of the reference's tokens that stands in the reply in one piece. Copied: the share of the reply's groups of four "
        "words (four characters in Chinese) that stand in any training reply, and the same of what people wrote. Small: the "
        "95% intervals.",
        "见过：训练经过该来源每段对话的次数，其他来源中相同的对话不计。损失：奈特/词元。逐字相同：整个回复就是数据中对该提示的某个回复。最长片段：参考回复的"
        "词元中，连续出现在回复里的最长一段所占比例。照抄：回复中每四个词（中文为四个字）组成的片段里，出现在任一训练回复中的比例；"
        "下方是人写的回复的同一比例。小字为 95% 区间。",
    ),
    # reward model
    "reward.title": Text("Reward model", "奖励模型"),
    "reward.note": Text(
        "A pair counts as right when the chosen reply gets the higher reward. The headline joins human preferences and "
        "human-against-sampled pairs; off-topic pairs only ask whether a reply fits its prompt and stay out of it.",
        "当较好的回复得到更高的奖励时，这一对算判对。总准确率只含人工偏好对与“人写对模型生成”的对；"
        "离题对只检验回复是否切题，不计入。",
    ),
    "reward.probes": Text("Does it see through spoilt replies?", "能否识破被破坏的回复？"),
    "reward.probes.note": Text(
        "Share of held-out prompts where the true reply scores higher than a spoilt copy of it. Below 0.5, PPO could earn "
        "reward by this trick.",
        "在留出提示上，原回复得分高于其破坏版本的比例。低于 0.5 时，PPO 可能靠这种手法骗取奖励。",
    ),
    "probe.repeated_text": Text("First half of the reply twice", "把回复的前半段说两遍"),
    "probe.word_salad": Text("Its words in random order", "打乱词序"),
    "probe.prompt_copy": Text("The user's own words given back", "照抄用户的话"),
    "probe.longer": Text("The reply said twice", "把回复说两遍"),
    "probe.cut_short": Text("First third of the reply", "只取回复的前三分之一"),
    "probe.off_topic": Text("A person's reply to another prompt", "对另一提示的人写回复"),
    "reward.counted": Text("Together (human and sampled)", "合计（人工与采样）"),
    "reward.kind.human": Text("Human preference", "人工偏好"),
    "reward.kind.sampled": Text("Human against sampled reply", "人写对模型生成"),
    "reward.kind.off_topic": Text("Human against off-topic reply", "人写对离题回复"),
    "reward.kind.cut_short": Text("Whole reply against its beginning", "完整回复对截短回复"),
    "reward.chance": Text("chance", "瞎猜"),
    "reward.calibration": Text("Calibration error", "校准误差"),
    "reward.length": Text("Correlation of reward with length", "奖励与长度的相关系数"),
    "reward.figures": Text("How far can the rewards be trusted?", "奖励有多可信？"),
    "reward.calibration.note": Text(
        "how far the stated probabilities are from the observed shares; 0 is best",
        "所给概率与实际比例的平均差距；0 为最佳",
    ),
    "reward.length.note": Text("near 0: it does not simply like long replies", "接近 0：并非只偏爱长回复"),
    "reward.normalisation": Text("Raw reward, mean and spread", "原始奖励的均值与标准差"),
    "reward.normalisation.note": Text(
        "rewards in this report are shifted and scaled by these", "报告中的奖励已按此平移和缩放"
    ),
    "reward.on_pairs": Text(
        "taken over the replies of the held-out pairs, since there were no conversations to sample from",
        "因没有可供采样的对话，在留出对的回复上计算",
    ),
    "reward.verified": Text("Normalised, on other replies: mean, spread", "归一化后在另一批回复上的均值与标准差"),
    "reward.verified.note": Text(
        "should be 0 and 1; {n} replies of the same policy, each figure with its standard error",
        "应为 0 和 1；同一策略的 {n} 个回复，各附标准误",
    ),
    "reward.longer": Text("The better reply is the longer one", "较好的回复更长的比例"),
    "reward.longer.note": Text(
        "in the held-out pairs themselves, two of one length counted half; near 0.5: length tells nothing",
        "留出对本身的情况，等长计一半；接近 0.5：长度说明不了好坏",
    ),
    "reward.sources": Text("Accuracy by source", "各来源的准确率"),
    "reward.sources.note": Text(
        "Small sources have wide intervals. “!”: the whole interval lies below 0.5, the worse reply is preferred there.",
        "来源越小，区间越宽。“!”表示整个区间低于 0.5：在该来源上偏向较差的回复。",
    ),
    "reward.calibration_curve": Text("Is it right as often as it is sure?", "有多大把握，就有多准吗？"),
    "reward.confidence": Text("probability that it gives to the reply that it prefers", "它认为所选回复更好的概率"),
    "reward.right_share": Text("share of pairs where that reply is the better one", "所选回复确实更好的比例"),
    "reward.calibration.summary": Text(
        "Calibration error {error} on {n} pairs (without the off-topic ones). Below the dashed line it is surer than right.",
        "{n} 对（不含离题对）上的校准误差为 {error}。低于虚线表示过于自信。",
    ),
    "reward.margins": Text("How far apart it puts the two replies", "两个回复的奖励相差多少"),
    "reward.margin": Text(
        "raw reward of the better reply less that of the worse", "较好回复的原始奖励减去较差回复的原始奖励"
    ),
    "reward.margins.wrong": Text("worse reply preferred: {n}", "偏向较差的回复：{n}"),
    "reward.margins.right": Text("better reply preferred: {n}", "偏向较好的回复：{n}"),
    "reward.margins.summary": Text(
        "The outermost steps hold all that lies beyond them.", "最外侧的两格包含更远的所有对。"
    ),
    "column.kind": Text("Kind of pair", "偏好对的种类"),
    "column.accuracy95": Text("Accuracy [95%]", "准确率 [95%]"),
    "column.spoilt": Text("Spoilt reply", "被破坏的回复"),
    "column.pairs": Text("Pairs", "对数"),
    # ppo
    "ppo.title": Text("What PPO changed", "PPO 改变了什么"),
    "ppo.note": Text(
        "Measured on {n} held-out prompts, the same for both models; the gain is paired, prompt by prompt.",
        "在 {n} 个留出提示上测得，两个模型使用相同的提示；提升量按提示逐一配对计算。",
    ),
    "ppo.reward": Text("Mean reward", "平均奖励"),
    "ppo.length": Text("Mean length, tokens", "平均长度（词元）"),
    "ppo.eos": Text("Replies that end by themselves", "自行结束的回复比例"),
    "ppo.repetition": Text("Repetition rate", "重复率"),
    "ppo.kl": Text("KL from the fine-tuned model, nats per reply", "与微调模型的 KL 散度（奈特/回复）"),
    "ppo.error": Text("± {error}, paired", "± {error}（配对）"),
    "ppo.measure": Text("Measure", "指标"),
    "ppo.change": Text("Change", "变化"),
    "ppo.scatter": Text("Reward of each prompt's reply, before and after", "每个提示的回复在 PPO 前后的奖励"),
    "ppo.scatter.note": Text(
        "{better} of {n} prompts lie above the diagonal: better after PPO",
        "{n} 个提示中有 {better} 个在对角线之上：PPO 之后更好",
    ),
    "ppo.samples": Text("Replies before and after, with their rewards", "PPO 前后的回复及其奖励"),
    "ppo.more_samples": Text("{count} more", "另外 {count} 个"),
    "ppo.score": Text("reward {value}", "奖励 {value}"),
    "ppo.kl_short": Text("KL {value}", "KL {value}"),
    "ppo.total": Text("reward less KL penalty {value}", "扣除 KL 惩罚后 {value}"),
    # classification
    "classify.title": Text("Classification", "分类"),
    "classify.note": Text(
        "A result counts only above the column “majority”: always saying the class that is most frequent in training. The "
        "interval beside the kept classifier says what other test items would have shown, the one beside a mean what "
        "other seeds would have.",
        "结果只有高于“多数类”一列才有意义：该列总是回答训练中最常见的类别。所保留分类器旁的区间表示换一批测试样本会怎样，"
        "平均值旁的区间表示换一批随机种子会怎样。",
    ),
    "classify.facts": Text(
        "{task}: {train} training and {heldout} held-out examples.",
        "{task}：训练样本 {train} 个，留出样本 {heldout} 个。",
    ),
    "bag.facts": Text(
        "Bag of words, {weighting}, {classifier}: {train} training and {heldout} held-out examples, {words} different words.",
        "词袋，{weighting}，{classifier}：训练样本 {train} 个，留出样本 {heldout} 个，不同的词 {words} 个。",
    ),
    "bag.counts": Text("counts", "词频"),
    "bag.tf-idf": Text("TF-IDF", "TF-IDF 词权重"),
    "bag.linear": Text("logistic regression", "逻辑回归"),
    "bag.naive-bayes": Text("naive Bayes", "朴素贝叶斯"),
    "bag.telling": Text("What it goes by", "它的依据"),
    "bag.class": Text("Class", "类别"),
    "bag.words": Text("Words that tell it most", "最能说明它的词"),
    "classify.pretrained": Text("Training began from the pre-trained model.", "训练从预训练模型开始。"),
    "classify.random": Text("Training began from random weights.", "训练从随机权重开始。"),
    "classify.cut": Text(
        "Longer than {length} tokens and cut: {train} training and {heldout} held-out examples.",
        "超过 {length} 个词元而被截短：训练样本 {train} 个，留出样本 {heldout} 个。",
    ),
    "task.classification": Text("Texts into classes", "文本分类"),
    "task.entailment": Text("Pairs of texts in order", "有序的文本对"),
    "task.similarity": Text("Pairs of texts in either order", "不分先后的文本对"),
    "task.multiple_choice": Text("Multiple choice", "多项选择"),
    "classify.accuracy": Text("Accuracy", "准确率"),
    "classify.f1": Text("F1 of “{label}”", "“{label}”的 F1"),
    "classify.macro_f1": Text("F1, mean of the classes", "各类 F1 的平均"),
    "classify.matthews": Text("Matthews' correlation", "马修斯相关系数"),
    "classify.kept": Text("Kept classifier", "所保留的分类器"),
    "classify.majority": Text("Majority", "多数类"),
    "classify.mean": Text("Mean of {count} seeds", "{count} 个种子的平均"),
    "classify.seed": Text("Seed", "种子"),
    "classify.seeds": Text("Each of the {count} seeds", "{count} 个种子各自的结果"),
    "classify.confusion": Text("Which class is taken for which?", "哪一类被当成了哪一类？"),
    "classify.confusion.note": Text(
        "Held-out examples of the kept classifier. Rows: the true class. Columns: the class that was said. What is right "
        "stands on the diagonal.",
        "所保留分类器在留出样本上的结果。行：真实类别；列：给出的类别。判对的在对角线上。",
    ),
    "classify.confusion.large": Text(
        "The table of {count} classes is too wide for a page; it stands in result.json.",
        "{count} 个类别的表格对页面来说太宽，保存在 result.json 中。",
    ),
    "classify.mistakes": Text("Some held-out examples that it got wrong", "一些判错的留出样本"),
    "classify.mistakes.note": Text(
        "Drawn by a hash, not chosen; long texts are shown by their beginning.",
        "由哈希抽取，未经挑选；长文本只显示开头。",
    ),
    "classify.true": Text("True", "真实"),
    "classify.said": Text("Said", "给出"),
    # replies
    "replies.title": Text("Replies", "回复"),
    "replies.bleu": Text("BLEU against reference replies", "与参考回复相比的 BLEU"),
    "replies.bleu.note": Text(
        "A question has many good answers, so BLEU of dialogue is low by nature; "
        "compare it between runs, not with translation.",
        "一个问题有许多好回复，对话的 BLEU 天然偏低；请在不同运行之间比较，不要与翻译比较。",
    ),
    "replies.signatures": Text(
        "Signatures: how each score was computed. Scores with other signatures cannot be compared.",
        "签名：各项评分的计算方式。签名不同的评分不能互相比较。",
    ),
    "replies.greetings": Text("Greetings and simple questions", "问候与简单问题"),
    "replies.greetings.note": Text(
        "Replies of the {model} model. A reply counts when it matches a reference of the data.",
        "由{model}作答。回复与数据中的某个参考一致时计为答对。",
    ),
    "replies.matched": Text("{matched} of {total} matched", "{total} 个中答对 {matched} 个"),
    "replies.yes": Text("matched", "一致"),
    "replies.no": Text("not matched", "不一致"),
    "column.score": Text("Score", "评分"),
    # samples
    "samples.title": Text("The same prompt, three models", "同一个提示，三个模型"),
    "samples.note": Text(
        "Unselected samples. The base model only continues text; SFT has learned to answer; PPO has learned what the "
        "reward model prefers.",
        "未经挑选的样例。预训练模型只会续写文本；微调模型学会了回答；PPO 模型学会了奖励模型的偏好。",
    ),
    # data
    "data.title": Text("Data and licences", "数据与许可"),
    "data.note": Text(
        "The terms travel with every bundle, in its model card.", "这些条款随每个模型包一起保存在其模型卡中。"
    ),
    "data.licence": Text("Licence: {licence}", "许可：{licence}"),
    "data.licence_by": Text("Licence: {licence}. {attribution}", "许可：{licence}。{attribution}"),
    "data.used_by": Text("Used by: {stages}", "用于：{stages}"),
    "amount.records": Text("{count} records", "{count} 条"),
    "amount.tokens": Text("{count} tokens", "{count} 词元"),
    "amount.conversations": Text("{count} conversations", "{count} 段对话"),
    "amount.heldout_pairs": Text("{count} held-out pairs", "{count} 个留出偏好对"),
    "data.first": Text("first met at {place}", "首次出现于 {place}"),
    "data.cut": Text("What was shortened, but used", "截短后仍使用的数据"),
    "data.cut.note": Text(
        "Too long for a row: the beginning of the prompt and the end of the reply were cut.",
        "超过一行的长度：截去了提示的开头与回复的结尾。",
    ),
    "data.conversations": Text("Conversations that fine-tuning learned from", "监督微调所用的对话"),
    "data.pairs": Text("Preference pairs that were made of them", "由此得到的偏好对"),
    "data.left_out": Text("What was left out, and why", "剔除的数据及原因"),
    "data.left_out.note": Text(
        "Nothing is dropped silently: every record that a stage could not use is counted here.",
        "没有任何数据被悄悄丢弃：每条未能使用的记录都计在这里。",
    ),
    "data.nothing_left_out": Text("Nothing was left out.", "没有剔除任何数据。"),
    "column.source": Text("Source", "来源"),
    "column.conversations": Text("Conversations", "对话数"),
    "column.tokens": Text("Tokens", "词元数"),
    "column.training": Text("Training", "训练"),
    "column.heldout": Text("Held out", "留出"),
    "column.reason": Text("Reason", "原因"),
    "column.count": Text("Records", "条数"),
    # cost
    "prediction.title": Text("Predicted and achieved", "预测与实际"),
    "prediction.note": Text(
        "Said before training began, and what came of it. Time and memory were measured on this machine by a few real updates, "
        "or stated by the recipe; bits per byte come from a law fitted to earlier runs. A figure holds within 20 %, bits per "
        "byte within the range in brackets.",
        "训练开始前给出的预测，以及实际结果。用时与内存由本机上的几次真实更新测得，或由配方给出；每字节比特数来自对以往运行拟合的规律。"
        "误差在 20% 以内即为准确；每字节比特数以方括号中的区间为准。",
    ),
    "prediction.recipe": Text("Whole recipe", "整个配方"),
    "prediction.minutes": Text("Minutes", "分钟"),
    "prediction.minutes_here": Text("Minutes, by the first stages here", "分钟（按本机前几个阶段推算）"),
    "prediction.memory_gib": Text("GiB at most", "内存峰值 GiB"),
    "prediction.bits_per_byte": Text("Bits per byte", "每字节比特数"),
    "prediction.held": Text("held", "准确"),
    "prediction.missed": Text("missed", "偏离"),
    "prediction.elsewhere": Text("another pace", "快慢不同"),
    "column.figure": Text("Figure", "指标"),
    "column.predicted": Text("Predicted", "预测"),
    "column.achieved": Text("Achieved", "实际"),
    "column.difference": Text("Difference", "相差"),
    "cost.title": Text("Time, size and speed", "用时、大小与速度"),
    "cost.total": Text("Whole recipe", "整个配方"),
    "cost.note": Text(
        "Tokens are those that passed through training steps, padding included; for PPO those of prompts and replies in its "
        "updates. The time of sampling replies and of measuring is in the stage's time.",
        "词元指经过训练步的词元，含填充；PPO 则为更新中的提示与回复。采样回复与评测的时间计入该阶段的用时。",
    ),
    "column.stage": Text("Stage", "阶段"),
    "column.time": Text("Time", "用时"),
    "cost.steps": Text("{count} steps", "{count} 步"),
    "column.speed": Text("Tokens/s", "词元/秒"),
    "column.parameters": Text("Weights", "参数"),
    "run.finished": Text("finished", "完成"),
    "run.skipped": Text("unchanged, skipped", "未变，跳过"),
    "run.unfinished": Text("not finished", "未完成"),
    "time.seconds": Text("{seconds} s", "{seconds} 秒"),
    "time.minutes": Text("{minutes} min {seconds} s", "{minutes} 分 {seconds} 秒"),
    "time.hours": Text("{hours} h {minutes} min", "{hours} 小时 {minutes} 分"),
    # settings
    "settings.title": Text("Every setting", "全部设置"),
    "settings.note": Text(
        "Derived: worked out from the few that the recipe states. Resolved: all fields that the stage ran with.",
        "“推导”指由配方中少数设置算出的值；“最终”指该阶段实际使用的全部字段。",
    ),
    "settings.derived": Text("Derived settings: {stage}", "推导的设置：{stage}"),
    "settings.config": Text("Resolved settings: {stage}", "最终设置：{stage}"),
    "column.setting": Text("Setting", "设置"),
    "column.value": Text("Value", "值"),
    # reproduce
    "again.title": Text("Make it again", "复现"),
    "again.note": Text(
        "The same command, versions, seed and thread count give the same weights, bit for bit.",
        "相同的命令、版本、随机种子和线程数会得到逐位相同的权重。",
    ),
    "again.command": Text("Command", "命令"),
    "again.versions": Text("Versions", "版本"),
    "again.machine": Text("Machine", "机器"),
    "machine.system": Text("Operating system", "操作系统"),
    "machine.processor": Text("Processor", "处理器"),
    "machine.cores": Text("Cores that the run may use", "可用的核心数"),
    "machine.memory_gib": Text("Memory, GiB", "内存（GiB）"),
    "machine.device": Text("Device", "设备"),
    "machine.threads": Text("Threads", "线程数"),
    "machine.seed": Text("Seed", "随机种子"),
    "column.part": Text("Part", "组件"),
    "column.version": Text("Version", "版本"),
    # watching a training
    "watch.kicker": Text("Live", "实时"),
    "watch.waiting": Text(
        "{run}: nothing has been logged yet. The page goes on by itself.", "{run}：尚无记录，出现后页面会自动更新。"
    ),
    "watch.no_stage": Text("{run}: no figures of {stage} so far.", "{run}：暂无 {stage} 的数据。"),
    "watch.waiting_here": Text(
        "{run}: nothing has been logged yet; the first figures will stand here. Ctrl-C leaves.",
        "{run}：尚无记录；第一批数据出来后会显示在这里。按 Ctrl-C 退出。",
    ),
    "watch.lost": Text(
        "Nobody answers any more: <code>duihua watch</code> was stopped. What you see is its last answer.",
        "已无应答：<code>duihua watch</code> 已停止，页面显示的是最后一次的数据。",
    ),
    "watch.footer": Text(
        "Written by <code>duihua watch</code> from the files that the training writes; it asks nothing of it and nothing of "
        "the network.",
        "由 <code>duihua watch</code> 根据训练写出的文件生成；既不打扰训练，也不访问网络。",
    ),
    "watch.running": Text("running", "运行中"),
    "watch.finished": Text("finished", "已完成"),
    "watch.still": Text("no new figures for two minutes", "两分钟没有新数据"),
    "watch.stages": Text("Stages", "阶段"),
    "watch.axis": Text("Over", "横轴"),
    "watch.axis.step": Text("steps", "步数"),
    "watch.axis.tokens": Text("tokens", "词元数"),
    "watch.axis.minutes": Text("minutes", "分钟"),
    "watch.step": Text("Step {step} of {steps}", "第 {step} 步，共 {steps} 步"),
    "watch.step_alone": Text("Step {step}", "第 {step} 步"),
    "watch.left": Text("{left} left", "剩余 {left}"),
    "watch.so_far": Text("{time} so far", "已用 {time}"),
    "watch.loss": Text("Training loss", "训练损失"),
    "watch.bits_per_byte": Text("Bits per byte (training text)", "每字节比特数（训练文本）"),
    "watch.heldout_bits_per_byte": Text("Bits per byte (held out)", "每字节比特数（留出文本）"),
    "watch.tokens_per_second": Text("Tokens per second", "每秒词元数"),
    "watch.utilisation": Text("Utilisation (of bare matrix products)", "利用率（占纯矩阵乘法）"),
    "watch.gradient_norm": Text("Gradient norm", "梯度范数"),
    "watch.learning_rate": Text("Learning rate", "学习率"),
    "watch.heldout_loss": Text("Held-out loss", "留出损失"),
    "watch.by_source": Text("Loss by source", "各来源的损失"),
    "watch.trained_on": Text("training conversations", "训练对话"),
    "watch.held_out": Text("held out", "留出对话"),
    "watch.reward": Text("Reward", "奖励"),
    "watch.kl": Text("KL, nats a reply", "KL（奈特/回复）"),
    "watch.accuracy": Text("Pair accuracy", "偏好对准确率"),
    "watch.skipped_steps": Text("Steps not taken", "跳过的步数"),
    "watch.sample": Text("Latest sample", "最近的样例"),
    "watch.findings": Text("What the figures warn of", "数据中的警示"),
    "watch.findings.note": Text(
        "As <code>duihua doctor ppo</code> says it of the rollouts so far, in English.",
        "即 <code>duihua doctor ppo</code> 对目前各轮采样的诊断（英文）。",
    ),
    "watch.problem": Text("problem", "问题"),
    "watch.note": Text("note", "提示"),
    "watch.curves": Text("Curves", "曲线"),
    "watch.compared": Text("Side by side", "并列比较"),
    "watch.run": Text("Run", "运行"),
    "watch.stage": Text("Stage", "阶段"),
    "watch.state": Text("State", "状态"),
    "watch.place": Text("Step", "步"),
    "watch.remaining": Text("Left", "剩余"),
    # glossary
    "glossary.title": Text("Words for students", "术语表"),
}
