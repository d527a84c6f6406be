"""Conversations rebuilt for whoever answers next."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import orjson
import pytest

from mlaas.providers.base import Call, FieldError, Operation
from mlaas.providers.openai import OpenAI
from mlaas.providers.perplexity import Perplexity
from mlaas.providers.sealed_thinking import seal_thinking
from mlaas.router.dialects.responses import RESPONSES
from mlaas.router.responses.conversation import continue_conversation
from mlaas.store.responses import StoredResponse

BLOCKS = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
SIGNED = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": seal_thinking(BLOCKS)}
CIPHER = {"id": "rs_2", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
SAID = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "I add", "annotations": []}],
}
CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}
ASKED = {"id": "fc_1", "status": "completed", **CALL}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "2"}
HI = {"type": "message", "role": "user", "content": "hi"}


def turn(name, provider, output, items, previous=None):
    return StoredResponse(
        id=name,
        tenant="t",
        previous_id=previous,
        status="completed",
        provider=provider,
        items=orjson.dumps(items).decode(),
        answer=orjson.dumps({"id": name, "output": output}).decode(),
        created_at=datetime.now(UTC),
    )


FIRST = turn("resp_1", "openai", [CIPHER, SEARCH, SAID], [HI])
SECOND = turn("resp_2", "claude", [SIGNED, ASKED], [{"role": "user", "content": "add"}], "resp_1")


def resumed(*turns, given="go on", **fields):
    fields = {"model": "m", "input": given, "previous_response_id": turns[-1].id, **fields}
    call = Call(operation=Operation.RESPONSES, model="m", is_stream=False, fields=fields, body=orjson.dumps(fields))
    resumed = continue_conversation(call, turns)
    assert orjson.loads(resumed.body) == resumed.fields
    assert "previous_response_id" not in resumed.fields
    return resumed


def bare(item):
    return {name: value for name, value in item.items() if name not in ("id", "status")}


def sent_by(provider, call):
    return orjson.loads(provider.encode_request(call, model="m").body)["input"]


def test_the_writer_gets_its_own_items_back_and_of_others_what_was_said():
    call = resumed(FIRST, SECOND, given=[RESULT])
    openai = OpenAI(name="openai", base_url="http://x", api_key=None)
    assert sent_by(openai, call) == [
        HI,
        CIPHER,
        SEARCH,
        SAID,
        {"role": "user", "content": "add"},
        CALL,
        RESULT,
    ]
    other = OpenAI(name="other", base_url="http://x", api_key=None)
    assert sent_by(other, call) == [HI, bare(SAID), {"role": "user", "content": "add"}, CALL, RESULT]


def test_a_chat_gets_signed_thinking_back_and_no_cipher():
    chat = RESPONSES.to_chat(resumed(FIRST, SECOND, given=[RESULT]))
    assert chat.fields["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "I add"},
        {"role": "user", "content": "add"},
        {
            "role": "assistant",
            "content": None,
            "thinking_blocks": BLOCKS,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]


def test_the_agent_api_gets_only_what_it_can_read():
    agent = Perplexity(name="openai", base_url="http://x", api_key=None)
    kinds = [item["type"] for item in sent_by(agent, resumed(FIRST, SECOND, given=[RESULT]))]
    assert kinds == ["message", "message", "message", "function_call", "function_call_output"]


@pytest.mark.parametrize("status", ["failed", "cancelled", "in_progress"])
def test_only_what_was_completed_can_be_continued(status):
    with pytest.raises(FieldError, match=status) as refused:
        resumed(dataclasses.replace(FIRST, status=status))
    assert refused.value.param == "previous_response_id"
