"""A study that is killed or runs out of disk at any write ends, resumed, with the bytes of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAMPLE = [["kill", 5], ["kill", 9], ["ENOSPC", 17], ["kill", 29], ["EIO", 34], ["kill", 51]]


def ended(folder, faults):
    """What `crash.py` says of each fault."""
    command = [sys.executable, "tests/crash.py", folder, json.dumps(faults)]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def check(whole, found):
    fault, status, errors = found["fault"], found["status"], found["errors"]
    if fault[0] == "kill":
        assert status == -9, found
    else:
        assert status == 2 and len(errors) == 1 and "cannot write" in errors[0] and not found["half"], found
    assert found["resumed"] == [0, []], found
    assert found["files"] == whole["files"], fault


@pytest.mark.slow
def test_a_run_that_ends_at_some_writes_and_is_resumed_leaves_the_same_bytes(tmp_path):
    whole, *others = ended(tmp_path, [["kill", 0], *SAMPLE])
    assert whole["status"] == 0 and whole["touched"] > SAMPLE[-1][1]
    for found in others:
        check(whole, found)


@pytest.mark.long
def test_a_run_that_ends_at_any_write_and_is_resumed_leaves_the_same_bytes(tmp_path):
    (whole,) = ended(tmp_path, [["kill", 0]])
    every = range(1, whole["touched"] + 1)
    faults = [["kill", n] for n in every] + [[("ENOSPC", "EIO")[n % 2], n] for n in every]
    for found in ended(tmp_path, faults):
        check(whole, found)
