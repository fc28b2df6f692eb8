"""`benchmarks/releases.py` in short: its environments take what is there, its bounds are those of pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def commands(monkeypatch):
    """The command as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import releases

    return releases


def test_an_environment_has_its_own_packages_first_and_the_others_from_here(commands, tmp_path):
    python = commands.environment(tmp_path / "environment")
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    (own / "filelock.py").write_text("__version__ = 'another'", encoding="utf-8")
    ask = "import filelock, tqdm; print(filelock.__version__, tqdm.__file__)"
    seen = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    assert seen.startswith(f"another {sysconfig.get_paths()['purelib']}")


def test_the_lowest_releases_are_the_lower_bounds(commands):
    written = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lowest = commands.lowest()
    assert len(lowest) == len(commands.bounds()) > 15 and not any(one.startswith("torch") for one in lowest)
    for name, floor in (one.split("==") for one in lowest):
        assert re.search(rf'"{name}>={re.escape(floor)}[,"]', written)


def test_the_bounds_of_transformers_are_releases_whose_outcome_the_docs_say(commands):
    floor, cap = re.fullmatch(r">=([\d.]+),<([\d.]+)", commands.bounds()["transformers"]).groups()
    page = (ROOT / "docs" / "releases.md").read_text(encoding="utf-8")
    outcomes = dict(re.findall(r"^\| transformers ([\d.]+)[^|]*\|[^|]*\| (.*) \|$", page, re.MULTILINE))
    assert outcomes[f"{floor}.0"].startswith("works") and not outcomes[f"{cap}.0"].startswith("works")
