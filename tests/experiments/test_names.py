"""The names of the package: each that version 0.2 renamed is refused with the new one."""

from __future__ import annotations

import pytest

import tv_lens as tv
from tv_lens.errors import RenamedError

OLD = [
    ("lens", "survey"),
    ("LensResult", "TaskSurvey"),  # renamed
    ("LensSize", "SurveySize"),  # renamed
]


@pytest.mark.parametrize("package", [tv, tv.experiments])
@pytest.mark.parametrize("old, new", OLD)
def test_the_names_of_the_first_version_say_what_they_are_now(package, old, new):
    with pytest.raises(RenamedError, match=rf"use tv[.\w]*\.{new}$"):
        getattr(package, old)


@pytest.mark.parametrize("package", [tv, tv.experiments])
def test_a_name_that_never_was_has_no_new_one(package):
    with pytest.raises(AttributeError, match="has no attribute 'lense'"):
        package.lense  # noqa: B018


def test_every_public_name_is_there():
    assert len(set(tv.experiments.__all__)) == len(tv.experiments.__all__)
    for name in tv.experiments.__all__:
        assert getattr(tv.experiments, name) is not None
