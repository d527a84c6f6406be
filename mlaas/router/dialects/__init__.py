"""How callers talk to the gateway: one file for each API, all of which meet in OpenAI's chat completions.

A provider that speaks the caller's API gets the caller's own bytes. Any other gets the same request as a chat, and its
answer, a chat completion, is put back into the caller's API. Chats carry a little more than OpenAI's: an assistant's
message or delta may hold `reasoning_content` (text), `thinking_blocks` (Anthropic's, marked with whose they are) and,
in a tool call, `extra_content` (Gemini's thought signatures, verbatim).
"""
