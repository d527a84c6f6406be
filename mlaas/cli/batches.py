"""`mlaas batches`: files of requests, answered in the background by any model of the gateway."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlaas.cli.instance import AsJson
from mlaas.errors import InvalidRequest, NotFound, ProviderError
from mlaas.settings import load_settings

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

app = typer.Typer(name="batches", help="Files of requests, answered in the background.", no_args_is_help=True)
_POLL_S = 1.0
_ENDED = ("failed", "completed", "expired", "cancelled")

BatchId = Annotated[str, typer.Argument(help="Id of the batch, as `mlaas batches list` shows it.")]


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="JSONL file in OpenAI's batch format.", exists=True, dir_okay=False)],
    endpoint: Annotated[str, typer.Option(help="Where all its requests go.")] = "/v1/chat/completions",
    window: Annotated[str, typer.Option(help="Hours until it expires, from 1h to 168h.")] = "24h",
    wait: Annotated[bool, typer.Option(help="Wait until it has ended, and exit with 1 unless it completed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a file and have its requests answered."""
    with _gateway() as client:
        uploaded = client.files.create(file=file, purpose="batch")
        # The SDK's types know OpenAI's own endpoints and window alone.
        options: dict[str, Any] = {"endpoint": endpoint, "completion_window": window}
        batch = client.batches.create(input_file_id=uploaded.id, **options)
        while wait and batch.status not in _ENDED:
            time.sleep(_POLL_S)
            batch = client.batches.retrieve(batch.id)
    _show([batch], as_json=as_json)
    if wait and batch.status != "completed":
        raise typer.Exit(1)


@app.command(name="list")
def list_batches(as_json: AsJson = False) -> None:
    """List the batches of this key's tenant, newest first."""
    with _gateway() as client:
        batches = list(client.batches.list())
    _show(batches, as_json=as_json)


@app.command()
def show(batch_id: BatchId, as_json: AsJson = False) -> None:
    """Show a batch, and what is wrong with its input."""
    from mlaas.cli.output import console

    with _gateway() as client:
        batch = client.batches.retrieve(batch_id)
    _show([batch], as_json=as_json)
    for error in (batch.errors.data or []) if batch.errors and not as_json else []:
        console.print(f"line {error.line}: {error.message} ({error.code})", markup=False, style="red")


@app.command()
def cancel(batch_id: BatchId, as_json: AsJson = False) -> None:
    """Stop a batch; what has been answered stays."""
    with _gateway() as client:
        batch = client.batches.cancel(batch_id)
    _show([batch], as_json=as_json)


@app.command()
def output(
    batch_id: BatchId,
    errors: Annotated[bool, typer.Option("--errors", help="The error file in place of the output file.")] = False,
) -> None:
    """Print what a batch has answered, as JSON lines."""
    with _gateway() as client:
        batch = client.batches.retrieve(batch_id)
        file_id = batch.error_file_id if errors else batch.output_file_id
        if batch.status not in _ENDED:
            raise NotFound("no_output_yet", f"{batch_id} is {batch.status}; its files are written at its end")
        content = client.files.content(file_id).text if file_id is not None else ""
    sys.stdout.write(content)


@contextmanager
def _gateway() -> Iterator[OpenAI]:
    import openai

    from mlaas.cli.chat import connect

    settings = load_settings()
    try:
        yield connect(settings)
    except openai.APIConnectionError as error:
        raise ProviderError("gateway_down", f"{settings.gateway_url} does not answer; run `mlaas up`") from error
    except openai.NotFoundError as error:
        raise NotFound(error.code or "not_found", error.message) from error
    except openai.APIStatusError as error:
        raise InvalidRequest(error.code or "refused", error.message) from error


def _show(batches: list[Batch], *, as_json: bool) -> None:
    from mlaas.cli.output import show_rows

    rows = [_row(batch) for batch in batches]
    show_rows(rows, as_json=as_json, empty="no batches yet; `mlaas batches submit FILE.jsonl` starts one")


def _row(batch: Batch) -> dict[str, Any]:
    counts = batch.request_counts
    return {
        "id": batch.id,
        "status": batch.status,
        "total": counts.total if counts else 0,
        "completed": counts.completed if counts else 0,
        "failed": counts.failed if counts else 0,
        "endpoint": batch.endpoint,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
    }
