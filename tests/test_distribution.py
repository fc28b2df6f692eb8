"""What `make dist` builds, installed into an empty environment: everything that the library brings is inside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import tv_lens as tv

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv", "build", "dist", "notebooks", "tests", "__pycache__", "*.egg-info")

# Run in the empty environment: nothing of the checkout is on its path.
USE = """
import json
from importlib.metadata import distribution
import numpy as np, torch, xarray as xr
import tv_lens as tv

regressors = [tv.lab.load(row["name"], seed=row["seed"]) for _, row in tv.lab.networks().iterrows()]
sweep = tv.Sweep(
    xr.DataArray(np.arange(8.0).reshape(4, 2), dims=("example", "layer"), coords={"layer": [0, 1]}),
    metric="logit_diff", units="logits", sign="higher: the clean answer",
)
made = distribution("tv_lens")
print(json.dumps({
    "file": tv.__file__, "version": made.version, "author": made.metadata["Author"],
    "tasks": sorted(tv.tasks.names()), "past": tv.task("present-past").lookup["go"],
    "sentences": len(tv.task("first-noun")), "networks": [each.fingerprint for each in regressors],
    "page": tv.plot(sweep).save("page.html").stat().st_size,
}))
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    """A command's standard output, in an environment that does not know this checkout."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ran = subprocess.run(
        [str(one) for one in command], cwd=cwd, capture_output=True, text=True, timeout=500, env=clean | environment
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    return ran.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of a wheel and an sdist, built as `make dist` does from a copy of what the repository holds."""
    try:
        version("build")
    except PackageNotFoundError:
        pytest.skip("the package build is not installed; `make setup` brings it")
    source, out = tmp_path_factory.mktemp("source") / "copy", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT_OUT))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ".", cwd=source)
    return out


@pytest.fixture(scope="module")
def python(built, tmp_path_factory) -> Path:
    """The interpreter of an environment that has the wheel and, borrowed from this one, its dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    interpreter = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    (wheel,) = built.glob("*.whl")
    run(interpreter, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    where = run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    # Folders named in a .pth file come last, and .pth files inside them are not read: an editable tv_lens stays unseen.
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(where.strip()) / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    return interpreter


@pytest.mark.slow
def test_the_wheel_and_the_sdist_hold_every_file_of_the_package(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tv_lens").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as file:
        in_wheel = {name for name in file.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as file:
        in_sdist = {name.partition("/")[2] for name in file.getnames()}
    assert in_wheel == expected
    assert expected <= in_sdist and {"LICENSE", "README.md", "pyproject.toml"} <= in_sdist
    assert {"tv_lens/py.typed", "tv_lens/__init__.pyi"} <= expected


@pytest.mark.slow
def test_the_wheel_is_used_from_an_empty_environment(python, tmp_path):
    found = json.loads(run(python, "-W", "ignore", "-c", USE, cwd=tmp_path, OMP_NUM_THREADS="1"))
    assert Path(found["file"]).is_relative_to(python.parents[1])
    assert (found["version"], found["author"]) == (tv.__version__, "tv_lens developers")
    assert found["tasks"] == sorted(tv.tasks.names()) and found["past"] == "went"
    expected = [tv.lab.load(row["name"], seed=row["seed"]).fingerprint for _, row in tv.lab.networks().iterrows()]
    assert found["networks"] == expected and len(expected) > 3
    assert found["sentences"] == len(tv.task("first-noun")) and found["page"] > 100_000


@pytest.mark.slow
def test_the_command_of_the_wheel_runs(python, tmp_path):
    command = python.with_name("tv-lens")
    assert "survey" in run(command, "--help", cwd=tmp_path)
    assert "present-past" in run(command, "tasks", cwd=tmp_path)
