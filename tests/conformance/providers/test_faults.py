"""What every provider makes of every fault, in each API that it speaks."""

from __future__ import annotations

import httpx
import orjson
import pytest

from mlaas.providers.base import FailureKind, Operation, ProviderFailed
from tests.conformance.providers.asking import BASES, INPUTS, build, build_call, build_upstream
from tests.waiting import wait_until

_URL = "http://127.0.0.1:9"
SPOKEN = [(kind, operation) for kind in BASES for operation in INPUTS if operation in build(kind, _URL).operations]
FORMS = ("seconds", "float", "date", "ms", "go", "rfc3339")


@pytest.fixture(params=SPOKEN, ids=lambda spoken: f"{spoken[0]}-{spoken[1].replace('/', '-')}")
def spoken(request):
    return request.param


@pytest.fixture
def upstream(spoken, simulated, client):
    return build_upstream(spoken[0], simulated[0], client)


@pytest.fixture
def call(spoken):
    return build_call(spoken[1])


@pytest.fixture
def streamed(spoken):
    return build_call(spoken[1], is_stream=True)


@pytest.mark.parametrize(
    ("status", "kind", "caller_status"),
    [
        (400, FailureKind.REJECTED, 400),
        (401, FailureKind.DENIED, 502),
        (402, FailureKind.QUOTA, 402),
        (403, FailureKind.DENIED, 403),
        (404, FailureKind.DENIED, 404),
        (413, FailureKind.REJECTED, 413),
        (422, FailureKind.REJECTED, 422),
        (429, FailureKind.OVERLOADED, 429),
        (500, FailureKind.FAILED, 500),
        (503, FailureKind.OVERLOADED, 503),
        (504, FailureKind.TIMEOUT, 504),
        (529, FailureKind.OVERLOADED, 503),
    ],
)
def test_an_error_answer_keeps_its_meaning(upstream, call, status, kind, caller_status):
    failure = upstream.fail(call, f"sim-{status}")
    assert (failure.kind, failure.status) == (kind, caller_status)
    assert failure.code == f"code_{status}"
    assert f"told to say {status}" in failure.message
    assert failure.retry_after_s == (7.0 if status in (429, 503, 529) else None)


@pytest.mark.parametrize("form", FORMS)
def test_the_wait_is_read_in_every_form(upstream, call, form):
    assert upstream.fail(call, f"sim-429@after=9,form={form}").retry_after_s == 9.0


def test_no_form_is_no_wait(upstream, call):
    assert upstream.fail(call, "sim-429@form=none").retry_after_s is None


def test_the_wait_of_gemini_is_read_from_the_body(simulated, client):
    upstream = build_upstream("gemini", simulated[0], client)
    assert upstream.fail(build_call(), "sim-429@after=34.5,form=retry-info").retry_after_s == 34.5


def test_an_account_out_of_money_is_told_from_an_overload(upstream, call):
    failure = upstream.fail(call, "sim-quota")
    assert (failure.kind, failure.status) == (FailureKind.QUOTA, 402)


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"null", b"[]", b'"x"', b'{"error": 5}', b"\xff"])
def test_an_error_answer_of_any_shape_is_read(upstream, body):
    failure = upstream.provider.decode_error(500, {}, body)
    assert (failure.kind, failure.status) == (FailureKind.FAILED, 500)
    assert failure.message


@pytest.mark.parametrize("fault", ["malformed", "error"])
def test_an_answer_that_is_none_is_a_failure(upstream, call, fault):
    with pytest.raises(ProviderFailed) as caught:
        upstream.ask(call, f"sim-{fault}")
    if fault == "malformed":
        assert (caught.value.failure.kind, caught.value.failure.status) == (FailureKind.FAILED, 502)


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"7"])
def test_an_answer_of_another_shape_is_a_failure(upstream, call, body):
    with pytest.raises(ProviderFailed) as caught:
        upstream.provider.decode_answer(call, body)
    assert caught.value.failure.kind is FailureKind.FAILED


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("truncated", FailureKind.CLOSED),
        ("short", FailureKind.CLOSED),
        ("malformed", FailureKind.FAILED),
        ("error", None),
    ],
)
def test_a_stream_that_breaks_is_noticed_and_what_came_before_is_whole(upstream, streamed, fault, kind):
    seen: list[bytes] = []
    with pytest.raises(ProviderFailed) as caught:
        upstream.stream(streamed, f"sim-{fault}", seen=seen)
    if kind is not None:
        assert caught.value.failure.kind is kind
    else:
        assert "told to fail in the middle" in caught.value.failure.message
    text = b"".join(seen)
    assert text
    assert b"[DONE]" not in text
    for line in text.splitlines():
        assert not line.startswith(b"data:") or orjson.loads(line[5:])


@pytest.mark.parametrize("fault", ["malformed", "error"])
def test_a_stream_that_breaks_is_noticed_when_all_of_it_comes_at_once(upstream, streamed, fault):
    with upstream.post(streamed, f"sim-{fault}") as response:
        whole = response.read()
    decoder = upstream.provider.decode_stream(streamed)
    seen: list[bytes] = []
    with pytest.raises(ProviderFailed) as caught:
        seen += [decoder.feed(whole), decoder.finish(None)]
    assert (caught.value.failure.code == "upstream_unreadable") is (fault == "malformed")
    for line in b"".join(seen).splitlines():
        assert not line.startswith(b"data:") or orjson.loads(line[5:])


def test_an_error_that_comes_first_leaves_nothing_to_take_back(upstream, streamed):
    seen: list[bytes] = []
    with pytest.raises(ProviderFailed, match="told to fail in the middle"):
        upstream.stream(streamed, "sim-error-first", seen=seen)
    assert b"".join(seen) == b""


@pytest.mark.parametrize("is_stream", [False, True])
def test_usage_that_cannot_be_is_no_usage(upstream, call, streamed, is_stream):
    if is_stream:
        fed, tail, decoder = upstream.stream(streamed, "sim-wrong-usage")
        assert fed + tail
        usage = decoder.usage
    else:
        usage = upstream.ask(call, "sim-wrong-usage").usage
    tokens = (usage.prompt_tokens, usage.output_tokens) if usage is not None else (0, 0)
    assert min(tokens) >= 0


def test_an_answer_without_usage_is_an_answer(spoken, upstream, call, streamed):
    assert upstream.ask(call, "sim-no-usage").body
    fed, tail, _ = upstream.stream(streamed, "sim-no-usage")
    assert fed + tail


def test_an_endless_event_is_refused(upstream, streamed):
    decoder = upstream.provider.decode_stream(streamed)
    assert decoder.feed(b"data: " + b"x" * 7 * 1024**2) == b""
    with pytest.raises(ProviderFailed, match="8 MiB"):
        decoder.feed(b"x" * 2 * 1024**2)


def test_a_caller_who_leaves_frees_the_upstream(spoken, upstream, streamed, simulator):
    before = simulator.num_cancelled
    with upstream.post(streamed, "sim-endless") as response:
        chunks = response.iter_raw()
        assert next(chunks)
        wait_until(lambda: simulator.num_active == 1, what="the stream to run", timeout_s=5)
    wait_until(lambda: simulator.num_active == 0, what="the stream to be given up", timeout_s=5)
    assert simulator.num_cancelled == before + 1


def test_a_connection_that_breaks_before_the_answer_is_an_error_of_the_connection(upstream, call):
    with pytest.raises(httpx.RemoteProtocolError), upstream.post(call, "sim-disconnect"):
        pass


def test_the_simulator_knows_its_own_faults(simulated):
    answer = httpx.post(f"{simulated[0]}/v1/chat/completions", json={"model": "sim-typo", "messages": [{}]})
    assert answer.status_code == 400
    assert "no fault is called 'typo'" in answer.text


def test_every_spoken_api_is_covered():
    assert {operation for _, operation in SPOKEN} == set(INPUTS)
    assert Operation.EMBEDDINGS not in INPUTS
