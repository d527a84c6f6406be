"""Which replica has seen the front of which prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlaas.router.choice.prefixes import BLOCK_BYTES, BLOCK_TOKENS, Prefixes, prompt_blocks


def blocks(text: str):
    return prompt_blocks({"messages": [{"role": "user", "content": text}], "model": "any", "stream": True})


def test_a_prompt_is_whole_blocks_of_what_the_model_reads():
    assert blocks("short") == ()
    assert len(blocks("x" * BLOCK_BYTES * 3)) == 3
    assert len(blocks("x" * BLOCK_BYTES * 500)) == 128
    other = prompt_blocks({"model": "b", "messages": [{"role": "user", "content": "x" * BLOCK_BYTES * 3}]})
    assert other == blocks("x" * BLOCK_BYTES * 3)


def test_prompts_with_the_same_front_share_its_blocks_and_no_more():
    front = "a" * BLOCK_BYTES * 4
    one, other = blocks(front + "b" * BLOCK_BYTES * 4), blocks(front + "c" * BLOCK_BYTES * 4)
    assert one[:4] == other[:4]
    assert set(one[5:]).isdisjoint(other)


def test_a_match_counts_tokens_at_the_front_for_each_replica():
    prefixes = Prefixes()
    prefixes.add("x", (1, 2, 3))
    prefixes.add("y", (1,))
    assert prefixes.match((1, 2, 9)) == {"x": 2 * BLOCK_TOKENS, "y": BLOCK_TOKENS}
    assert prefixes.match((2, 3)) == {"x": 2 * BLOCK_TOKENS}
    assert prefixes.match((9, 1)) == {}


def test_a_replica_that_has_gone_is_forgotten():
    prefixes = Prefixes()
    prefixes.add("x", (1, 2))
    prefixes.add("y", (1,))
    prefixes.forget(["x"])
    assert prefixes.match((1, 2)) == {"y": BLOCK_TOKENS}
    assert len(prefixes) == 1


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.lists(st.integers(0, 30), max_size=12).map(tuple)), max_size=80))
def test_memory_is_bounded_and_what_was_just_sent_is_found(sent):
    prefixes = Prefixes(max_blocks=16)
    for origin, path in sent:
        prefixes.add(origin, path)
        assert len(prefixes) <= 16
        assert prefixes.match(path).get(origin, 0) == len(path) * BLOCK_TOKENS
