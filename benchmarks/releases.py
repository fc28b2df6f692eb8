"""Whether the library works with other releases of what it is built on: docs/releases.md holds what came out.

    python benchmarks/releases.py transformers==5.24.0 filelock==4.3.1
    python benchmarks/releases.py --lowest    # the lower bound of every dependency in pyproject.toml
    python benchmarks/releases.py --newest    # the newest that pip finds, whatever pyproject.toml allows

An environment is made that has these releases, what they need, and everything else from the environment that runs this
command, which is left as it is. The tests of loading, of the model and of the rows run there; torch is never installed
again. The last line says how many passed, and with which releases.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/test_family_table.py",
    "tests/loading",
    "tests/model",
    "tests/rows",
    "tests/oracle/test_oracle_engine.py",
)
NEVER = "torch"  # a gigabyte, and most of its releases exist for several kinds of device


def bounds() -> dict[str, str]:
    """The dependencies of pyproject.toml and the versions that it allows of each, without torch."""
    written = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    parts = [re.fullmatch(r"([\w-]+)(.*)", one) for one in written]
    return {part[1]: part[2] for part in parts if part and part[1] != NEVER}


def lowest() -> list[str]:
    """Every dependency at its lower bound."""
    floors = {name: re.search(r">=([\d.]+)", allowed) for name, allowed in bounds().items()}
    return [f"{name}=={floor[1]}" for name, floor in floors.items() if floor]


def environment(folder: Path) -> Path:
    """The Python of a new environment that also sees the packages of the one that runs this; its own come first."""
    venv.EnvBuilder(with_pip=False, clear=True).create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    here = sysconfig.get_paths()
    (Path(own) / "shared.pth").write_text("\n".join({here["purelib"], here["platlib"]}), encoding="utf-8")
    return python


def missing(python: Path, wanted: Sequence[str], newest: bool = False) -> list[str]:
    """What pip would install for these requirements, each as name==version.

    Raises:
        SystemExit: they cannot stand together, or only with another torch.
    """
    options = ["--upgrade"] if newest else []
    with tempfile.TemporaryDirectory() as folder:
        kept, report = Path(folder) / "kept.txt", Path(folder) / "report.json"
        kept.write_text(f"{NEVER}=={version(NEVER).partition('+')[0]}\n", encoding="utf-8")
        pip = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--report", report, "-c", kept, *options]
        if subprocess.run([*pip, *wanted], stdout=sys.stderr).returncode:
            raise SystemExit("pip cannot put these releases together with what is installed")
        found = [one["metadata"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return sorted(f"{one['name']}=={one['version']}" for one in found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", metavar="NAME==VERSION")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--lowest", action="store_true", help="the lower bound of every dependency")
    which.add_argument("--newest", action="store_true", help="the newest release of every dependency")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="what to run there (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep the environment here; without it, it is removed at the end")
    options = parser.parse_args()
    wanted = options.releases + (lowest() if options.lowest else list(bounds()) if options.newest else [])
    if not wanted:
        parser.error("name releases, or --lowest or --newest")
    with tempfile.TemporaryDirectory() as temporary:
        python = environment(options.folder or Path(temporary) / "environment")
        new = missing(python, wanted, options.newest)
        print("other than here:", " ".join(new) or "nothing", flush=True)
        if new:  # nothing that is installed here is touched: --ignore-installed removes no package
            pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed", *new]
            subprocess.run(pip, check=True, stdout=sys.stderr)
        surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        run = [python, "-m", "pytest", "-p", "no:cacheprovider", "-rfE", "--tb=line", "-v", "--no-header"]
        return subprocess.run([*run, *options.tests], cwd=ROOT, env=surroundings).returncode


if __name__ == "__main__":
    sys.exit(main())
