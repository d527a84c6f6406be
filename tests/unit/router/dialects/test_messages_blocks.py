"""Whatever is translated keeps every block: Messages requests as chats and back, chats as Messages requests and back,
answers and streams likewise."""

from __future__ import annotations

from typing import Any

import orjson
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from mlaas.providers.base import Call, Operation
from mlaas.providers.from_messages import MessagesStream, decode_message
from mlaas.providers.sse import split_events
from mlaas.providers.thinking import is_marked, is_thinking, mark_thinking, read_thinking
from mlaas.providers.to_messages import encode_messages_request
from mlaas.router.dialects.messages import Messages
from tests.fakes.messages_sdk import accumulate, read_message

MESSAGES = Messages()
MODEL = "claude-opus-5-5"
MESSAGES_SHAPE = TypeAdapter(MessageCreateParamsNonStreaming)
CHAT_SHAPE = TypeAdapter(CompletionCreateParamsNonStreaming)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ids = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
inputs = st.dictionaries(texts, st.one_of(texts, st.integers(-9, 9), st.booleans(), st.none()), max_size=3)
text_blocks = st.builds(lambda text: {"type": "text", "text": text}, texts)
sources = st.one_of(
    st.just({"type": "base64", "media_type": "image/png", "data": "aGk="}),
    st.just({"type": "url", "url": "https://example.com/a.png"}),
)
image_blocks = st.builds(lambda source: {"type": "image", "source": source}, sources)
thinking_blocks = st.one_of(
    st.builds(lambda text, seal: {"type": "thinking", "thinking": text, "signature": seal}, texts, ids),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, ids),
)
tool_blocks = st.builds(
    lambda call_id, name, value: {"type": "tool_use", "id": call_id, "name": name, "input": value}, ids, ids, inputs
)


@st.composite
def answers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Blocks of an assistant: text before tools, thinking anywhere."""
    blocks = draw(st.lists(text_blocks, max_size=2)) + draw(st.lists(tool_blocks, max_size=3))
    for block in draw(st.lists(thinking_blocks, max_size=3)):
        blocks.insert(draw(st.integers(0, len(blocks))), block)
    return blocks


@st.composite
def results(draw: st.DrawFn, block: dict[str, Any]) -> dict[str, Any]:
    content = draw(st.lists(st.one_of(text_blocks, image_blocks), min_size=1, max_size=2))
    result = {"type": "tool_result", "tool_use_id": block["id"], "content": content}
    return {**result, "is_error": True} if draw(st.booleans()) else result


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Turns of a user and an assistant; a user's begins with the results of the tools called before."""
    rest = st.lists(st.one_of(text_blocks, image_blocks), min_size=1, max_size=3)
    turns = [{"role": "user", "content": draw(rest)}]
    for _ in range(draw(st.integers(0, 2))):
        blocks = draw(answers().filter(lambda blocks: any(not is_thinking(block) for block in blocks)))
        told = [draw(results(block)) for block in blocks if block["type"] == "tool_use"]
        turns.append({"role": "assistant", "content": blocks})
        turns.append({"role": "user", "content": told + (draw(rest) if not told or draw(st.booleans()) else [])})
    return turns


def mark(turn: dict[str, Any]) -> dict[str, Any]:
    content = [
        mark_thinking(block, model=MODEL, place=place) if is_thinking(block) else block
        for place, block in enumerate(turn["content"])
    ]
    return {**turn, "content": content}


def unmark(block: dict[str, Any]) -> dict[str, Any]:
    """A thinking block as its model signed it."""
    if not is_marked(block):
        return block
    own = read_thinking(block, model=MODEL)
    assert own is not None
    return own[1]


def call_of(fields: dict[str, Any], operation: Operation = Operation.MESSAGES) -> Call:
    return Call(operation=operation, model="x", is_stream=False, fields=fields, body=orjson.dumps(fields))


def messages_to_chat(turns: list[dict[str, Any]], system: object = None) -> list[dict[str, Any]]:
    fields = {"model": "x", "max_tokens": 9, "messages": turns, "system": system}
    chat = MESSAGES.to_chat(call_of(fields))
    assert orjson.loads(chat.body) == chat.fields
    CHAT_SHAPE.validate_python(chat.fields)
    return chat.fields["messages"]


def chat_to_messages(messages: list[dict[str, Any]]) -> dict[str, Any]:
    body = encode_messages_request("claude", {"model": "x", "messages": messages}, model=MODEL)
    MESSAGES_SHAPE.validate_python(body)
    return body


@settings(deadline=None)
@given(conversations(), st.one_of(st.none(), texts, st.lists(text_blocks, min_size=2, max_size=3)))
def test_a_messages_request_comes_back_from_a_chat_with_every_block_in_its_place(turns, system):
    body = chat_to_messages(messages_to_chat([mark(turn) for turn in turns], system))
    assert body["messages"] == turns
    assert body.get("system") == system


parts = st.lists(
    st.one_of(text_blocks, st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}})),
    min_size=1,
    max_size=3,
)
contents = st.one_of(texts, parts)
calls = st.builds(
    lambda call_id, name, value: {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": orjson.dumps(value).decode()},
    },
    ids,
    ids,
    inputs,
)


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(texts)})
    for _ in range(draw(st.integers(0, 2))):
        messages.append({"role": "user", "content": draw(contents)})
        message: dict[str, Any] = {"role": "assistant", "content": draw(texts)}
        thinking = draw(st.lists(thinking_blocks, max_size=2))
        if thinking:
            message["thinking_blocks"] = [
                mark_thinking(block, model=MODEL, place=place) for place, block in enumerate(thinking)
            ]
        if draw(st.booleans()):
            message["tool_calls"] = draw(st.lists(calls, min_size=1, max_size=3))
        messages.append(message)
        for call in message.get("tool_calls", ()):
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": draw(contents)})
    return [*messages, {"role": "user", "content": draw(contents)}]


def atoms(messages: list[dict[str, Any]]) -> list[Any]:
    """Flatten a chat into what each role says; a string and one part of text say the same."""
    found: list[Any] = []
    for message in messages:
        role = message["role"]
        found += [(role, unmark(block)) for block in message.get("thinking_blocks", ())]
        content = message["content"]
        said = [{"type": "text", "text": content}] if isinstance(content, str) else content
        found += [(role, message.get("tool_call_id"), part) for part in said]
        found += [(role, call) for call in message.get("tool_calls", ())]
    return found


@settings(deadline=None)
@given(chats())
def test_a_chat_comes_back_from_a_messages_request_with_every_part(messages):
    body = chat_to_messages(messages)
    assert atoms(messages_to_chat(body["messages"], body.get("system"))) == atoms(messages)


def answer_of(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    has_tools = any(block["type"] == "tool_use" for block in blocks)
    usage = {
        "input_tokens": 7,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 3,
        "output_tokens": 11,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": blocks,
        "stop_reason": "tool_use" if has_tools else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def events_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The stream of an answer, in pieces of two characters."""
    start = {**answer, "content": [], "stop_reason": None, "usage": {**answer["usage"], "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(answer["content"]):
        opened, deltas = _open(block)
        events.append({"type": "content_block_start", "index": index, "content_block": opened})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 11}})
    return [*events, {"type": "message_stop"}]


def _open(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    match block["type"]:
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": each} for each in _pieces(block["text"])]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": each} for each in _pieces(block["thinking"])]
            seal = {"type": "signature_delta", "signature": block["signature"]}
            return {**block, "thinking": "", "signature": ""}, [*deltas, seal]
        case "tool_use":
            value = orjson.dumps(block["input"]).decode() if block["input"] else ""
            deltas = [{"type": "input_json_delta", "partial_json": each} for each in ["", *_pieces(value)]]
            return {**block, "input": {}}, deltas
    return block, []


def _pieces(text: str) -> list[str]:
    return [text[at : at + 2] for at in range(0, len(text), 2)]


def wire(events: list[dict[str, Any]]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in events)


def normal(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Blocks as a chat can order them, with thinking as its model signed it; one text for several."""
    thinking = [unmark(block) for block in blocks if is_thinking(block)]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [
        {key: block[key] for key in ("type", "id", "name", "input")} for block in blocks if block["type"] == "tool_use"
    ]
    return [*thinking, *([{"type": "text", "text": text}] if text else []), *calls]


ASKED = call_of({"model": "x", "messages": [{"role": "user", "content": "hi"}], "stop_sequences": []})


@settings(deadline=None)
@given(answers())
def test_an_answer_comes_back_from_a_chat_completion_with_every_block(blocks):
    completion = decode_message("claude", orjson.dumps(answer_of(blocks)))
    ChatCompletion.model_validate_json(completion.body, strict=True)
    message = read_message(MESSAGES.from_chat(ASKED, completion.body))
    assert normal([block.to_dict() for block in message.content]) == normal(blocks)
    assert message.stop_reason == answer_of(blocks)["stop_reason"]
    assert message.usage.to_dict() == answer_of(blocks)["usage"]


def translate(data: bytes, size: int) -> bytes:
    fields = {"stream_options": {"include_usage": True}}
    chat = Call(operation=Operation.CHAT, model="x", is_stream=True, fields=fields, body=b"")
    decoder, translator = MessagesStream("claude", chat), MESSAGES.stream_from_chat(ASKED)
    events = b""
    for at in range(0, len(data), size):
        chunks = decoder.feed(data[at : at + size])
        for payload in split_events(chunks):
            ChatCompletionChunk.model_validate_json(payload, strict=True)
        events += translator.feed(chunks)
    return events + translator.finish(decoder.finish(None), None)


@settings(deadline=None)
@given(answers(), st.integers(1, 200))
def test_a_stream_comes_back_from_chunks_with_every_block_however_it_is_cut(blocks, size):
    message = accumulate(translate(wire(events_of(answer_of(blocks))), size))
    assert normal([block.to_dict() for block in message.content]) == normal(blocks)
    assert message.stop_reason == answer_of(blocks)["stop_reason"]
    assert message.usage.to_dict() == answer_of(blocks)["usage"]
