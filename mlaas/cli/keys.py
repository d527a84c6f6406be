"""`mlaas keys`: API keys for the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlaas.cli.instance import AsJson
from mlaas.settings import load_settings

if TYPE_CHECKING:
    from mlaas.store.keys import ApiKey, KeyRepository

app = typer.Typer(name="keys", help="API keys for the gateway.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "unnamed",
    tenant: Annotated[str, typer.Option(help="Who its requests are accounted to.")] = "default",
    role: Annotated[str, typer.Option(help="user, or admin.")] = "user",
    models: Annotated[str | None, typer.Option(help="Models that it may use, as in fast,smart. Default: all.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests in any 60 seconds. Default: no limit.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens in any 60 seconds. Default: no limit.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests under way at one time. Default: no limit.")] = None,
    budget_usd: Annotated[str | None, typer.Option(help="Dollars to spend in one period. Default: no limit.")] = None,
    per: Annotated[str | None, typer.Option(help="The budget's period, in UTC: day, or month.")] = None,
    priority: Annotated[int, typer.Option(help="Who goes first when requests wait: the higher one.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Create a key. Its secret is printed this once and stored nowhere. Needs no running platform."""
    from mlaas.auth.keys import create_key
    from mlaas.auth.limits import parse_limits
    from mlaas.cli.output import console, print_json
    from mlaas.store.engine import migrate

    limits = parse_limits(
        models=models,
        rpm=rpm,
        tpm=tpm,
        concurrency=concurrency,
        budget_usd=budget_usd,
        budget_per=per,
        priority=priority,
    )
    migrate(load_settings().store_url)
    secret, key = create_key(_repository(), name=name, tenant=tenant, role=role, limits=limits)
    if as_json:
        print_json({"key": secret, **_row(key)})
    else:
        console.print(f"{key.id}  [bold]{secret}[/bold]")


@app.command(name="list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys, revoked ones too."""
    from mlaas.cli.output import show_rows

    rows = [_row(key) for key in _repository().list()]
    show_rows(rows, as_json=as_json, empty="no keys yet; `mlaas keys create` makes one")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="Id of the key, as `mlaas keys list` shows it.")]) -> None:
    """End a key for good; the gateway refuses it within two seconds."""
    from mlaas.cli.output import console

    key = _repository().revoke(key_id)
    console.print(f"{key.id} ({key.name}) is revoked", markup=False)


def _row(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "role": key.role,
        "prefix": f"{key.prefix}…",
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        "models": None if key.models is None else list(key.models),
        "rpm": key.rpm,
        "tpm": key.tpm,
        "concurrency": key.concurrency,
        "budget_usd": None if key.budget_usd is None else f"{key.budget_usd:f}",
        "per": key.budget_per,
        "priority": key.priority,
    }


def _repository() -> KeyRepository:
    from mlaas.store.engine import open_store
    from mlaas.store.keys import KeyRepository

    return KeyRepository(open_store(load_settings().store_url))
