// Markdown in blocks, parsed as it grows.
//
// Parsing the whole message for every token costs quadratic time and freezes the tab on long replies. While a message
// only grows, all blocks but the last two are settled: they keep their identity (so Svelte leaves their nodes alone) and
// only the text after them is parsed again. Two, because a blank line may still join the last block to the one before
// (a list that goes on). Link definitions are the exception that acts backwards; with one, everything is parsed again.
// The parser is marked's lexer; what it yields is drawn as DOM nodes by Markdown.svelte, never as HTML.

import { Lexer, type Token } from 'marked'

export interface Block {
  key: number
  token: Token
}

const OPEN_BLOCKS = 2

export class GrowingMarkdown {
  #text = ''
  #settled: Block[] = []
  #settledLength = 0
  #nextKey = 0
  #open: Block[] = []

  update(text: string): Block[] {
    if (text !== this.#text) {
      if (!text.startsWith(this.#text)) this.#clear()
      this.#text = text
      const tail = parse(text.slice(this.#settledLength))
      if (tail.plain) this.#keep(tail.tokens)
      else this.#replace(parse(text).tokens)
    }
    return [...this.#settled, ...this.#open]
  }

  #keep(tokens: Token[]) {
    const blocks = this.#keyed(tokens, this.#open)
    const settled = blocks.splice(0, Math.max(0, blocks.length - OPEN_BLOCKS))
    for (const block of settled) this.#settledLength += block.token.raw.length
    this.#settled.push(...settled)
    this.#open = blocks
  }

  #replace(tokens: Token[]) {
    this.#open = this.#keyed(tokens, [...this.#settled, ...this.#open])
    this.#settled = []
    this.#settledLength = 0
  }

  // A block that stands where one stood before keeps its key, so that its nodes are updated, not replaced.
  #keyed(tokens: Token[], before: Block[]): Block[] {
    return tokens.map((token, i) => ({ key: before[i]?.key ?? this.#nextKey++, token }))
  }

  #clear() {
    this.#settled = []
    this.#open = []
    this.#settledLength = 0
  }
}

// `plain`: nothing in the text acts on blocks before it, and the raw pieces add up to it (so that offsets hold).
function parse(text: string): { tokens: Token[]; plain: boolean } {
  const tokens = new Lexer({ gfm: true, breaks: true }).lex(text)
  const length = tokens.reduce((sum, token) => sum + token.raw.length, 0)
  return { tokens: [...tokens], plain: length === text.length && Object.keys(tokens.links).length === 0 }
}

// The only links that lead anywhere: http, https, mailto. Everything else is shown as its text.
export function safeHref(href: string): string | null {
  try {
    const url = new URL(href)
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null
  } catch {
    return null
  }
}
