// Every request of the page, all to its own server. The key, if the server asks for one, stays in this tab.

import { eventData } from './sse'
import type { Conversation, ConversationSummary, Message, ReplyEvent, Settings, Status, Vote } from './types'

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

const KEY = 'duihua.key'
export const setKey = (key: string) => sessionStorage.setItem(KEY, key)
export const hasKey = () => !!sessionStorage.getItem(KEY)

async function request(method: string, path: string, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = {}
  const key = sessionStorage.getItem(KEY)
  if (key) headers.Authorization = `Bearer ${key}`
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  let response: Response
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    })
  } catch {
    throw new ApiError(0, '')
  }
  if (response.ok) return response
  const problem = await response.json().catch(() => null)
  throw new ApiError(response.status, problem?.error?.message ?? response.statusText)
}

const json = async <T>(method: string, path: string, body?: unknown): Promise<T> =>
  (await request(method, path, body)).json()

const at = (id: string) => `api/conversations/${encodeURIComponent(id)}`

export const status = () => json<Status>('GET', 'api/status')

export const listConversations = (search: string) =>
  json<ConversationSummary[]>('GET', `api/conversations?search=${encodeURIComponent(search)}`)

export const getConversation = (id: string) => json<Conversation>('GET', at(id))

export type Changes = Partial<Pick<Conversation, 'title' | 'system' | 'model' | 'settings' | 'leaf_id'>>

export const createConversation = (changes: Changes) => json<Conversation>('POST', 'api/conversations', changes)

export const updateConversation = (id: string, changes: Changes) => json<ConversationSummary>('PATCH', at(id), changes)

export const deleteConversation = (id: string) => request('DELETE', at(id))

export const addMessage = (id: string, parentId: string | null, content: string) =>
  json<Message>('POST', `${at(id)}/messages`, { parent_id: parentId, content })

export const judge = (id: string, messageId: string, vote: Vote, correction: string) =>
  json<Message>('PUT', `${at(id)}/messages/${encodeURIComponent(messageId)}/judgement`, { vote, correction })

export const insideAddress = (model: string, text: string) =>
  `inside?model=${encodeURIComponent(model)}&text=${encodeURIComponent(text)}`

export const inside = async (model: string, text: string) =>
  (await request('GET', insideAddress(model, text))).blob()

export const translate = async (
  { model, source, target }: { model: string; source: string; target: string },
  input: string[],
): Promise<string[]> => {
  const answer = await json<{ data: { text: string }[] }>('POST', 'v1/translations', { model, source, target, input })
  return answer.data.map((each) => each.text)
}

export const stopReply = (messageId: string) => request('POST', `api/replies/${encodeURIComponent(messageId)}/stop`)

export async function* reply(
  id: string,
  parentId: string,
  model: string,
  settings: Partial<Settings>,
): AsyncGenerator<ReplyEvent> {
  const response = await request('POST', `${at(id)}/replies`, { parent_id: parentId, model, settings })
  for await (const data of eventData(response.body!)) yield JSON.parse(data) as ReplyEvent
}
