"""`mlaas bench-models`: how good, how fast and how dear models are at a suite of tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlaas.cli.instance import AsJson
from mlaas.errors import ConfigError, ProviderError
from mlaas.settings import load_settings

if TYPE_CHECKING:
    from mlaas.router.tasks.quality import QualityTable
    from mlaas.router.tasks.suite import Suite
    from mlaas.router.tasks.suite_run import Sample

_TIMEOUT_S = 600.0


def bench_models(
    suite: Annotated[Path, typer.Option(help="YAML or JSONL file with the tasks.")],
    models: Annotated[
        str | None, typer.Option(help="Models, with commas; without it, all that the gateway lists.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Quality table to write; what it holds of other models and tasks stays.")
    ] = Path("quality.json"),
    chart: Annotated[Path | None, typer.Option(help="Draw the table to this PNG.")] = None,
    judge: Annotated[str | None, typer.Option(help="Model that scores what only a judge can.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Ask models the tasks of a suite through the gateway, and write the quality table that `auto` and `balanced` read.

    Each answer is kept beside the table at once: the same command goes on where it was stopped, and asks again only
    what has brought no score. Exits with 1 when no request brought one.
    """
    from mlaas.router.tasks.quality import QualityTable, read_table, write_table
    from mlaas.router.tasks.suite import read_suite
    from mlaas.router.tasks.suite_run import merge, summarize

    tasks = read_suite(suite)
    if tasks.needs_judge and judge is None:
        raise ConfigError("no_judge", f"{suite} has items that a judge scores; name one with --judge MODEL")
    old = read_table(out) if out.exists() else QualityTable()
    samples = asyncio.run(
        _run(tasks, models, judge=judge, concurrency=concurrency, log=out.with_name(f"{out.name}.samples.jsonl"))
    )
    measured = summarize(samples, on=datetime.now(UTC).date())
    write_table(merge(old, measured), out)
    if chart is not None:
        from mlaas.router.tasks.quality_plot import draw_quality

        draw_quality(measured, chart)
    _show(measured, samples, out=out, as_json=as_json)
    if not measured.models:
        raise typer.Exit(1)


async def _run(suite: Suite, models: str | None, *, judge: str | None, concurrency: int, log: Path) -> list[Sample]:
    import httpx

    from mlaas.cli.chat import connect
    from mlaas.router.tasks.suite_run import GatewayClient, encode_sample, read_samples, run_suite

    gateway = connect(load_settings())
    headers = {"authorization": f"Bearer {gateway.api_key}"}
    names = [name.strip() for name in models.split(",")] if models is not None else _listed(gateway)
    done = read_samples(log)
    log.parent.mkdir(parents=True, exist_ok=True)
    async with httpx.AsyncClient(base_url=str(gateway.base_url), headers=headers, timeout=_TIMEOUT_S) as client:
        with log.open("ab") as stream:

            def keep(sample: Sample) -> None:
                stream.write(encode_sample(sample))
                stream.flush()

            return await run_suite(
                suite,
                names,
                complete=GatewayClient(client),
                judge=judge,
                concurrency=concurrency,
                done=done,
                keep=keep,
            )


def _listed(gateway: Any) -> list[str]:
    import openai

    try:
        return [model.id for model in gateway.models.list()]
    except openai.APIError as error:
        raise ProviderError("gateway_down", f"{gateway.base_url} does not list its models: {error}") from error


def _show(table: QualityTable, samples: Sequence[Sample], *, out: Path, as_json: bool) -> None:
    from mlaas.cli.output import console, print_json, show_rows

    errors: dict[str, int] = {}
    for sample in samples:
        if sample.error is not None:
            errors[f"{sample.model}: {sample.error}"] = errors.get(f"{sample.model}: {sample.error}", 0) + 1
    rows = [_row(model, task, cell) for model, cells in table.models.items() for task, cell in cells.items()]
    if as_json:
        print_json({"rows": rows, "errors": errors, "table": str(out)})
        return
    shown = [{name: _text(value) for name, value in row.items()} for row in rows]
    show_rows(shown, as_json=False, empty="no request brought a score")
    for error, num in errors.items():
        console.print(f"{num} x {error}", markup=False, style="red")
    console.print(f"written to {out}", markup=False)


def _row(model: str, task: Any, cell: Any) -> Mapping[str, Any]:
    return {
        "model": model,
        "task": task.value,
        "score": round(cell.score, 4),
        "samples": cell.samples,
        "errors": cell.errors,
        "latency_s": None if cell.latency_s is None else round(cell.latency_s, 3),
        "cost_usd": None if cell.cost_usd is None else float(cell.cost_usd),
    }


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".") if value < 0.01 else f"{value:.3f}"
    return "" if value is None else str(value)
