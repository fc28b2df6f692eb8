"""The registered finder: what `tasks.task` returns, and its errors."""

from __future__ import annotations

import pytest

from tv_lens.errors import TaskFileError, UnknownName
from tv_lens.tasks import task
from tv_lens.tasks.by_name import task_by_name


def test_a_name_or_a_path_gives_what_task_gives(tmp_path):
    assert task_by_name("present-past") == task("present-past")
    path = tmp_path / "pairs.tsv"
    path.write_text("go\twent\nsee\tsaw\n", encoding="utf-8")
    assert task_by_name(path).lookup == {"go": "went", "see": "saw"}


def test_the_errors_are_those_of_task(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'present-past'"):
        task_by_name("presnt-past")
    with pytest.raises(TaskFileError, match="There is no file"):
        task_by_name(tmp_path / "none.tsv")
