"""The exact cache: what makes two requests the same, and what is kept how long."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.base import Call, Operation
from mlaas.router.caches.exact import MAX_ENTRY_BYTES, Cached, ExactCache, StreamRecorder, cache_key, is_bypassed
from mlaas.router.request import ClientGone

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.sampled_from(["messages", "temperature", "tools", "n", "seed"]), JSON, max_size=4)
NAMES = st.sampled_from(["a", "b", "a/b", '","'])
OPERATIONS = st.sampled_from([Operation.CHAT, Operation.MESSAGES])


def call(fields: dict, *, model: str = "m", operation: Operation = Operation.CHAT) -> Call:
    return Call(operation=operation, model=model, is_stream=False, fields=fields, body=b"")


def answer(text: bytes = b"{}") -> Cached:
    return Cached(body=text, target="p/m")


@given(FIELDS, FIELDS, st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES), st.tuples(OPERATIONS, OPERATIONS))
def test_keys_are_equal_exactly_when_all_that_matters_is(one, other, tenants, models, operations) -> None:
    first = cache_key(call(one, model=models[0], operation=operations[0]), tenant=tenants[0])
    second = cache_key(call(other, model=models[1], operation=operations[1]), tenant=tenants[1])

    def material(fields: dict) -> list:
        return sorted((name, orjson.dumps(value)) for name, value in fields.items() if value is not None)

    same = material(one) == material(other) and len({*tenants}) == len({*models}) == len({*operations}) == 1
    assert (first == second) is same


def test_who_asks_and_how_the_answer_travels_do_not_matter() -> None:
    plain = cache_key(call({"messages": []}), tenant="t")
    same = {"messages": [], "user": "u", "metadata": {"a": "b"}, "stream": True, "model": "x", "seed": None}
    assert cache_key(call({**same, "stream_options": {"include_usage": True}}), tenant="t") == plain
    with_header = replace(call({"messages": []}), headers={"anthropic-beta": "x"})
    assert cache_key(with_header, tenant="t") != plain


def test_the_order_of_a_schema_s_properties_matters() -> None:
    schemas = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    assert len({cache_key(call({"response_format": each}), tenant="t") for each in schemas}) == 2


def test_what_cannot_be_cached_has_no_key() -> None:
    deep: list = []
    for _ in range(300):
        deep = [deep]
    assert cache_key(call({"messages": deep}), tenant="t") is None
    assert cache_key(call({}, operation=Operation.RESPONSES), tenant="t") is None
    assert cache_key(call({}, operation=Operation.COUNT_TOKENS), tenant="t") is None


@pytest.mark.parametrize(
    ("value", "expected"), [(b"bypass", True), (b" No-Store", True), (b"hit", False), (None, False)]
)
def test_the_header_goes_past_the_cache(value: bytes | None, expected: bool) -> None:
    assert is_bypassed(value) is expected


def test_an_answer_is_kept_for_its_time() -> None:
    now_s = 0.0
    cache = ExactCache(clock=lambda: now_s)
    cache.put(b"k", answer(), ttl_s=10)
    now_s = 9.9
    assert cache.get(b"k") == answer()
    now_s = 10.0
    assert cache.get(b"k") is None
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_the_least_recently_used_goes_first() -> None:
    cache = ExactCache(max_entries=2)
    for key in (b"a", b"b"):
        cache.put(key, answer(), ttl_s=10)
    cache.get(b"a")
    cache.put(b"c", answer(), ttl_s=10)
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(0, 3000)), max_size=30))
def test_the_cache_never_grows_over_its_bounds(puts: list[tuple[bytes, int]]) -> None:
    cache = ExactCache(max_bytes=4000, max_entries=3)
    last: dict[bytes, int] = {}
    for key, size in puts:
        cache.put(key, answer(b"x" * size), ttl_s=10)
        last[key] = size
        assert cache.num_bytes <= 4000
        assert len(cache) <= 3
    kept = {key: found for key in last if (found := cache.get(key)) is not None}
    assert all(len(found.body) == last[key] for key, found in kept.items())
    assert cache.num_bytes == sum(len(found.body) + 512 for found in kept.values())


def test_a_very_long_answer_is_not_kept() -> None:
    cache = ExactCache()
    cache.put(b"k", answer(b"x" * (MAX_ENTRY_BYTES + 1)), ttl_s=10)
    assert cache.get(b"k") is None


async def test_the_same_request_waits_for_the_one_under_way() -> None:
    cache = ExactCache()
    assert await cache.join(b"k") is None
    with cache.flight(b"k"):
        waiting = asyncio.create_task(cache.join(b"k"))
        await asyncio.sleep(0)
        assert not waiting.done()
        cache.put(b"k", answer(), ttl_s=10)
    assert await waiting == answer()


async def test_when_the_first_request_fails_those_that_wait_ask_themselves() -> None:
    cache = ExactCache()
    with cache.flight(b"k"):
        waiting = asyncio.create_task(cache.join(b"k"))
        await asyncio.sleep(0)
    assert await waiting is None
    with cache.flight(b"k"), cache.flight(b"k"):
        pass
    assert await cache.join(b"k") is None


async def test_when_the_first_caller_leaves_one_of_those_who_wait_takes_his_place() -> None:
    cache, asked = ExactCache(), []

    async def call(name: str) -> None:
        if await cache.join(b"k") is None:
            with cache.flight(b"k"):
                asked.append(name)
                await asyncio.sleep(0)
                cache.put(b"k", answer(), ttl_s=10)

    async def leave() -> None:
        with cache.flight(b"k"):
            await asyncio.sleep(0)
            raise ClientGone

    first, *crowd = [asyncio.create_task(each) for each in (leave(), *map(call, "abc"))]
    await asyncio.wait([first])
    await asyncio.gather(*crowd)
    assert isinstance(first.exception(), ClientGone)
    assert asked == ["a"]


def test_a_recorder_gives_up_on_a_stream_that_is_too_long() -> None:
    recorder = StreamRecorder()
    recorder.feed(b"a")
    recorder.feed(b"b")
    assert recorder.events == b"ab"
    recorder.feed(b"x" * MAX_ENTRY_BYTES)
    recorder.feed(b"c")
    assert recorder.events is None
