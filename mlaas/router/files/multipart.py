"""Forms with files, as browsers and SDKs upload them.

Source: RFC 7578 (form-data), RFC 2046, 5.1.1 (boundaries).
"""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message

from mlaas.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One field of a form."""

    content: bytes
    filename: str | None = None


def parse_form(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the fields of a form by name; of a name that comes twice, the last.

    Args:
        content_type: the request's header, with the boundary.
        body: the whole form.

    Raises:
        InvalidRequest: it is not a whole `multipart/form-data`.
    """
    head = Message()
    head["content-type"] = content_type
    boundary = head.get_boundary()
    if head.get_content_type() != "multipart/form-data" or not boundary:
        raise InvalidRequest("not_a_form", "send the file as multipart/form-data, as OpenAI's SDK does")
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise InvalidRequest("torn_form", "the form ends before its last boundary")
    return dict(map(_parse_part, pieces[1:-1]))


def _parse_part(piece: bytes) -> tuple[str, Part]:
    head, blank, content = piece.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
    fields = Message()
    for line in head.split(b"\r\n"):
        header, _, value = line.decode("utf-8", "replace").partition(":")
        if header.strip().lower() == "content-disposition":
            fields["content-disposition"] = value.strip()
    name = fields.get_param("name", header="content-disposition")
    if not blank or not isinstance(name, str):
        raise InvalidRequest("bad_form", "a part of the form has no name")
    return name, Part(content=content, filename=fields.get_filename())
