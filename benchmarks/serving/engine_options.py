"""What do vLLM's options on CPU cost in boot time and bring in throughput?

Boots one server after the other, each with one set of options, and puts 32 connections on it. The folder holds a model
in Hugging Face layout. Compilation is measured twice: vLLM keeps what it compiled.

    python benchmarks/serving/engine_options.py FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measure import load, server, store

IN_PROCESS = ("--distributed-executor-backend", "uni")
ONE_THREAD = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
KEPT_BY_TORCH = {**ONE_THREAD, "VLLM_USE_AOT_COMPILE": "0"}
VARIANTS = {
    "stock": ((), {}),
    "stock, compiled before": ((), {}),
    "worker in the engine process, eager": (("--enforce-eager", *IN_PROCESS), ONE_THREAD),
    "worker in the engine process, kernels kept by torch": (IN_PROCESS, KEPT_BY_TORCH),
    "worker in the engine process, kernels kept by torch, compiled before": (IN_PROCESS, KEPT_BY_TORCH),
}


def main() -> None:
    """Measure, print and store."""
    folder = Path(sys.argv[1])
    results = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, (options, variables) in VARIANTS.items():
            kept = {**variables, "VLLM_CACHE_ROOT": cache, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/kernels"}
            with server("model", folder, name=name, options=options, variables=kept) as (target, boot_s):
                load(target, "model", connections=32, seconds=5)
                busy = load(target, "model", connections=32, seconds=10)
                single = load(target, "model", connections=1, seconds=5)
            results[name] = {"boot_s": boot_s, "requests_per_s": busy.requests_per_s, "p50_ms_at_1": single.p50_ms}
    store("engine_options", {"options": results})


if __name__ == "__main__":
    main()
