"""The pre-flight says what stands in the way, and how to go on."""

import subprocess
import sys
from pathlib import Path

from mlaas.bootstrap import preflight

GOOD = {"free_disk_bytes": 50 * 10**9, "memory_bytes": 16 * 10**9, "python": (3, 11), "has_compiler": True}


def test_a_good_machine_has_no_findings():
    assert preflight(**GOOD) == []


def test_each_obstacle_is_fatal_and_names_the_way_out():
    cases = [
        ({"free_disk_bytes": 4 * 10**9}, ["4.0 GB free", "10 GB", "clone elsewhere"]),
        ({"memory_bytes": 2 * 10**9}, ["2.0 GB of memory", "6 GB", "close other programs"]),
        ({"python": (3, 10)}, ["Python 3.10", "PYTHON=python3.11"]),
        ({"python": (3, 13)}, ["Python 3.13", "PYTHON=python3.11"]),
    ]
    for change, words in cases:
        (finding,) = preflight(**{**GOOD, **change})
        assert finding.fatal
        assert all(word in finding.message for word in words), finding.message


def test_a_missing_compiler_is_said_and_not_fatal():
    (finding,) = preflight(**{**GOOD, "has_compiler": False})
    assert not finding.fatal
    assert "more slowly" in finding.message


def test_it_needs_nothing_but_the_standard_library():
    script = Path(__file__).parents[2] / "mlaas" / "bootstrap.py"
    subprocess.run([sys.executable, "-I", "-S", str(script), "--help"], check=True, capture_output=True)
