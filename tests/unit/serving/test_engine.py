from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mlaas.serving.engine import EngineSpec, build_command, build_environment, can_compile, explain_failure

SPEC = EngineSpec(
    model_dir=Path("/models/tiny/1"),
    served_name="tiny",
    host="10.0.0.5",
    port=41234,
    api_key="the-secret",
    device="cpu",
    num_threads=1,
    kernels_dir=Path("/home/kernels"),
)
LOG = """\
(APIServer pid=7) INFO 11-22 21:35:13 [api_utils.py:286] non-default args: {'model': 'm4'}
(EngineCore pid=9) ERROR 11-22 21:51:19 [core.py:1510] EngineCore failed to start.
(EngineCore pid=9) ERROR 11-22 21:51:19 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=9) ERROR 11-22 21:51:19 [core.py:1510]     super().__init__(
(EngineCore pid=9) ERROR 11-22 21:51:19 [core.py:1510] ValueError: No model architecture 'Nonsense'
Process EngineCore:
Traceback (most recent call last):
ValueError: No model architecture 'Nonsense'
(APIServer pid=7) Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_the_command_line_names_the_model_and_holds_no_secret():
    command = build_command(SPEC)
    assert command[command.index("--model") + 1] == "/models/tiny/1"
    assert command[command.index("--served-model-name") + 1] == "tiny"
    assert command[command.index("--host") + 1] == "10.0.0.5"
    assert command[command.index("--port") + 1] == "41234"
    assert not any("the-secret" in word for word in command)
    assert "the-secret" not in repr(SPEC)


def test_requests_are_not_logged():
    command = build_command(SPEC)
    assert "--disable-uvicorn-access-log" in command
    assert "--enable-log-requests" not in command


def test_the_engine_never_asks_the_internet():
    environment = build_environment(SPEC)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"


def test_what_is_for_cpu_stays_off_a_gpu():
    on_gpu = replace(SPEC, device="cuda")
    assert "--enforce-eager" not in build_command(on_gpu)
    assert not {name for name in build_environment(on_gpu) if "CPU" in name or "OMP" in name}


def test_an_engine_on_cpu_compiles_and_keeps_its_kernels_where_it_can():
    assert "--enforce-eager" not in build_command(SPEC)
    assert build_environment(SPEC)["TORCHINDUCTOR_CACHE_DIR"] == "/home/kernels"
    without_compiler = replace(SPEC, kernels_dir=None)
    assert "--enforce-eager" in build_command(without_compiler)
    assert "TORCHINDUCTOR_CACHE_DIR" not in build_environment(without_compiler)


def test_compiling_takes_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not can_compile()


def test_an_ipv6_address_is_put_in_brackets():
    assert replace(SPEC, host="fd00::5").url == "http://[fd00::5]:41234"


def test_a_failure_is_explained_by_its_cause():
    assert explain_failure(LOG) == "ValueError: No model architecture 'Nonsense'"


def test_a_failure_without_an_exception_is_explained_by_the_last_words():
    assert explain_failure("one\ntwo\n\nthree\nKilled\n") == "two; three; Killed"


def test_a_server_that_said_nothing():
    assert explain_failure("\n") == "it wrote nothing"


@given(st.text())
def test_any_log_is_explained_in_one_line(log):
    assert len(explain_failure(log).splitlines()) == 1
