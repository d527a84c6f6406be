"""Stored responses: kept, asked for, continued, run in the background, cancelled, and ended for the dead."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from openai.types.responses import Response
from sqlalchemy import text

from mlaas.auth.types import Principal
from mlaas.errors import InvalidRequest, NotFound, PlatformError
from mlaas.providers.base import Call, Failure, FailureKind, FieldError, Operation, ProviderFailed
from mlaas.providers.responses_wire import encode_response_event
from mlaas.providers.sse import split_events
from mlaas.router.dialects.responses import RESPONSES
from mlaas.router.reply import MemoryReply
from mlaas.router.responses.routes import response_routes
from mlaas.router.responses.service import ABANDONED_AFTER, RETENTION, ResponseService
from mlaas.router.routes import Request
from mlaas.store.engine import open_store
from mlaas.store.responses import ResponseRepository
from mlaas.store.tables import metadata

ADA = Principal(key_id="k", tenant="ada", role="user")
EVE = Principal(key_id="e", tenant="eve", role="user")
HEADERS = [(b"x-mlaas-provider", b"claude")]


@pytest.fixture
def engine(tmp_path):
    engine = open_store(f"sqlite:///{tmp_path}/mlaas.db")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def service(engine):
    return ResponseService(store=ResponseRepository(engine), owner="p1")


def ask(**fields):
    fields = {"model": "m", "input": "hi"} | fields
    stream = bool(fields.get("stream"))
    return Call(operation=Operation.RESPONSES, model="m", is_stream=stream, fields=fields, body=orjson.dumps(fields))


def say(call, content):
    message = {"role": "assistant", "content": content}
    completion = {"created": 5, "model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    return RESPONSES.from_chat(call, orjson.dumps(completion))


def saying(content, calls=None):
    async def run(call, reply):
        if calls is not None:
            calls.append(call)
        await reply.whole(200, say(call, content), HEADERS)

    return run


async def answer(service, call, run, principal=ADA):
    reply = MemoryReply()
    await service.answer(call, principal=principal, reply=reply, run=run, run_in_background=run)
    return orjson.loads(reply.body)


async def settled(service, name):
    while service._runs:
        await asyncio.wait(service._runs.values())
    return Response.model_validate_json(await service.retrieve(name, tenant="ada"), strict=True)


async def test_an_answer_can_be_asked_for_again_by_its_tenant_alone(service):
    given = await answer(service, ask(), saying("hello"))
    assert orjson.loads(await service.retrieve(given["id"], tenant="ada")) == given
    for action in (service.retrieve, service.cancel, service.delete):
        with pytest.raises(NotFound):
            await action(given["id"], tenant="eve")


async def test_store_false_keeps_nothing(service, engine):
    given = await answer(service, ask(store=False), saying("hello"))
    with pytest.raises(NotFound):
        await service.retrieve(given["id"], tenant="ada")


async def test_a_conversation_goes_on_over_three_turns(service):
    calls = []
    first = await answer(service, ask(), saying("hello", calls))
    second = await answer(service, ask(input="and?", previous_response_id=first["id"]), saying("well", calls))
    third = await answer(
        service, ask(input="so?", previous_response_id=second["id"], store=False), saying("bye", calls)
    )
    assert (second["previous_response_id"], third["previous_response_id"]) == (first["id"], second["id"])
    said = [message["content"] for message in RESPONSES.to_chat(calls[-1]).fields["messages"]]
    assert said == ["hi", "hello", "and?", "well", "so?"]


async def test_nobody_continues_the_conversation_of_another_tenant_or_one_that_is_deleted(service):
    first = await answer(service, ask(), saying("hello"))
    for principal in (EVE, ADA):
        with pytest.raises(FieldError, match=first["id"]) as refused:
            await answer(service, ask(previous_response_id=first["id"]), saying("x"), principal)
        assert refused.value.param == "previous_response_id"
        if principal is EVE:
            assert orjson.loads(await service.delete(first["id"], tenant="ada"))["deleted"] is True


async def test_a_stream_is_stored_before_its_caller_sees_its_end_and_names_what_it_continues(service):
    first = await answer(service, ask(), saying("hello"))
    seen = []

    class Caller(MemoryReply):
        async def end_stream(self, events):
            (payload,) = split_events(events)
            name = orjson.loads(payload)["response"]["id"]
            seen.append(orjson.loads(await service.retrieve(name, tenant="ada")))
            await super().end_stream(events)

    async def run(call, reply):
        whole = orjson.loads(say(call, "streamed"))
        await reply.start_stream(HEADERS)
        await reply.send(encode_response_event({"type": "response.created", "response": {**whole, "output": []}}))
        await reply.end_stream(encode_response_event({"type": "response.completed", "response": whole}))

    caller = Caller()
    call = ask(stream=True, previous_response_id=first["id"])
    await service.answer(call, principal=ADA, reply=caller, run=run, run_in_background=run)
    events = [orjson.loads(each)["response"] for each in split_events(caller.body)]
    assert {event["previous_response_id"] for event in events} == {first["id"]}
    assert seen == [events[-1]]


async def test_a_broken_stream_is_not_stored(service, engine):
    async def run(call, reply):
        await reply.start_stream(HEADERS)
        failure = Failure(kind=FailureKind.CLOSED, status=502, code="c", message="m")
        await reply.end_stream(RESPONSES.encode_stream_error(failure))

    await service.answer(ask(stream=True), principal=ADA, reply=MemoryReply(), run=run, run_in_background=run)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM responses")).scalar_one() == 0


async def test_a_store_that_is_out_costs_the_copy_and_not_the_answer(service, engine, caplog):
    metadata.drop_all(engine)
    given = await answer(service, ask(), saying("hello"))
    assert given["status"] == "completed"
    assert given["id"] in caplog.text
    with pytest.raises(PlatformError):
        await answer(service, ask(previous_response_id="resp_1"), saying("x"))
    with pytest.raises(PlatformError):
        await answer(service, ask(background=True), saying("x"))


async def test_a_cached_answer_is_stored_once(service):
    same = say(ask(), "hello")

    async def run(call, reply):
        await reply.whole(200, same, [])

    assert await answer(service, ask(), run) == await answer(service, ask(), run)


async def test_a_background_response_runs_on_and_is_there_in_the_end(service):
    goes_on, calls = asyncio.Event(), []

    async def run(call, reply):
        await goes_on.wait()
        await saying("done", calls)(call, reply)

    queued = await answer(service, ask(background=True, metadata={"a": "b"}), run)
    Response.model_validate(queued, strict=True)
    assert (queued["status"], queued["background"], queued["output"]) == ("in_progress", True, [])
    assert orjson.loads(await service.retrieve(queued["id"], tenant="ada")) == queued
    goes_on.set()
    done = await settled(service, queued["id"])
    assert (done.id, done.status, done.output_text, done.background) == (queued["id"], "completed", "done", True)
    assert done.metadata == {"a": "b"}
    assert "background" not in calls[0].fields
    again = await answer(service, ask(input="and?", previous_response_id=done.id), saying("x", calls))
    assert again["status"] == "completed"
    assert len(RESPONSES.to_chat(calls[-1]).fields["messages"]) == 3


def failed(status):
    return ProviderFailed(Failure(kind=FailureKind.FAILED, status=status, code="c", message="no"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProviderFailed(Failure(kind=FailureKind.FAILED, status=502, code="c", message="no")), "server_error"),
        (
            ProviderFailed(Failure(kind=FailureKind.OVERLOADED, status=429, code="c", message="no")),
            "rate_limit_exceeded",
        ),
        (FieldError("tools", "no"), "invalid_prompt"),
        (ValueError("a part of a prompt"), "server_error"),
    ],
)
async def test_a_background_response_that_fails_says_why(service, error, code):
    async def run(call, reply):
        raise error

    ended = await settled(service, (await answer(service, ask(background=True), run))["id"])
    assert (ended.status, ended.error.code) == ("failed", code)
    assert "prompt" not in ended.error.message
    if not isinstance(error, ValueError):
        assert ended.error.message == "no"


async def never(call, reply):
    await asyncio.Event().wait()


async def test_cancelling_ends_the_run_at_once_and_stays(service):
    name = (await answer(service, ask(background=True), never))["id"]
    await asyncio.sleep(0)
    cancelled = Response.model_validate_json(await service.cancel(name, tenant="ada"), strict=True)
    assert cancelled.status == "cancelled"
    assert (await settled(service, name)).status == "cancelled"
    assert orjson.loads(await service.cancel(name, tenant="ada"))["status"] == "cancelled"


async def test_what_another_process_cancels_stops_here_within_a_beat(service, engine):
    name = (await answer(service, ask(background=True), never))["id"]
    await ResponseService(store=ResponseRepository(engine), owner="p2").cancel(name, tenant="ada")
    assert service._runs
    await service.tend()
    assert (await settled(service, name)).status == "cancelled"


async def test_deleting_a_running_response_stops_it(service):
    name = (await answer(service, ask(background=True), never))["id"]
    await service.delete(name, tenant="ada")
    while service._runs:
        await asyncio.wait(service._runs.values())
    with pytest.raises(NotFound):
        await service.retrieve(name, tenant="ada")


async def test_only_background_responses_can_be_cancelled(service):
    given = await answer(service, ask(), saying("hello"))
    with pytest.raises(InvalidRequest, match="background"):
        await service.cancel(given["id"], tenant="ada")


@pytest.mark.parametrize("fields", [{"store": False}, {"stream": True}])
async def test_what_cannot_run_in_the_background(service, fields):
    with pytest.raises(FieldError) as refused:
        await answer(service, ask(background=True, **fields), never)
    assert refused.value.param == next(iter(fields))


async def test_stopping_ends_what_runs_as_failed(service):
    name = (await answer(service, ask(background=True), never))["id"]
    await asyncio.sleep(0)
    await service.stop()
    stopped = await settled(service, name)
    assert (stopped.status, stopped.error.code) == ("failed", "server_error")
    assert "stopped" in stopped.error.message


async def test_what_a_dead_process_ran_ends_as_failed_and_what_lives_goes_on(service, engine):
    repository = ResponseRepository(engine)
    name = (await answer(service, ask(background=True), never))["id"]
    alive = repository.get(name, tenant="ada")
    long_ago = datetime.now(UTC) - ABANDONED_AFTER - timedelta(seconds=1)
    repository.add(replace(alive, id="resp_dead", answer=alive.answer.replace(name, "resp_dead"), seen_at=long_ago))
    await service.tend()
    dead = Response.model_validate_json(await service.retrieve("resp_dead", tenant="ada"), strict=True)
    assert (dead.status, dead.error.code) == ("failed", "server_error")
    assert orjson.loads(await service.retrieve(name, tenant="ada"))["status"] == "in_progress"
    await service.stop()


async def test_responses_are_kept_for_a_month(service, engine):
    given = await answer(service, ask(), saying("hello"))
    repository = ResponseRepository(engine)
    stored = repository.get(given["id"], tenant="ada")
    repository.add(replace(stored, id="resp_old", created_at=stored.created_at - RETENTION))
    await service.tend()
    assert repository.get(given["id"], tenant="ada") == stored
    with pytest.raises(NotFound):
        repository.get("resp_old", tenant="ada")


async def test_the_routes(service):
    given = await answer(service, ask(), saying("hello"))
    path = f"/v1/responses/{given['id']}"
    routes = {route.method: route for route in response_routes(service)}
    assert routes["POST"].pattern.fullmatch(f"{path}/cancel").groups() == (given["id"],)
    request = Request(principal=ADA, path=routes["GET"].pattern.fullmatch(path).groups())
    assert orjson.loads((await routes["GET"].handler(request)).body) == given
    again = await routes["GET"].handler(replace(request, query={"stream": "true", "starting_after": "0"}))
    events = [orjson.loads(payload) for payload in split_events(again.body)]
    assert (events[0]["sequence_number"], events[-1]["response"]) == (1, given)
    with pytest.raises(FieldError, match="starting_after"):
        await routes["GET"].handler(replace(request, query={"stream": "true", "starting_after": "x"}))
    with pytest.raises(InvalidRequest):
        await routes["POST"].handler(request)
    assert orjson.loads((await routes["DELETE"].handler(request)).body)["deleted"] is True
