"""The semantic cache: what may differ between two requests, and what is kept how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import NotFound
from mlaas.providers.base import Call, Operation
from mlaas.router.caches.exact import Cached
from mlaas.router.caches.semantic import MAX_QUESTION_CHARS, Lookup, SemanticCache, question_of

VECTORS = {
    "how do I sort a list?": [1.0, 0.0],
    "how can I sort lists?": [0.99, 0.14],
    "how do I cook rice?": [0.0, 2.0],
    "zero": [0.0, 0.0],
    "nan": [float("nan"), 1.0],
    "long": [1.0, 0.0, 0.0],
}


async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
    return [VECTORS.get(text, [1.0, 0.0]) for text in texts]


def call(text: Any = "how do I sort a list?", *, model: str = "m", before: Sequence[dict] = (), **fields: Any) -> Call:
    fields = {"messages": [*before, {"role": "user", "content": text}], **fields}
    return Call(operation=Operation.CHAT, model=model, is_stream=False, fields=fields, body=b"")


async def ask(cache: SemanticCache, request: Call, *, tenant: str = "t", answer: bytes | None = None) -> Lookup | None:
    """Look a request up; keep `answer` for it when it is no hit."""
    question = question_of(request, tenant=tenant, embedder="local/e")
    assert question is not None
    lookup = await cache.look_up(question, threshold=0.95, embed=embed)
    if answer is not None and lookup is not None and lookup.hit is None:
        cache.put(lookup, Cached(body=answer, target="p/m"), ttl_s=10)
    return lookup


async def hit(cache: SemanticCache, request: Call, *, tenant: str = "t") -> bytes | None:
    lookup = await ask(cache, request, tenant=tenant)
    return lookup.hit.body if lookup is not None and lookup.hit is not None else None


async def test_a_question_in_other_words_is_answered() -> None:
    cache = SemanticCache()
    await ask(cache, call(), answer=b"sorted()")
    lookup = await ask(cache, call("how can I sort lists?"))
    assert lookup is not None
    assert lookup.hit == Cached(body=b"sorted()", target="p/m")
    assert lookup.similarity == pytest.approx(0.99, abs=0.001)
    assert await hit(cache, call("how do I cook rice?")) is None
    await ask(cache, call("how do I cook rice?"), answer=b"boil")
    assert await hit(cache, call("how do I cook rice?")) == b"boil"


@pytest.mark.parametrize(
    "other",
    [
        call(temperature=0.5),
        call(model="n"),
        call(before=[{"role": "system", "content": "Be brief."}]),
        call(before=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]),
        call(tools=[]),
        call("how do I sort 2 lists?"),
    ],
)
async def test_all_but_the_wording_must_be_equal(other: Call) -> None:
    cache = SemanticCache()
    await ask(cache, call(), answer=b"x")
    assert await hit(cache, call()) == b"x"
    assert await hit(cache, other) is None


NAMES = st.text("ab/,\"'", min_size=1, max_size=3)


@given(NAMES, NAMES, NAMES, NAMES)
async def test_never_across_tenants_or_aliases(tenant: str, other: str, model: str, another: str) -> None:
    cache = SemanticCache()
    await ask(cache, call(model=model), tenant=tenant, answer=b"secret")
    expected = b"secret" if (tenant, model) == (other, another) else None
    assert await hit(cache, call(model=another), tenant=other) == expected


def test_vectors_of_two_embedders_are_never_compared() -> None:
    groups = {question_of(call(), tenant="t", embedder=name).group for name in ("local/e", "local/f")}
    assert len(groups) == 2


@pytest.mark.parametrize(
    "request_",
    [
        call([{"type": "image_url", "image_url": {"url": "x"}}]),
        call([{"type": "text", "text": "x", "cache_control": {}}]),
        call(""),
        call(None),
        call("x" * (MAX_QUESTION_CHARS + 1)),
        Call(operation=Operation.CHAT, model="m", is_stream=False, fields={"messages": []}, body=b""),
        Call(operation=Operation.EMBEDDINGS, model="m", is_stream=False, fields={"input": "x"}, body=b""),
        Call(
            operation=Operation.CHAT,
            model="m",
            is_stream=False,
            fields={"messages": [{"role": "tool", "content": "x"}]},
            body=b"",
        ),
    ],
)
def test_what_does_not_end_with_a_user_s_text_is_not_compared(request_: Call) -> None:
    assert question_of(request_, tenant="t", embedder="e") is None


def test_text_in_parts_is_text() -> None:
    question = question_of(
        call([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), tenant="t", embedder="e"
    )
    assert question is not None
    assert question.text == "a\nb"


@pytest.mark.parametrize("text", ["zero", "nan"])
async def test_a_vector_without_direction_is_no_vector(text: str) -> None:
    assert await ask(SemanticCache(), call(text)) is None


async def test_an_embedder_that_fails_leaves_the_request_alone() -> None:
    async def refused(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        raise NotFound("model_not_found", "gone")

    async def silent(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return []

    question = question_of(call(), tenant="t", embedder="e")
    assert question is not None
    for broken in (refused, silent):
        assert await SemanticCache().look_up(question, threshold=0.9, embed=broken) is None


async def test_a_model_that_changes_its_length_starts_anew() -> None:
    cache = SemanticCache()
    await ask(cache, call(), answer=b"x")
    assert await hit(cache, call("long")) is None


async def test_answers_are_kept_for_their_time() -> None:
    now_s = 0.0
    cache = SemanticCache(clock=lambda: now_s)
    await ask(cache, call(), answer=b"x")
    now_s = 9.9
    assert await hit(cache, call()) == b"x"
    now_s = 10.0
    assert await hit(cache, call()) is None
    assert (len(cache), cache.num_bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 3_000)), max_size=25))
async def test_the_cache_never_grows_over_its_bounds(puts: list[tuple[str, int]]) -> None:
    cache = SemanticCache(max_bytes=4_000, max_entries=3)
    for model, size in puts:
        await ask(cache, call(model=model), answer=b"x" * size)
        assert cache.num_bytes <= 4_000
        assert len(cache) <= 3
    kept = [body for model in "abcdefg" if (body := await hit(cache, call(model=model))) is not None]
    assert cache.num_bytes == sum(len(body) + 8 for body in kept)
