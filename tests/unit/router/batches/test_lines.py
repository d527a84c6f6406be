"""The input of a batch: each fault is told with its line and field."""

from __future__ import annotations

import orjson
import pytest
from openai.types.batch_error import BatchError

from mlaas.router.batches.lines import MAX_LINES, encode_answer, encode_unanswered, parse_lines

ENDPOINT = "/v1/chat/completions"


def line(custom_id: object = "a", **changes: object) -> dict:
    body = {"model": "m", "messages": []}
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body, **changes}


def content(*values: object) -> bytes:
    return b"\n".join(orjson.dumps(value) for value in values)


@pytest.mark.parametrize(
    ("value", "code", "param"),
    [
        ([], "invalid_json_line", None),
        (line(7), "invalid_custom_id", "custom_id"),
        (line(""), "invalid_custom_id", "custom_id"),
        (line("x" * 513), "invalid_custom_id", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/embeddings"), "invalid_url", "url"),
        (line(body=[]), "invalid_body", "body"),
        (line(body={}), "missing_required_parameter", "body.model"),
        (line(body={"model": "m", "stream": True}), "unsupported_parameter", "body.stream"),
        (line(priority=1), "unknown_parameter", "priority"),
        (line("first"), "duplicate_custom_id", "custom_id"),
    ],
)
def test_a_fault_is_told_with_its_line_and_field(value: object, code: str, param: str | None) -> None:
    _, errors = parse_lines(content(line("first"), value), endpoint=ENDPOINT)
    [error] = errors
    assert (error["code"], error["param"], error["line"]) == (code, param, 2)
    BatchError.model_validate(error)


def test_blank_lines_are_passed_over_and_still_counted() -> None:
    text = b"\r\n" + content(line("a")) + b"\r\n\n  \n" + content(line("b")) + b"\n{"
    lines, errors = parse_lines(text, endpoint=ENDPOINT)
    assert [(each.number, each.custom_id) for each in lines] == [(2, "a"), (5, "b")]
    assert [error["line"] for error in errors] == [6]


def test_an_empty_file_and_one_that_is_too_long_are_refused() -> None:
    assert parse_lines(b"\n", endpoint=ENDPOINT)[1][0]["code"] == "empty_file"
    text = content(line("0000"))
    many = b"\n".join(text.replace(b"0000", b"%d" % number) for number in range(MAX_LINES + 1))
    [error] = parse_lines(many, endpoint=ENDPOINT)[1]
    assert (error["code"], error["line"]) == ("too_many_requests", MAX_LINES + 1)


def test_at_most_a_hundred_faults_are_told() -> None:
    assert len(parse_lines(b"{\n" * 500, endpoint=ENDPOINT)[1]) == 100


def test_output_lines_have_openai_s_shape() -> None:
    [first], _ = parse_lines(content(line("a")), endpoint=ENDPOINT)
    text = encode_answer(first, batch_id="batch_1", request_id="r", status=200, body=b'{"id": 1.50}')
    assert orjson.loads(text) == {
        "id": "batch_req_1_1",
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "r", "body": {"id": 1.5}},
        "error": None,
    }
    assert '"id": 1.50' in text
    unanswered = orjson.loads(encode_unanswered(first, batch_id="batch_1", code="c", message="m"))
    assert (unanswered["response"], unanswered["error"]) == (None, {"code": "c", "message": "m"})


def test_a_body_over_several_lines_still_makes_one_line() -> None:
    [first], _ = parse_lines(content(line("a")), endpoint=ENDPOINT)
    text = encode_answer(first, batch_id="batch_1", status=200, body=b'{\n  "a": "b\\nc"\n}')
    assert "\n" not in text
    assert orjson.loads(text)["response"]["body"] == {"a": "b\nc"}


def test_a_body_that_is_not_json_is_told_as_text() -> None:
    [first], _ = parse_lines(content(line("a")), endpoint=ENDPOINT)
    text = encode_answer(first, batch_id="batch_1", status=502, body=b"<html>\n")
    assert orjson.loads(text)["response"]["body"] == "<html>\n"
