"""What engines say of their load."""

from __future__ import annotations

import time

import aiohttp
import pytest
from aiohttp import web

from mlaas.providers.base import Operation
from mlaas.router.catalog import build_catalog
from mlaas.router.choice.engines import EnginePoller, parse_load
from mlaas.router.choice.fleet import Fleet
from mlaas.router.config_file import parse_config
from mlaas.router.types import EngineLoad, LocalEndpoint, Route, Target
from tests.fakes.serving import serving

# As vLLM 0.32 writes it, cut to a few families.
METRICS = b"""# HELP python_info Python platform information.
# TYPE python_info gauge
python_info{implementation="CPython",major="3",minor="11"} 1.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 7.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 3.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.42
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 1.2e+06
"""
SECOND = METRICS.replace(b'engine="0"', b'engine="1"').replace(b"0.42", b"0.9")


def test_the_gauges_of_vllm_are_read():
    assert parse_load(METRICS) == EngineLoad(num_running=7, num_waiting=3, kv_usage=0.42)


def test_several_engines_of_one_replica_count_as_one():
    assert parse_load(METRICS + SECOND) == EngineLoad(num_running=14, num_waiting=6, kv_usage=0.9)


def test_a_name_of_a_model_may_hold_anything():
    odd = METRICS.replace(b'"tiny"', rb'"a} b{ \" 9"')
    assert parse_load(odd) == EngineLoad(num_running=7, num_waiting=3, kv_usage=0.42)


@pytest.mark.parametrize("text", [b"", b"<html>no</html>", b"vllm:num_requests_running NaN\n", b"vllm:\xff{ x"])
def test_what_is_no_engines_metrics_says_nothing(text):
    assert parse_load(text) is None


async def test_each_replica_is_asked_with_its_own_key_and_one_that_fails_hinders_nobody():
    keys: list[str | None] = []

    async def metrics(request: web.Request) -> web.Response:
        keys.append(request.headers.get("authorization"))
        return web.Response(body=METRICS)

    async def broken(request: web.Request) -> web.Response:
        return web.Response(status=500, body=METRICS)

    good, bad = web.Application(), web.Application()
    good.router.add_get("/metrics", metrics)
    bad.router.add_get("/metrics", broken)
    fleet = Fleet(build_catalog(parse_config("{}", source="x")), restart_wait_s=3.0)
    with serving(good) as url, serving(bad) as bad_url:
        addresses = [url, bad_url, "http://127.0.0.1:9"]
        fleet.replace_endpoints([LocalEndpoint(model="m", url=each, api_key="secret") for each in addresses])
        async with aiohttp.ClientSession() as session:
            await EnginePoller(fleet, session).poll()
    target = Target(provider="local", model="m")
    shot = fleet.snapshot(Route(model="m", targets=(target,)), Operation.CHAT, now_s=time.monotonic())
    loads = {each.origin: each.engine for each in shot.candidates}
    assert loads[f"{url}/v1"] == EngineLoad(num_running=7, num_waiting=3, kv_usage=0.42)
    assert [load for origin, load in loads.items() if origin != f"{url}/v1"] == [None, None]
    assert keys == ["Bearer secret"]
