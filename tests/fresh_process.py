"""Runs a function of a test file in a process of its own: one that forks, or that leaves torch's settings changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parent


def in_fresh_process(function: Callable[[], object], timeout: float = 400) -> object:
    """What a function of a test file, named at its top level, returns in a new process, as JSON carries it."""
    file = Path(sys.modules[function.__module__].__file__)
    code = (
        f"import json, runpy; found = runpy.run_path({str(file)!r}, run_name='fresh')[{function.__name__!r}]();"
        "print('\\n' + json.dumps(found))"
    )
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=timeout, env=environment
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.strip().splitlines()[-1])
