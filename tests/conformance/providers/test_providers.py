"""What every provider does, each against a server that speaks its wire format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import orjson
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from mlaas.providers.base import Call, FailureKind, Operation, Provider, ProviderFailed
from mlaas.providers.build import KINDS, build_provider
from tests.fakes.servers import serving
from tests.fakes.upstream import TEXT, USAGE, Upstream

ERROR_SHAPES = {
    "anthropic": lambda status, message: {"type": "error", "error": {"type": f"code_{status}", "message": message}},
    "gemini": lambda status, message: [{"error": {"code": status, "message": message, "status": f"code_{status}"}}],
    "xai": lambda status, message: {"code": f"code_{status}", "error": message},
}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write a sum."}]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def upstream(kind):
    return Upstream(error_shape=ERROR_SHAPES[kind]) if kind in ERROR_SHAPES else Upstream()


@pytest.fixture
def provider(kind, upstream) -> Iterator[Provider]:
    with serving(upstream.app()) as url:
        yield build_provider(kind, name=kind, base_url=f"{url}/v1", api_key="sk-canary")


def build_call(*, is_stream: bool = False, **extra: object) -> Call:
    fields = {"model": "alias", "messages": MESSAGES, "max_tokens": 9, "stream": is_stream, **extra}
    body = orjson.dumps(fields)
    return Call(operation=Operation.CHAT, model="alias", is_stream=is_stream, fields=fields, body=body)


@contextmanager
def post(provider: Provider, call: Call, model: str) -> Iterator[httpx.Response]:
    request = provider.encode_request(call, model=model)
    url = provider.base_url + request.path
    with httpx.stream("POST", url, content=request.body, headers=dict(request.headers)) as response:
        yield response


def ask(provider: Provider, call: Call, model: str) -> bytes:
    with post(provider, call, model) as response:
        return provider.decode_answer(call, response.read())


def stream(
    provider: Provider, call: Call, model: str, cut: Callable[[bytes], list[bytes]] = lambda chunk: [chunk]
) -> Iterator[bytes]:
    decoder = provider.decode_stream(call)
    with post(provider, call, model) as response:
        try:
            for chunk in response.iter_raw():
                for piece in cut(chunk):
                    yield decoder.feed(piece)
        except httpx.RemoteProtocolError:
            pass
        yield decoder.finish()


def read_chunks(events: bytes) -> list[ChatCompletionChunk]:
    payloads = [block.removeprefix(b"data: ") for block in events.split(b"\n\n") if block]
    assert payloads[-1] == b"[DONE]"
    return [ChatCompletionChunk.model_validate_json(payload, strict=True) for payload in payloads[:-1]]


def test_an_answer_is_a_chat_completion(provider, upstream):
    answer = ChatCompletion.model_validate_json(ask(provider, build_call(), "m"))
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == USAGE
    assert answer.usage.total_tokens == sum(USAGE)
    assert upstream.requests[0]["model"] == "m"
    assert "sk-canary" in str(upstream.headers[0])


@pytest.mark.parametrize("cut", [lambda chunk: [chunk], lambda chunk: [bytes([byte]) for byte in chunk]])
@pytest.mark.parametrize("has_usage", [True, False])
def test_a_stream_is_made_of_chunks_however_its_bytes_arrive(provider, cut, has_usage):
    call = build_call(is_stream=True, stream_options={"include_usage": has_usage})
    chunks = read_chunks(b"".join(stream(provider, call, "m", cut)))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == TEXT
    assert choices[0].delta.role == "assistant"
    assert choices[-1].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    if has_usage:
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == USAGE
    else:
        assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize(
    ("status", "kind_of_failure", "caller_status"),
    [
        (400, FailureKind.REJECTED, 400),
        (401, FailureKind.DENIED, 502),
        (403, FailureKind.DENIED, 403),
        (404, FailureKind.DENIED, 404),
        (422, FailureKind.REJECTED, 422),
        (429, FailureKind.OVERLOADED, 429),
        (500, FailureKind.FAILED, 500),
        (503, FailureKind.OVERLOADED, 503),
        (529, FailureKind.OVERLOADED, 503),
    ],
)
def test_an_error_answer_keeps_its_meaning(provider, status, kind_of_failure, caller_status):
    with post(provider, build_call(), f"status-{status}") as response:
        failure = provider.decode_error(response.status_code, response.headers, response.read())
    assert (failure.kind, failure.status) == (kind_of_failure, caller_status)
    assert failure.code == f"code_{status}"
    assert f"told to say {status}" in failure.message
    assert failure.retry_after_s == (7.0 if status in (429, 529) else None)


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"null", b"[]", b'"x"', b'{"error": 5}', b"\xff"])
def test_an_error_answer_of_any_shape_is_read(provider, body):
    failure = provider.decode_error(500, {}, body)
    assert (failure.kind, failure.status) == (FailureKind.FAILED, 500)
    assert failure.message


def test_a_malformed_answer_is_a_failure(provider):
    with pytest.raises(ProviderFailed) as caught:
        ask(provider, build_call(), "malformed")
    assert caught.value.failure.kind is FailureKind.FAILED


@pytest.mark.parametrize("fault", ["stream-cut", "stream-short"])
def test_a_stream_that_is_cut_short_is_noticed_and_ends_with_a_whole_event(provider, fault):
    seen: list[bytes] = []
    with pytest.raises(ProviderFailed) as caught:
        seen.extend(stream(provider, build_call(is_stream=True), fault))
    assert caught.value.failure.kind is FailureKind.CLOSED
    assert b"[DONE]" not in b"".join(seen)
    for block in b"".join(seen).split(b"\n\n"):
        assert not block or json.loads(block.removeprefix(b"data: "))


def test_an_error_at_the_head_of_a_stream_is_a_failure(provider, kind):
    if kind == "anthropic":
        text = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'
    elif kind == "perplexity":
        text = b'event: response.failed\ndata: {"type":"response.failed","error":{"message":"busy"}}\n\n'
    else:
        text = b'data: {"error":{"message":"busy","type":"overloaded","code":503}}\n\n'
    with pytest.raises(ProviderFailed, match="busy"):
        provider.decode_stream(build_call(is_stream=True)).feed(text)


def test_an_endless_event_is_refused(provider):
    decoder = provider.decode_stream(build_call(is_stream=True))
    assert decoder.feed(b"data: " + b"x" * 7 * 1024**2) == b""
    with pytest.raises(ProviderFailed, match="8 MiB"):
        decoder.feed(b"x" * 2 * 1024**2)
