"""The fuzzer itself: it runs through, says what it found, and takes too much memory for a fault."""

import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[2]


def run_fuzz(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.fuzz", *map(str, options)]
    return subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=100, check=False)


def test_a_few_cases_pass():
    ended = run_fuzz("--cases", 20, "--cli-files", 1, "--score-rows", 6)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "check: 20 files, 0 faults" in ended.stdout
    assert "score: 6 rows" in ended.stdout
    assert "network: 0 attempts; 0 faults" in ended.stdout


def test_the_size_of_what_started_it_is_no_fault():
    held = bytearray(b"x") * (400 << 20)
    ended = run_fuzz("--cases", 1, "--cli-files", 0, "--score-rows", 0, "--check-mib", 300)
    assert len(held) == 400 << 20
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_too_much_memory_is_a_fault():
    ended = run_fuzz("--cases", 1, "--cli-files", 0, "--score-rows", 0, "--check-mib", 1)
    assert ended.returncode == 1, ended.stderr
    assert "1 allowed" in ended.stdout
    assert "1 faults" in ended.stdout
