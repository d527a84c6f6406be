"""The control plane from the other side: a client of `/api/v1` for the command line and for Python programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
import orjson

from mlaas.api.log_files import ATTEMPT_HEADER, OFFSET_HEADER, OVER_HEADER, STATE_HEADER, LogPiece
from mlaas.errors import (
    AuthenticationError,
    Conflict,
    InvalidRequest,
    MlaasError,
    NotFound,
    PermissionDenied,
    PlatformError,
    RequestTooLarge,
)

_TIMEOUT_S: Final = 45.0
"""Longer than the gateway waits for the scheduler, so that its own error arrives."""
_UPLOAD_TIMEOUT_S: Final = 300.0
_ERRORS: Final[Mapping[int, type[MlaasError]]] = {
    400: InvalidRequest,
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: RequestTooLarge,
}


class ControlPlane:
    """A connection to the control plane of a gateway.

    Every method raises what the control plane answers with, under its code: `AuthenticationError`, `PermissionDenied`,
    `NotFound`, `Conflict`, `InvalidRequest`, `RequestTooLarge`; and `PlatformError` when the gateway, the scheduler or
    the store does not answer.

    Args:
        url: of the gateway, without `/v1`.
        key: an API key.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=f"{self._url}/api/v1", headers=headers, timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def submit(self, specs: Sequence[Mapping[str, Any]], *, submission_id: str = "") -> Sequence[dict[str, Any]]:
        """Submit workloads and return them as they are recorded.

        Args:
            specs: as in a file of workloads.
            submission_id: the same submission under the same id is accepted once, however often it is sent.
        """
        headers = {"idempotency-key": submission_id} if submission_id else {}
        return self._fields("POST", "/workloads", content=orjson.dumps(specs), headers=headers)["workloads"]

    def plan(self, specs: Sequence[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
        """Return what would become of each workload if it were submitted now. Nothing changes."""
        return self._fields("POST", "/workloads/plan", content=orjson.dumps(specs))["plans"]

    def list(
        self, *, states: Sequence[str] = (), tenant: str = "", limit: int = 100, in_turn: bool = False
    ) -> Sequence[dict[str, Any]]:
        """Return workloads, the newest first; `in_turn`: those that have not ended, as the scheduler looks at them."""
        order = "turn" if in_turn else ""
        params = {"state": ",".join(states), "tenant": tenant, "limit": str(limit), "order": order}
        return self._fields("GET", "/workloads", params={name: text for name, text in params.items() if text})[
            "workloads"
        ]

    def get(self, workload_id: str) -> dict[str, Any]:
        """Return a workload."""
        return self._fields("GET", _path(workload_id))

    def cancel(self, workload_id: str) -> dict[str, Any]:
        """Cancel a workload, and return it."""
        return self._fields("POST", f"{_path(workload_id)}/cancel")

    def events(self, workload_id: str) -> Sequence[dict[str, Any]]:
        """Return what has happened to a workload, or to the indexes of an array, oldest first."""
        events: list[dict[str, Any]] = []
        has_more = True
        while has_more:
            after = {"after": str(events[-1]["number"])} if events else {}
            answer = self._fields("GET", f"{_path(workload_id)}/events", params=after)
            events += answer["events"]
            has_more = answer["has_more"]
        return events

    def explain(self, workload_id: str) -> dict[str, Any]:
        """Return why a workload is where it is."""
        return self._fields("GET", f"{_path(workload_id)}/explain")

    def cluster(self) -> dict[str, Any]:
        """Return the cluster as it is used now."""
        return self._fields("GET", "/cluster")

    def queues(self) -> dict[str, Any]:
        """Return the queues in force."""
        return self._fields("GET", "/queues")

    def apply_queues(self, document: bytes, *, is_dry_run: bool) -> dict[str, Any]:
        """Put the queues of a document in force, or only return what would change: `changes` and `warnings`."""
        params = {"dry_run": "true"} if is_dry_run else {}
        return self._fields("PUT", "/queues", content=document, params=params)

    def has_package(self, digest: str) -> bool:
        """Return whether the archive of a working directory is there already."""
        try:
            self._fields("GET", f"/packages/{digest}")
        except NotFound:
            return False
        return True

    def upload_package(self, archive: bytes) -> str:
        """Upload the archive of a working directory, and return its digest."""
        digest: str = self._fields("POST", "/packages", content=archive, timeout_s=_UPLOAD_TIMEOUT_S)["digest"]
        return digest

    def read_log(
        self, workload_id: str, *, attempt: int = 0, rank: int = 0, offset: int = 0, num_lines: int = 0, wait_s: int = 0
    ) -> LogPiece:
        """Return a part of what a workload's command has printed.

        Args:
            workload_id: which.
            attempt: which start of it; 0: the present or last one.
            rank: which worker of the gang.
            offset: first byte.
            num_lines: begin with so many of the last lines, whatever the offset; 0: at the offset.
            wait_s: how long to wait for more, when there is none.
        """
        wanted = {"attempt": attempt, "rank": rank, "offset": offset, "tail": num_lines, "wait_s": wait_s}
        params = {name: str(value) for name, value in wanted.items() if value}
        answer = self._answer("GET", f"{_path(workload_id)}/logs", params=params)
        return LogPiece(
            text=answer.content,
            attempt=int(answer.headers[ATTEMPT_HEADER]),
            next_offset=int(answer.headers[OFFSET_HEADER]),
            is_over=answer.headers[OVER_HEADER] == "true",
            state=answer.headers[STATE_HEADER],
        )

    def _fields(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> dict[str, Any]:
        answer = self._answer(method, path, content=content, params=params, headers=headers, timeout_s=timeout_s)
        fields: dict[str, Any] = answer.json()
        return fields

    def _answer(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> httpx.Response:
        try:
            answer = self._http.request(
                method, path, content=content, params=params, headers=headers, timeout=timeout_s
            )
        except httpx.TransportError as error:
            text = f"no gateway answers at {self._url}; start one with `mlaas up`, or name one with --url"
            raise PlatformError("no_gateway", text) from error
        if not answer.is_success:
            raise _refusal(answer, self._url)
        return answer


def _refusal(answer: httpx.Response, url: str) -> MlaasError:
    """Return the error that an answer tells of."""
    try:
        error = answer.json()["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "bad_answer", f"{url} answers {answer.status_code}, and not as a gateway of this kind does"
    wait = answer.headers.get("retry-after", "")
    kind = _ERRORS.get(answer.status_code, PlatformError)
    return kind(code, message, retry_after_s=float(wait) if wait.isdecimal() else None)


def _path(workload_id: str) -> str:
    return f"/workloads/{quote(workload_id, safe='')}"
