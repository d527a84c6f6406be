"""`mlaas chat`: talk to a model in the terminal, through the gateway, as any OpenAI client would."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mlaas.errors import AuthenticationError, MlaasError, NotFound, ProviderError
from mlaas.settings import Settings, load_settings, read_secret

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

MAX_TOKENS = 256


def chat(
    prompt: Annotated[str | None, typer.Argument(help="One question; without it, a conversation.")] = None,
    model: Annotated[str, typer.Option(help="Model or alias, as /v1/models lists them.")] = "default",
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = MAX_TOKENS,
) -> None:
    """Talk to a model, its answer streaming in. The key is MLAAS_API_KEY, or this machine's own."""
    from mlaas.cli.output import console

    settings = load_settings()
    if prompt is not None:
        answer(settings, [{"role": "user", "content": prompt}], model=model, max_tokens=max_tokens)
        return
    console.print(f"Talking to {model}. An empty line or Ctrl-D ends.", markup=False)
    messages: list[ChatCompletionMessageParam] = []
    while line := _read_line():
        messages.append({"role": "user", "content": line})
        text = answer(settings, messages, model=model, max_tokens=max_tokens)
        messages.append({"role": "assistant", "content": text})


def answer(settings: Settings, messages: list[ChatCompletionMessageParam], *, model: str, max_tokens: int) -> str:
    """Stream one answer to standard output, and return it whole.

    Raises:
        AuthenticationError: there is no API key on this machine, or the gateway refuses it.
        NotFound: the gateway has no such model.
        ProviderError: the gateway or the model does not answer, or breaks off.
    """
    import openai

    text = ""
    try:
        stream = connect(settings).chat.completions.create(
            model=model, messages=messages, max_tokens=max_tokens, stream=True
        )
        for chunk in stream:
            piece = (chunk.choices[0].delta.content or "") if chunk.choices else ""
            text += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
    except openai.APIError as error:
        raise _translated(error, settings) from error
    sys.stdout.write("\n")
    return text


def connect(settings: Settings) -> OpenAI:
    """Return OpenAI's own client, pointed at the gateway with this machine's key.

    Raises:
        AuthenticationError: there is no API key on this machine.
    """
    from openai import OpenAI

    path = settings.credentials_path
    key = read_secret("MLAAS_API_KEY") or (path.read_text() if path.exists() else None)
    if key is None:
        raise AuthenticationError("no_key", f"no API key: set MLAAS_API_KEY, or run `mlaas up`, which writes {path}")
    return OpenAI(base_url=f"{settings.gateway_url}/v1", api_key=key)


def _translated(error: Exception, settings: Settings) -> MlaasError:
    import openai

    match error:
        case openai.AuthenticationError():
            return AuthenticationError("key_refused", f"the gateway refuses this key: {error.message}")
        case openai.NotFoundError():
            return NotFound("model_not_found", error.message)
        case openai.APIConnectionError():
            return ProviderError("gateway_down", f"{settings.gateway_url} does not answer; run `mlaas up`")
    return ProviderError("answer_failed", str(error))


def _read_line() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""
