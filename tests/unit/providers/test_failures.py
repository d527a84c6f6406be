"""What error answers mean, and how long they ask to wait."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.providers.base import FailureKind
from mlaas.providers.failures import parse_failure
from mlaas.providers.retry_after import parse_retry_after

DATE = "Sun, 22 Nov 2026 10:00:00 GMT"
GOOGLE = "type.googleapis.com/google.rpc."


def fail(status, error, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse_failure("house", status, named, orjson.dumps(error))


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:09 GMT", "date": DATE}, 9.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:09 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1.0),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-requests": "later"}, None),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "2s"}, 1.0),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-reset-tokens": "2s",
                "x-ratelimit-remaining-tokens": "0",
            },
            2.0,
        ),
        ({"x-ratelimit-reset-requests": "9s", "retry-after": "1"}, 1.0),
        ({"anthropic-ratelimit-tokens-reset": "2026-11-22T10:00:30Z", "date": DATE}, 30.0),
        ({"anthropic-ratelimit-tokens-reset": "2026-11-22T10:00:30Z"}, None),
        (
            {
                "anthropic-ratelimit-input-tokens-reset": "2026-11-22T10:00:30Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-11-22T10:00:01Z",
                "anthropic-ratelimit-requests-remaining": "9",
                "date": DATE,
            },
            30.0,
        ),
    ],
)
def test_the_wait_is_read_in_every_form(headers, wait_s):
    assert parse_retry_after(headers) == wait_s


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date", "x-ratelimit-reset-a"]), st.text()))
def test_no_header_breaks_the_reading(headers):
    wait_s = parse_retry_after(headers)
    assert wait_s is None or wait_s >= 0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}}),
        (429, {"error": {"message": "x", "code": "credit_balance_exhausted"}}),
        (402, {"type": "error", "error": {"type": "billing_error", "message": "x"}}),
        (
            400,
            {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
        ),
        (429, {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}}),
        (402, [{"error": {"code": 402, "status": "RESOURCE_EXHAUSTED", "message": "prepaid"}}]),
        (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded, limit: 0"}}]),
        (403, {"code": "x", "error": "Your team has used all available credits or reached its limit."}),
    ],
)
def test_an_account_without_money_is_never_an_overload(status, error):
    failure = fail(status, error)
    assert (failure.kind, failure.status) == (FailureKind.QUOTA, 402)
    assert "the gateway's own account at house" in failure.message


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, {"error": {"message": "Incorrect API key provided: sk-x", "code": "invalid_api_key"}}),
        (
            400,
            [{"error": {"code": 400, "message": "API key not valid. Please pass one.", "status": "INVALID_ARGUMENT"}}],
        ),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: x."}),
    ],
)
def test_a_key_that_is_not_accepted_is_the_gateways_fault(status, error):
    failure = fail(status, error)
    assert (failure.kind, failure.status) == (FailureKind.DENIED, 502)
    assert "house refused the gateway's own API key" in failure.message


def test_a_caller_cannot_make_an_account_look_empty():
    """Messages quote callers; only codes, and how a message begins, are believed."""
    quoted = "unknown tool 'insufficient_quota': Your credit balance is too low, limit: 0"
    assert fail(400, {"error": {"message": quoted, "type": "invalid_request_error"}}).kind is FailureKind.REJECTED


@pytest.mark.parametrize(
    ("quota", "kind", "wait_s"),
    [
        ({"quotaId": "RequestsPerMinute", "quotaValue": "5"}, FailureKind.OVERLOADED, 34.07),
        ({"quotaId": "RequestsPerDayPerProject", "quotaValue": "50"}, FailureKind.QUOTA, 3600.0),
        ({"quotaId": "RequestsPerMinute", "quotaValue": "0"}, FailureKind.QUOTA, 34.07),
    ],
)
def test_gemini_says_which_quota_and_how_long(quota, kind, wait_s):
    details = [
        {"@type": GOOGLE + "QuotaFailure", "violations": [quota]},
        {"@type": GOOGLE + "RetryInfo", "retryDelay": "34.07s"},
    ]
    failure = fail(429, [{"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED", "details": details}}])
    assert (failure.kind, failure.retry_after_s, failure.code) == (kind, wait_s, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    ("status", "should_retry", "kind"),
    [
        (429, "false", FailureKind.QUOTA),
        (500, "false", FailureKind.DENIED),
        (529, "false", FailureKind.DENIED),
        (409, "true", FailureKind.OVERLOADED),
        (400, "false", FailureKind.REJECTED),
        (401, "true", FailureKind.DENIED),
        (500, "true", FailureKind.FAILED),
        (500, "maybe", FailureKind.FAILED),
    ],
)
def test_an_upstream_that_says_whether_to_retry_is_believed(status, should_retry, kind):
    assert fail(status, {"error": {"message": "x"}}, x_should_retry=should_retry).kind is kind


@pytest.mark.parametrize(
    "details", [None, 5, "x", [1], [{"violations": 7}], [{"violations": [7]}, {"retryDelay": 7}], {}]
)
def test_details_of_any_shape_are_survived(details):
    assert fail(429, {"error": {"message": "x", "details": details}}).kind is FailureKind.OVERLOADED


@given(st.binary(max_size=60), st.integers(300, 599))
def test_no_body_breaks_the_reading(body, status):
    failure = parse_failure("house", status, {}, body)
    assert 400 <= failure.status < 600
    assert failure.message
    assert len(failure.message) < 2200


def test_a_path_that_vllm_has_not_says_that_the_model_is_of_another_kind():
    failure = fail(404, {"detail": "Not Found"})
    assert (failure.status, failure.kind) == (404, FailureKind.DENIED)
    assert "no such API for this model" in failure.message
