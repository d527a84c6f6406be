"""`mlaas usage`: what requests used and cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlaas.cli.instance import AsJson
from mlaas.settings import load_settings

if TYPE_CHECKING:
    from mlaas.store.usage import UsageRepository


def usage(
    by: Annotated[str, typer.Option(help="tenant, model, provider, key or day.")] = "model",
    since: Annotated[str, typer.Option(help="An age such as 30m, 24h or 7d, or a date such as 2026-11-23.")] = "24h",
    until: Annotated[str, typer.Option(help="The same; empty: now.")] = "",
    tenant: Annotated[str, typer.Option(help="Only this tenant's requests; empty: all.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what requests to models used and cost, dearest first. It reads the store, with or without a gateway."""
    from mlaas.cli.output import print_json, show_rows
    from mlaas.router.money.usage_api import summarize_usage

    answer = summarize_usage(
        _repository(), by=by, since=since, until=until, tenant=tenant or None, now=datetime.now(UTC)
    )
    if as_json:
        print_json(answer)
        return
    rows = [_shown(by, row) for row in answer["data"]]
    if rows:
        rows.append(_shown(by, {by: "total", **answer["total"]}))
    show_rows(rows, as_json=False, empty=f"no requests to models since {answer['since']}")


def _shown(by: str, row: dict[str, Any]) -> dict[str, object]:
    ttft_ms = row.get("mean_ttft_ms")
    unpriced = f" (+{row['num_unpriced']} without a price)" if row["num_unpriced"] else ""
    return {
        by: row[by] or "-",
        "requests": row["num_requests"],
        "errors": row["num_errors"],
        "cached": row["num_cached"],
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "ttft_ms": "" if ttft_ms is None else f"{ttft_ms:.0f}",
        "cost_usd": f"{row['cost_usd']:.6f}{unpriced}",
    }


def _repository() -> UsageRepository:
    from mlaas.store.engine import open_store
    from mlaas.store.usage import UsageRepository

    return UsageRepository(open_store(load_settings().store_url))
