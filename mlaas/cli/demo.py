"""`mlaas demo`: the main job from end to end, each step one that a user can take alone."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlaas.errors import ConfigError
from mlaas.settings import load_settings

if TYPE_CHECKING:
    from mlaas.settings import Settings

CHECKOUT = Path(__file__).parents[2]
RECIPE = Path("jobs/recipes/stdlib_tiny.toml")
MODEL = "tiny-python"
PROMPT = "def "
COMPLETION_TOKENS = 32


def demo() -> None:
    """Train a small language model on this machine, register it, serve it with vLLM, and talk to it."""
    from mlaas.cli.instance import up
    from mlaas.cli.models import deploy
    from mlaas.cli.output import console

    if not (CHECKOUT / RECIPE).exists():
        raise ConfigError("no_checkout", f"the demo needs a checkout of the project: {CHECKOUT / RECIPE} is missing")
    settings = load_settings()
    start_s = time.monotonic()

    def announce(step: int, text: str) -> None:
        console.print(f"\n[bold cyan]{step}/4  {text}[/bold cyan]   [dim]({time.monotonic() - start_s:.0f} s)[/dim]")

    announce(1, "start the platform: mlaas up")
    up()
    announce(2, f"train and register: mlaas submit jobs/train_lm.py --recipe {RECIPE}")
    _train()
    announce(3, f"serve: mlaas deploy {MODEL}")
    deploy(MODEL)
    announce(4, f"talk: mlaas chat '{PROMPT}'")
    _show(settings, duration_s=time.monotonic() - start_s)


def _train() -> None:
    from mlaas.cli.jobs import submit_job

    submit_job(CHECKOUT / "jobs" / "train_lm.py", ["--recipe", str(RECIPE)], working_dir=CHECKOUT)


def _show(settings: Settings, *, duration_s: float) -> None:
    """Print the last screen: what the model is worth, what it writes, where everything is, and what to try next."""
    from mlaas.cli.chat import connect
    from mlaas.cli.output import console
    from mlaas.tracking.registry import Registry

    model = Registry(settings.tracking_uri).resolve(MODEL, version=None)
    answer = connect(settings).completions.with_raw_response.create(
        model="default", prompt=PROMPT, max_tokens=COMPLETION_TOKENS, temperature=0.0
    )
    text = answer.parse().choices[0].text
    console.print(
        f"\n[bold]{model.name}[/bold] version {model.version}, bits per byte on held-out files (lower is better)"
    )
    for name in ("model", "gzip", "xz"):
        console.print(f"  {name:<10} {float(model.tags[f'bits_per_byte.{name}']):.3f}")
    console.print(f"\n[bold]completion of {PROMPT!r}[/bold]")
    sys.stdout.write(PROMPT + text + "\n")
    route = {name: answer.headers[f"x-mlaas-{name}"] for name in ("provider", "model", "route-reason")}
    console.print("  " + ", ".join(f"{name}: {value}" for name, value in route.items()), style="dim", markup=False)
    console.print(f"\n[bold]running[/bold] (started to talking in {duration_s:.0f} s)")
    console.print(f"  gateway        {settings.gateway_url}/v1")
    console.print(f"  Ray dashboard  {settings.dashboard_url}   (token: `ray get-auth-token`)")
    console.print(f"  MLflow         {settings.tracking_uri}")
    console.print("\n[bold]try next[/bold]")
    console.print("  .venv/bin/mlaas chat 'import os'")
    console.print(f"  .venv/bin/mlaas keys create --name me    then point any OpenAI SDK at {settings.gateway_url}/v1")
    console.print("  .venv/bin/mlaas status                   and `make stop` when you are done")
