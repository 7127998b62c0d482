// What the server sends: the shapes of /api, as serving/conversation_schema.py writes them.

export interface Model {
  id: string
  parameters: number
  context_length: number
  vocabulary_size: number
  prompts: string[]
  learnt_from: string[]
  defaults: Partial<Settings>
}

export interface Translator {
  id: string
  context_length: number
  directions: [string, string][]
}

export interface Status {
  version: string
  ready: boolean
  default_model: string
  models: Model[]
  translators: Translator[]
}

export interface Settings {
  temperature: number
  top_p: number
  top_k: number
  min_p: number
  repetition_penalty: number
  max_tokens: number
  seed: number | null
}

export interface ConversationSummary {
  id: string
  title: string
  model: string
  updated_at: number
}

export interface Conversation extends ConversationSummary {
  system: string
  settings: Partial<Settings>
  leaf_id: string | null
  messages: Message[]
}

export type Role = 'user' | 'assistant'

// Why a reply ended; null while it is being written, or when the server went away in the middle.
export type FinishReason = 'stop' | 'length' | 'cancelled' | 'error'

export interface Details {
  finish_reason?: FinishReason | null
  error?: string
  prompt_tokens?: number
  completion_tokens?: number
  dropped_turns?: number
  seed?: number
  seconds_to_first?: number
  seconds?: number
  vote?: Vote
  correction?: string
}

// What a reader says of a reply: good, bad, nothing.
export type Vote = 1 | -1 | 0

export interface Message {
  id: string
  parent_id: string | null
  role: Role
  content: string
  model: string
  details: Details
  created_at: number
}

export type ReplyEvent =
  | { type: 'start'; message: Message }
  | { type: 'delta'; text: string; tokens: number }
  | { type: 'done'; message: Message }
