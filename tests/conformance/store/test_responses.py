from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from mlaas.errors import Conflict, NotFound
from mlaas.store.responses import ResponseRepository, StoredResponse

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
DONE = StoredResponse(
    id="resp_1",
    tenant="ada",
    previous_id=None,
    status="completed",
    provider="openai",
    items='[{"role":"user","content":"\\u0000 é"}]',
    answer='{"id":"resp_1"}',
    created_at=NOON,
)
RUNNING = replace(DONE, id="resp_2", status="in_progress", provider="", owner="p1", seen_at=NOON)


def test_a_stored_response_comes_back_to_its_tenant_and_to_no_other(store: Engine) -> None:
    repository = ResponseRepository(store)
    repository.add(DONE)
    assert repository.get("resp_1", tenant="ada") == DONE
    with pytest.raises(NotFound, match="resp_1"):
        repository.get("resp_1", tenant="eve")
    with pytest.raises(NotFound, match="resp_1"):
        repository.delete("resp_1", tenant="eve")


def test_a_taken_id_is_a_conflict(store: Engine) -> None:
    repository = ResponseRepository(store)
    repository.add(DONE)
    with pytest.raises(Conflict, match="resp_1"):
        repository.add(replace(DONE, tenant="eve"))


def test_a_conversation_is_listed_oldest_first_and_no_deeper_than_asked(store: Engine) -> None:
    repository = ResponseRepository(store)
    chain = [DONE, replace(DONE, id="resp_3", previous_id="resp_1"), replace(DONE, id="resp_4", previous_id="resp_3")]
    for response in reversed(chain):
        repository.add(response)
    assert repository.list_conversation("resp_4", tenant="ada", depth=9) == chain
    assert repository.list_conversation("resp_4", tenant="ada", depth=2) == chain[1:]
    repository.delete("resp_1", tenant="ada")
    with pytest.raises(NotFound, match="resp_1"):
        repository.list_conversation("resp_4", tenant="ada", depth=9)


def test_a_conversation_never_leaves_its_tenant(store: Engine) -> None:
    repository = ResponseRepository(store)
    repository.add(DONE)
    repository.add(replace(DONE, id="resp_3", tenant="eve", previous_id="resp_1"))
    with pytest.raises(NotFound, match="resp_1"):
        repository.list_conversation("resp_3", tenant="eve", depth=9)


def test_a_response_ends_once(store: Engine) -> None:
    repository = ResponseRepository(store)
    repository.add(RUNNING)
    assert repository.end("resp_2", status="cancelled", answer="{}")
    assert not repository.end("resp_2", status="completed", answer="[]", provider="openai")
    assert repository.get("resp_2", tenant="ada") == replace(RUNNING, status="cancelled", answer="{}")


def test_whoever_touches_learns_what_others_have_ended(store: Engine) -> None:
    repository = ResponseRepository(store)
    later = NOON + timedelta(seconds=9)
    repository.add(RUNNING)
    repository.add(replace(RUNNING, id="resp_3"))
    repository.end("resp_3", status="cancelled", answer="{}")
    assert repository.touch(["resp_2", "resp_3", "resp_9"], at=later) == {"resp_2"}
    assert repository.get("resp_2", tenant="ada").seen_at == later
    assert repository.get("resp_3", tenant="ada").seen_at == NOON


def test_only_active_responses_that_nobody_has_seen_to_are_abandoned(store: Engine) -> None:
    repository = ResponseRepository(store)
    queued = replace(RUNNING, id="resp_3", status="queued", created_at=NOON - timedelta(seconds=1))
    seen = replace(RUNNING, id="resp_4", seen_at=NOON + timedelta(seconds=9))
    for response in (DONE, RUNNING, queued, seen):
        repository.add(response)
    assert repository.list_abandoned(before=NOON + timedelta(seconds=1)) == [queued, RUNNING]


def test_old_responses_are_purged(store: Engine) -> None:
    repository = ResponseRepository(store)
    repository.add(DONE)
    repository.add(replace(DONE, id="resp_3", created_at=NOON + timedelta(seconds=1)))
    assert repository.purge(before=NOON + timedelta(microseconds=1)) == 1
    with pytest.raises(NotFound):
        repository.get("resp_1", tenant="ada")
    assert repository.get("resp_3", tenant="ada").id == "resp_3"
