// The message tree: a path of versions is what one sees, siblings are the versions of one turn.

import type { Message } from './types'

export function pathTo(messages: Message[], leafId: string | null): Message[] {
  const byId = new Map(messages.map((message) => [message.id, message]))
  const path: Message[] = []
  for (let id = leafId; id !== null; ) {
    const message = byId.get(id)
    if (!message) break
    path.push(message)
    id = message.parent_id
  }
  return path.reverse()
}

export const siblings = (messages: Message[], message: Message) =>
  messages.filter((other) => other.parent_id === message.parent_id && other.role === message.role)

// The newest leaf below a message: where one lands when switching to another version.
export function newestLeaf(messages: Message[], id: string): string {
  for (;;) {
    const child = messages.findLast((message) => message.parent_id === id)
    if (!child) return id
    id = child.id
  }
}
