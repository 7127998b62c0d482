"""Talk to a model: an OpenAI-compatible API, conversations kept in SQLite, and the chat page, in one process.

config           what an operator may set; imports nothing heavy
served_model     what the server asks of a model, and how the engine gives it
generation       one request: tokens from the engine's thread become text for an asyncio reader
openai_schema    the shapes of the OpenAI API that we accept, strict
openai_routes    /v1/chat/completions, /v1/completions, /v1/models
conversations    the message tree in SQLite
conversation_routes   what the page calls
guards           body limit, keys, foreign origins: plain ASGI, so that streams pass through untouched
metrics, page_files, app, server
"""
