// English and Chinese are equals: one table, and the compiler holds that both have every text.

const en = {
  brand: 'Duihua',
  newChat: 'New chat',
  search: 'Search conversations',
  noHistory: 'Your conversations will appear here.',
  noMatches: 'Nothing found.',
  today: 'Today',
  yesterday: 'Yesterday',
  week: 'Last seven days',
  older: 'Older',
  untitled: 'New conversation',
  rename: 'Rename',
  remove: 'Delete',
  confirmRemove: 'Delete this conversation for good?',
  save: 'Save',
  cancel: 'Cancel',
  saveAndSend: 'Save and send',
  menu: 'Conversations',
  close: 'Close',
  settings: 'Settings',
  theme: 'Theme',
  themeAuto: 'As the system',
  themeLight: 'Light',
  themeDark: 'Dark',
  language: 'Language',
  model: 'Model',
  stages: {
    base: 'base has only read text: it continues rather than answers.',
    sft: 'sft was taught to answer.',
    ppo: 'ppo was taught to answer, then tuned towards what people prefer.',
  } as Record<string, string>,
  systemPrompt: 'System prompt',
  systemHint: 'Kept at the top of the conversation.',
  sampling: 'Sampling',
  temperature: 'Temperature',
  temperatureHint: '0 always takes the likeliest token; higher is livelier.',
  topP: 'Top-p',
  topPHint: 'Keep the likeliest tokens that together reach this probability.',
  topK: 'Top-k',
  topKHint: 'Keep this many likeliest tokens; 0 keeps all.',
  minP: 'Min-p',
  minPHint: 'Drop tokens less likely than this share of the likeliest one.',
  repetition: 'Repetition penalty',
  repetitionHint: '1 is off; higher repeats less.',
  maxTokens: 'Longest reply',
  maxTokensHint: 'In tokens.',
  seed: 'Seed',
  seedHint: 'The same seed gives the same reply. Empty: a new one each time.',
  resetSampling: 'Defaults',
  inside: 'Look inside',
  insideHint: 'What the model does with a short text: attention, each layer, each step in numbers.',
  insideText: 'Text to look at',
  insideOpen: 'Show',
  insideFailed: 'That did not work',
  translation: 'Translation',
  translate: 'Translate',
  translating: 'Translating…',
  direction: 'Direction',
  turn: 'Swap',
  toTranslate: 'Text to translate',
  toTranslateHint: 'A sentence a line…',
  translated: 'Translation of the text',
  translateKeys: 'or Ctrl+Enter',
  translateHint: 'A small model knows the kind of sentences that it learnt from; check what matters.',
  backToChat: 'Chat',
  shortcuts: 'Keys',
  keySend: 'Send',
  keyLine: 'New line',
  keyStop: 'Stop the reply',
  keyNew: 'New chat',
  keySearch: 'Search',
  welcome: 'What shall we talk about?',
  limitsSmall: (size: string, sources: string[]) =>
    `This model has ${size} parameters, which is few${sources.length ? `, and has learnt from ${sources.join(', ')}` : ''}. Beyond what it learnt it babbles. Be kind to it, and do not trust its facts.`,
  limitsLarge: (size: string) => `This model has ${size} parameters. It can be wrong; check what matters.`,
  examples: ['Hello! How are you?', 'What is your name?', '你好，今天怎么样？', '你喜欢什么音乐？'],
  message: 'Message',
  placeholder: 'Write a message…',
  send: 'Send',
  stop: 'Stop',
  you: 'You',
  copy: 'Copy',
  copied: 'Copied',
  edit: 'Edit',
  regenerate: 'Write again',
  good: 'Good reply',
  bad: 'Bad reply',
  correct: 'Write a better reply',
  corrected: 'Your better reply',
  uncorrect: 'Remove your better reply',
  judge: 'Judge this reply',
  unanswered: 'No reply came.',
  answer: 'Ask again',
  previousVersion: 'Previous version',
  nextVersion: 'Next version',
  version: (n: number, of: number) => `${n} of ${of}`,
  toEnd: 'To the latest message',
  thinking: 'Reading…',
  replyDone: 'Reply',
  stopped: 'Stopped here.',
  cutOff: 'Cut off at the longest reply that is set.',
  interrupted: 'This reply was interrupted.',
  failed: 'This reply failed',
  dropped: (n: number) => n === 1
      ? 'The oldest turn no longer fits into the model and was left out.'
      : `The oldest ${n} turns no longer fit into the model and were left out.`,
  tokens: 'tokens',
  perSecond: 'tokens/s',
  firstToken: 's to the first',
  context: (used: number, size: number) => `${used} of ${size} tokens of context`,
  emptyReply: '(an empty reply)',
  conversation: 'Conversation',
  loading: 'The model is loading…',
  offline: 'The server does not answer. Is duihua serve still running?',
  keyNeeded: 'This server asks for a key.',
  keyLabel: 'Key',
  open: 'Open',
  local: 'Everything stays on this server.',
}

type Texts = typeof en

const zh: Texts = {
  brand: '对话',
  newChat: '新对话',
  search: '搜索对话',
  noHistory: '你的对话会显示在这里。',
  noMatches: '没有找到。',
  today: '今天',
  yesterday: '昨天',
  week: '最近七天',
  older: '更早',
  untitled: '新对话',
  rename: '重命名',
  remove: '删除',
  confirmRemove: '要永久删除这段对话吗？',
  save: '保存',
  cancel: '取消',
  saveAndSend: '保存并发送',
  menu: '对话列表',
  close: '关闭',
  settings: '设置',
  theme: '外观',
  themeAuto: '跟随系统',
  themeLight: '浅色',
  themeDark: '深色',
  language: '语言',
  model: '模型',
  stages: {
    base: 'base 只读过文本：它会续写，而不是回答。',
    sft: 'sft 学过如何回答。',
    ppo: 'ppo 学过回答，又按人们的偏好调整过。',
  },
  systemPrompt: '系统提示词',
  systemHint: '始终保留在对话的开头。',
  sampling: '采样',
  temperature: '温度',
  temperatureHint: '0 总是取概率最大的词元；越高越活泼。',
  topP: 'Top-p',
  topPHint: '只保留累计概率达到此值的最可能词元。',
  topK: 'Top-k',
  topKHint: '只保留这么多个最可能的词元；0 表示全部保留。',
  minP: 'Min-p',
  minPHint: '去掉概率低于最大概率此比例的词元。',
  repetition: '重复惩罚',
  repetitionHint: '1 为关闭；越高越少重复。',
  maxTokens: '回复上限',
  maxTokensHint: '以词元计。',
  seed: '随机种子',
  seedHint: '种子相同，回复相同。留空则每次不同。',
  resetSampling: '恢复默认',
  inside: '看看模型内部',
  insideHint: '模型如何处理一小段文本：注意力、每一层的变化、每一步的数值。',
  insideText: '要查看的文本',
  insideOpen: '查看',
  insideFailed: '没有成功',
  translation: '翻译',
  translate: '翻译',
  translating: '正在翻译…',
  direction: '方向',
  turn: '互换',
  toTranslate: '要翻译的文字',
  toTranslateHint: '一行一句…',
  translated: '译文',
  translateKeys: '或按 Ctrl+Enter',
  translateHint: '小模型只熟悉它学过的那类句子，重要内容请核对。',
  backToChat: '对话',
  shortcuts: '快捷键',
  keySend: '发送',
  keyLine: '换行',
  keyStop: '停止回复',
  keyNew: '新对话',
  keySearch: '搜索',
  welcome: '今天想聊点什么？',
  limitsSmall: (size, sources) =>
    `这个模型只有 ${size}参数${sources.length ? `，从 ${sources.join('、')} 学习过` : ''}。超出学过的内容就会胡言乱语。请对它宽容些，也别相信它说的事实。`,
  limitsLarge: (size) => `这个模型有 ${size}参数。它可能出错，重要的内容请自行核对。`,
  examples: ['你好，今天怎么样？', '你喜欢什么音乐？', 'Hello! How are you?', 'What is your name?'],
  message: '消息',
  placeholder: '写一条消息……',
  send: '发送',
  stop: '停止',
  you: '你',
  copy: '复制',
  copied: '已复制',
  edit: '编辑',
  regenerate: '重新生成',
  good: '回复得好',
  bad: '回复得不好',
  correct: '写一个更好的回复',
  corrected: '你写的更好的回复',
  uncorrect: '删除你写的回复',
  judge: '评价这条回复',
  unanswered: '没有收到回复。',
  answer: '再问一次',
  previousVersion: '上一版本',
  nextVersion: '下一版本',
  version: (n, of) => `第 ${n} 版，共 ${of} 版`,
  toEnd: '回到最新消息',
  thinking: '正在阅读……',
  replyDone: '回复',
  stopped: '已在此停止。',
  cutOff: '已达到设定的回复上限。',
  interrupted: '这条回复中断了。',
  failed: '这条回复失败了',
  dropped: (n) => `最早的 ${n} 轮对话超出模型的上下文，已略去。`,
  tokens: '词元',
  perSecond: '词元/秒',
  firstToken: '秒后开始',
  context: (used, size) => `上下文已用 ${used} / ${size} 词元`,
  emptyReply: '（空回复）',
  conversation: '对话内容',
  loading: '模型加载中……',
  offline: '服务器没有响应。duihua serve 还在运行吗？',
  keyNeeded: '此服务器需要密钥。',
  keyLabel: '密钥',
  open: '打开',
  local: '所有内容都只保存在这台服务器上。',
}

export type Language = 'en' | 'zh'
const tables: Record<Language, Texts> = { en, zh }
const KEPT = 'duihua.language'

const kept = localStorage.getItem(KEPT)
const first: Language = kept === 'en' || kept === 'zh' ? kept : navigator.language.startsWith('zh') ? 'zh' : 'en'

class I18n {
  language = $state<Language>(first)
  get t(): Texts {
    return tables[this.language]
  }
  constructor() {
    this.#mark()
  }
  choose(language: Language) {
    this.language = language
    localStorage.setItem(KEPT, language)
    this.#mark()
  }
  #mark() {
    document.documentElement.lang = this.language === 'zh' ? 'zh-CN' : 'en'
    document.title = this.language === 'zh' ? '对话 Duihua' : 'Duihua 对话'
  }
}

export const i18n = new I18n()

// 6.3M, 596M, 1.7B; in Chinese 630 万, 5.96 亿, 17 亿.
export function parameterCount(n: number): string {
  const short = (x: number) => (x >= 100 ? x.toFixed(0) : x.toPrecision(2).replace(/\.0$/, ''))
  if (i18n.language === 'zh') {
    return n >= 1e8 ? `${short(n / 1e8)} 亿` : n >= 1e4 ? `${Math.round(n / 1e4)} 万` : `${n}`
  }
  return n >= 1e9 ? `${short(n / 1e9)}B` : n >= 1e6 ? `${short(n / 1e6)}M` : n >= 1e3 ? `${short(n / 1e3)}K` : `${n}`
}

// "fr" as the reader calls it: French, 法语.
export function languageName(code: string): string {
  return new Intl.DisplayNames(i18n.language === 'zh' ? 'zh-Hans' : 'en', { type: 'language' }).of(code) ?? code
}
