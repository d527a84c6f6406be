"""Forms with files: what httpx writes is read back, and what is torn is refused."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.errors import InvalidRequest
from mlaas.router.files.multipart import parse_form


def encode(content: bytes, filename: str, **fields: str) -> tuple[str, bytes]:
    request = httpx.Request("POST", "http://x", files={"file": (filename, content)}, data=fields)
    return request.headers["content-type"], request.read()


@given(st.binary(max_size=200) | st.sampled_from([b"", b"--", b"\r\n--", b"\r\n\r\n", b"a\r\n--b\r\n"]))
def test_any_content_comes_through(content: bytes) -> None:
    form = parse_form(*encode(content, "in put.jsonl", purpose="batch"))
    assert form.keys() == {"file", "purpose"}
    assert (form["file"].content, form["file"].filename) == (content, "in put.jsonl")
    assert (form["purpose"].content, form["purpose"].filename) == (b"batch", None)


def test_a_boundary_in_quotes_and_a_preamble_are_fine() -> None:
    body = b'ignored\r\n--x y\r\ncontent-DISPOSITION: form-data; name="a"\r\n\r\n1\r\n--x y--\r\nignored'
    assert parse_form('multipart/form-data; boundary="x y"', body)["a"].content == b"1"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("", b""),
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n'),
        ("multipart/form-data; boundary=x", b'--x\r\ncontent-disposition: form-data; name="a"\r\n--x--'),
        ("multipart/form-data; boundary=x", b"--x\r\ncontent-disposition: form-data\r\n\r\n1\r\n--x--"),
    ],
)
def test_what_is_no_whole_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_form(content_type, body)


def test_every_cut_of_a_form_is_refused() -> None:
    content_type, body = encode(b"content", "f", purpose="batch")
    for length in range(len(body) - len(b"--\r\n")):
        with pytest.raises(InvalidRequest):
            parse_form(content_type, body[:length])
