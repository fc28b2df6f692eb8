"""What the tests of the commands share: a tiny model in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tiny_folder.save(tmp_path_factory.mktemp("tiny"))
