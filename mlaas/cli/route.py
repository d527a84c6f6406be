"""`mlaas route explain`: why a request goes where it goes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlaas.cli.instance import AsJson
from mlaas.errors import AuthenticationError, ConfigError, InvalidRequest, ProviderError
from mlaas.settings import Settings, load_settings, read_secret

if TYPE_CHECKING:
    from mlaas.router.choice.fleet import Fleet
    from mlaas.router.config import RouterConfig

app = typer.Typer(name="route", help="Where requests go.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `explain` a command of its own while it is the only one."""


@app.command()
def explain(
    model: Annotated[str, typer.Option(help="Model or alias; not needed when the request names it.")] = "",
    config: Annotated[
        Path | None, typer.Option(help="Decide by this router file, without live data, and ask no gateway.")
    ] = None,
    request: Annotated[str, typer.Option(help="File with the JSON of a chat request; - reads standard input.")] = "",
    replay: Annotated[
        str, typer.Option(help="A logged decision, or a file with one on each line: make it again.")
    ] = "",
    key: Annotated[str, typer.Option(help="API key; otherwise MLAAS_API_KEY, or this machine's own.")] = "",
    url: Annotated[str, typer.Option(help="Gateway to ask; empty: this machine's.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show the decision for a request: candidates, figures, reason, and who was skipped and why. Nothing is sent."""
    from mlaas.cli.output import print_json

    if replay:
        _replay(replay, as_json=as_json)
        return
    body = _request(model, request)
    told = _by_file(config, body) if config is not None else _by_gateway(url, key, body)
    if as_json:
        print_json(told)
    else:
        _show(told)


def _request(model: str, path: str) -> bytes:
    """Return the request to explain; `model` goes before the model that it names."""
    import orjson

    from mlaas.router.choice.explain_routes import example_chat

    if not path:
        if not model:
            raise InvalidRequest("no_model", "give --model, or --request with a file that names it")
        return example_chat(model)
    try:
        fields = orjson.loads(sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InvalidRequest("bad_request_file", f"cannot read a request from {path}: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("bad_request_file", f"{path} does not hold a JSON object")
    return orjson.dumps({**fields, **({"model": model} if model else {})})


def _by_file(path: Path, body: bytes) -> dict[str, Any]:
    """Decide by a router file alone."""
    from mlaas.providers.base import Operation
    from mlaas.router.abilities import Abilities
    from mlaas.router.catalog import build_catalog
    from mlaas.router.choice.explain import explain_call
    from mlaas.router.config_file import load_config
    from mlaas.router.dialects.build import DIALECTS
    from mlaas.router.fit import build_fitter
    from mlaas.router.request import parse_call

    config = load_config(path)
    call = parse_call(DIALECTS[Operation.CHAT], body, {})
    catalog, fleet = build_catalog(config), _idle_fleet(config, path.parent)
    fitter = build_fitter(config, catalog, Abilities(config))
    told = explain_call(call, catalog=catalog, fleet=fleet, fitter=fitter, now_s=0.0)
    return {"basis": f"{path}, without live data", **told}


def _idle_fleet(config: RouterConfig, folder: Path) -> Fleet:
    """Return a fleet that knows what a file says and nothing of what is live."""
    import time

    from mlaas.router.abilities import Abilities
    from mlaas.router.catalog import build_catalog
    from mlaas.router.choice.fleet import Fleet
    from mlaas.router.choice.offers import Offers
    from mlaas.router.money.local_prices import LocalPrices
    from mlaas.router.money.prices import PriceBook
    from mlaas.router.tasks.quality import load_quality

    prices = PriceBook(
        kinds={name: each.kind or name for name, each in config.providers.items()},
        own=config.prices,
        local=LocalPrices(config.machine_hour_usd),
    )
    offers = Offers(
        config,
        price_of=lambda target: prices.per_token(target, at_s=time.time()),
        abilities=Abilities(config),
        quality=load_quality(folder / config.quality) if config.quality else None,
    )
    return Fleet(build_catalog(config), restart_wait_s=0.0, offer_of=offers)


def _by_gateway(url: str, key: str, body: bytes) -> dict[str, Any]:
    """Ask a running gateway; without one, decide by this instance's router file."""
    import httpx

    settings = load_settings()
    base = url.rstrip("/") or settings.gateway_url
    secret = key or read_secret("MLAAS_API_KEY") or _own_key(settings)
    if not secret:
        raise AuthenticationError("no_api_key", "give --key, set MLAAS_API_KEY, or decide by a file with --config")
    try:
        answer = httpx.post(
            f"{base}/api/v1/route/explain", content=body, headers={"authorization": f"Bearer {secret}"}, timeout=10
        )
        told = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        if url or not settings.router_config:
            way_out = "start one with `mlaas up`, or decide by a file with --config"
            raise ProviderError("no_gateway", f"no gateway answers at {base}: {way_out}") from error
        return _by_file(Path(settings.router_config), body)
    if answer.status_code != 200:
        why = told.get("error", {}) if isinstance(told, dict) else {}
        raise ProviderError(str(why.get("code", answer.status_code)), str(why.get("message", "the gateway refuses")))
    return {"basis": f"{base}, live", **told}


def _own_key(settings: Settings) -> str:
    """Return the key of this machine's instance; empty when there is none."""
    path = settings.credentials_path
    return path.read_text().strip() if path.exists() else ""


def _show(told: dict[str, Any]) -> None:
    from mlaas.cli.output import console, show_rows

    policy = f" ({told['policy']})" if told["policy"] else ""
    console.print(f"{told['model']}{policy} -> {told['target'] or 'nobody'}", markup=False, style="bold")
    console.print(f"  {told['reason']}", markup=False)
    task = f", task {told['task']}" if told["task"] else ""
    console.print(
        f"  for about {told['input_tokens']:,} + {told['output_tokens']:,} tokens{task}; by {told['basis']}",
        markup=False,
    )
    show_rows([_row(each) for each in told["candidates"]], as_json=False, empty="it has no candidate")


def _row(each: dict[str, Any]) -> dict[str, object]:
    return {
        "": each["place"] or "-",
        "target": each["target"],
        "at": each["origin"],
        "cost_usd": _figure(each["cost_usd"], "{:.6f}"),
        "quality": _figure(each["quality"], "{:.2f}"),
        "ttft_s": _figure(each["predicted_ttft_s"], "{:.2f}"),
        "end_s": _figure(each["predicted_end_s"], "{:.2f}"),
        "running": each["num_running"],
        "waiting": each["num_waiting"],
        "kv": _figure(each["kv_usage"], "{:.0%}"),
        "drops": ", ".join(each["drops"]),
        "why": each["refuses"] or each["reason"],
    }


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _replay(source: str, *, as_json: bool) -> None:
    """Make logged decisions again.

    Raises:
        ConfigError: a line is not a decision.
    """
    from mlaas.cli.output import console, print_json
    from mlaas.router.choice.decide import decide
    from mlaas.router.choice.decision_log import find_logged
    from mlaas.router.choice.explain import difference

    lines = [source] if source.lstrip().startswith("{") else _lines(Path(source))
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            logged = find_logged(line)
        except ValueError as error:
            raise ConfigError("not_a_decision", f"line {number} is not a logged decision: {error}") from error
        if logged is None:
            continue
        again = decide(logged.snapshot)
        found = difference(logged.decision, again) if logged.decision is not None else ""
        target = str(again.attempts[0].target) if again.attempts else ""
        reason = again.attempts[0].reason if again.attempts else ""
        rows.append({"line": number, "is_same": not found, "target": target, "reason": reason, "difference": found})
    num_other = sum(not row["is_same"] for row in rows)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            mark = "same" if row["is_same"] else f"differs: {row['difference']}"
            console.print(f"{row['target'] or 'nobody'}: {row['reason']} [{mark}]", markup=False)
        console.print(f"{len(rows) - num_other} of {len(rows)} decisions are the same", markup=False)
    if num_other:
        raise typer.Exit(1)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError("unreadable_log", f"cannot read {path}: {error}") from error
