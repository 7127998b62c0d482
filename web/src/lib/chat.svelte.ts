// What the page knows and does: the list of conversations, the open one, and the reply that is being written.
//
// The server keeps everything. The page asks it to add a message or to write a reply, and shows what comes back; a reload
// in the middle of a reply therefore finds the part that was written. The open conversation's id stands in the address
// (#...), so that reload, back and bookmarks work.

import * as api from './api'
import { ApiError } from './api'
import { i18n } from './i18n.svelte'
import { newestLeaf, pathTo } from './tree'
import type { Conversation, ConversationSummary, Message, Settings, Status, Vote } from './types'

// Where neither the conversation nor the model says otherwise.
const FALLBACK: Settings = {
  temperature: 0.7,
  top_p: 0.9,
  top_k: 0,
  min_p: 0,
  repetition_penalty: 1,
  max_tokens: 256,
  seed: null,
}

export interface Live {
  conversationId: string
  messageId: string | null
  tokens: number
  startedAt: number
  firstAt: number | null
}

class Chat {
  status = $state<Status | null>(null)
  list = $state<ConversationSummary[]>([])
  search = $state('')
  open = $state.raw<Conversation | null>(null)
  live = $state<Live | null>(null)
  problem = $state('')
  needsKey = $state(false)
  announcement = $state('')
  #sending = false
  #judging: Promise<unknown> = Promise.resolve()
  // Choices for the next conversation; an open one has its own.
  #draft = $state<{ model: string; system: string; settings: Partial<Settings> }>({ model: '', system: '', settings: {} })

  get path(): Message[] {
    return this.open ? pathTo(this.open.messages, this.open.leaf_id) : []
  }
  get model(): string {
    const wanted = this.open?.model || this.#draft.model
    const known = this.status?.models.some((model) => model.id === wanted)
    return known ? wanted : (this.status?.default_model ?? '')
  }
  get modelCard() {
    return this.status?.models.find((model) => model.id === this.model)
  }
  get system(): string {
    return this.open ? this.open.system : this.#draft.system
  }
  get settings(): Settings {
    return { ...FALLBACK, ...this.modelCard?.defaults, ...this.chosen }
  }
  // What was changed for this conversation; the rest follows the model.
  get chosen(): Partial<Settings> {
    return this.open ? this.open.settings : this.#draft.settings
  }

  async begin() {
    await this.#attempt(async () => {
      while (!this.status?.ready) {
        this.status = await api.status()
        if (!this.status.ready) await new Promise((wake) => setTimeout(wake, 700))
      }
      this.needsKey = false
      await this.refreshList()
      await this.followAddress()
    })
  }

  async enterKey(key: string) {
    api.setKey(key)
    this.problem = ''
    await this.begin()
  }

  async followAddress() {
    const id = location.hash.slice(1)
    if (id === (this.open?.id ?? '')) return
    if (!id) this.open = null
    else await this.#attempt(() => this.#load(id))
  }

  async refreshList() {
    const search = this.search
    const list = await api.listConversations(search)
    if (search !== this.search) return
    this.list = list
    // The server names a conversation by its first question.
    const listed = list.find((item) => item.id === this.open?.id)
    if (this.open && listed && listed.title !== this.open.title) this.open = { ...this.open, title: listed.title }
  }

  find(search: string) {
    this.search = search
    return this.#attempt(() => this.refreshList())
  }

  startNew() {
    this.open = null
    this.problem = ''
    if (location.hash) history.pushState(null, '', location.pathname + location.search)
  }

  async #load(id: string) {
    this.problem = ''
    try {
      this.open = await api.getConversation(id)
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error
      this.startNew()
    }
  }

  rename(id: string, title: string) {
    return this.#attempt(async () => {
      await api.updateConversation(id, { title })
      if (this.open?.id === id) this.open = { ...this.open, title }
      await this.refreshList()
    })
  }

  remove(id: string) {
    return this.#attempt(async () => {
      if (this.live?.conversationId === id) await this.stop()
      await api.deleteConversation(id)
      if (this.open?.id === id) this.startNew()
      await this.refreshList()
    })
  }

  change(changes: { model?: string; system?: string; settings?: Partial<Settings> }) {
    const open = this.open
    if (!open) {
      this.#draft = { ...this.#draft, ...changes }
      return
    }
    this.open = { ...open, ...changes }
    return this.#attempt(() => api.updateConversation(open.id, changes))
  }

  // False when the text did not even reach the server, and so must be given back to the writer.
  async send(text: string): Promise<boolean> {
    if (this.#sending || this.live) return false
    this.#sending = true
    let kept = false
    await this.#attempt(async () => {
      if (!this.open) {
        this.open = await api.createConversation({ ...this.#draft, model: this.model })
        history.pushState(null, '', `#${this.open.id}`)
      }
      await this.#say(this.open.leaf_id, text, () => {
        kept = true
        this.#sending = false
      })
    })
    this.#sending = false
    return kept
  }

  // A new version of a question, beside the old one, and a reply to it.
  edit(message: Message, text: string) {
    return this.#attempt(() => this.#say(message.parent_id, text))
  }

  // Another version of a reply, or a first one to a question that got none.
  answer(message: Message) {
    const parent = message.role === 'user' ? message.id : message.parent_id
    if (parent !== null) return this.#attempt(() => this.#reply(parent))
  }

  // A vote on a reply, and what it should have said; the server keeps both with that version of the reply. Shown at once, sent
  // one after the other, and taken back where the server did not take it.
  judge(message: Message, vote: Vote, correction: string) {
    const open = this.open
    if (!open) return
    this.#put(open.id, { ...message, details: { ...message.details, vote, correction } })
    const send = () =>
      this.#attempt(async () => {
        try {
          await api.judge(open.id, message.id, vote, correction)
        } catch (error) {
          this.#put(open.id, message)
          throw error
        }
      })
    return (this.#judging = this.#judging.then(send, send))
  }

  show(message: Message) {
    const open = this.open
    if (!open || this.live) return
    const leaf_id = newestLeaf(open.messages, message.id)
    this.open = { ...open, leaf_id }
    return this.#attempt(() => api.updateConversation(open.id, { leaf_id }))
  }

  async stop() {
    const id = this.live?.messageId
    if (id) await this.#attempt(() => api.stopReply(id))
  }

  async #say(parentId: string | null, text: string, kept = () => {}) {
    if (!this.open || this.live) return
    const id = this.open.id
    const message = await api.addMessage(id, parentId, text)
    kept()
    this.#put(id, message)
    await this.#reply(message.id)
  }

  async #reply(parentId: string) {
    if (!this.open || this.live) return
    const { id } = this.open
    this.live = { conversationId: id, messageId: null, tokens: 0, startedAt: performance.now(), firstAt: null }
    void this.refreshList()
    let message: Message | null = null
    let pending = ''
    let frame = 0
    // Text is drawn once a frame, however fast the tokens come.
    const draw = () => {
      frame = 0
      if (message && pending) {
        message = { ...message, content: message.content + pending }
        pending = ''
        this.#put(id, message)
      }
    }
    try {
      for await (const event of api.reply(id, parentId, this.model, this.chosen)) {
        if (event.type === 'delta') {
          pending += event.text
          this.live.tokens = event.tokens
          this.live.firstAt ??= performance.now()
          frame ||= requestAnimationFrame(draw)
        } else {
          cancelAnimationFrame(frame)
          frame = 0
          pending = ''
          message = event.message
          this.#put(id, message)
          if (event.type === 'start') this.live.messageId = message.id
          else this.announcement = `${i18n.t.replyDone}: ${message.content || i18n.t.emptyReply}`
        }
      }
    } finally {
      if (frame) cancelAnimationFrame(frame)
      draw()
      this.live = null
      await this.refreshList()
    }
  }

  // Add or replace a message of the open conversation; it becomes the leaf when new.
  #put(conversationId: string, message: Message) {
    const open = this.open
    if (!open || open.id !== conversationId) return
    const at = open.messages.findIndex((other) => other.id === message.id)
    if (at < 0) this.open = { ...open, leaf_id: message.id, messages: [...open.messages, message] }
    else this.open = { ...open, messages: open.messages.with(at, message) }
  }

  async #attempt(action: () => Promise<unknown>) {
    try {
      this.problem = ''
      await action()
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) this.needsKey = true
      else if (error instanceof ApiError && error.status === 0) this.problem = i18n.t.offline
      else if (error instanceof ApiError) this.problem = error.message
      else if (error instanceof TypeError) this.problem = i18n.t.offline
      else throw error
    }
  }
}

export const chat = new Chat()
