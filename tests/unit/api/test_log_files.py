"""Logs of commands, read piece by piece."""

from __future__ import annotations

import asyncio

import pytest

from mlaas.api.log_files import MAX_PIECE_BYTES, last_lines_offset, read_piece, wait_for_piece


@pytest.mark.parametrize(
    ("text", "num_lines", "expected"),
    [
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\n", 5, b"a\nb\n"),
        (b"a\n\n\n", 2, b"\n\n"),
        (b"", 3, b""),
    ],
)
def test_the_last_lines_are_found(tmp_path, text: bytes, num_lines: int, expected: bytes):
    path = tmp_path / "1.log"
    path.write_bytes(text)
    assert text[last_lines_offset(path, num_lines=num_lines) :] == expected


def test_of_a_line_without_end_the_last_piece_is_given(tmp_path):
    path = tmp_path / "1.log"
    path.write_bytes(b"x" * (MAX_PIECE_BYTES + 10))
    assert last_lines_offset(path, num_lines=1) == 10


async def test_pieces_put_together_are_the_whole(tmp_path):
    path = tmp_path / "1.log"
    whole = bytes(range(256)) * 5000
    path.write_bytes(whole)
    pieces = []
    while piece := await read_piece(path, offset=sum(map(len, pieces))):
        pieces.append(piece)
    assert b"".join(pieces) == whole
    assert max(map(len, pieces)) == MAX_PIECE_BYTES


async def test_a_log_that_is_not_there_yet_is_empty_and_waited_for(tmp_path):
    path = tmp_path / "1.log"
    assert await read_piece(path, offset=0) == b""
    assert await wait_for_piece(path, offset=0, wait_s=0) == b""
    waiting = asyncio.create_task(wait_for_piece(path, offset=2, wait_s=30))
    await asyncio.sleep(0)
    path.write_bytes(b"a\nb\n")
    assert await asyncio.wait_for(waiting, timeout=10) == b"b\n"
