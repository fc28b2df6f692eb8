"""The path that a reader follows through one patch: its files are those of the docs, and stay few and short.

Storage, tokenising and the model's bookkeeping (locks, marks, hooks going on and off) are taken on trust on a first
reading; `docs/how-it-works.md` names them beside the path.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tv_lens
from fresh_process import in_fresh_process

ROOT = Path(tv_lens.__file__).parent
DOCS = ROOT.parent / "docs" / "how-it-works.md"
MOST_FILES, MOST_LINES, MOST_FUNCTIONS = 6, 1300, 120  # of the path
MOST_ENTERED = 340  # functions of the whole library that one patch enters; may only go down


def path() -> list[str]:
    """The files of the table in the docs, in the order in which they are read."""
    text = DOCS.read_text(encoding="utf-8")
    section = text[text.index("## Where one patch goes") :]
    return re.findall(r"^\| `([\w/]+\.py)` \|", section, flags=re.MULTILINE)


def entered() -> list[tuple[str, str]]:
    """The file and the name of every function of the library that one patch enters."""
    import tiny_characters
    import tv_lens as tv

    model = tiny_characters.model("llama")
    pairs = tiny_characters.pairings(1)[0].pairs(shots=2, n=2)

    def patch():
        tv.patch(model, pairs, tv.sites("resid_post"), over=("layer", "pos"), progress=False)

    patch()  # what is found out once is known
    names = set()

    def note(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)) and not code.co_name.startswith("<"):
            names.add((Path(code.co_filename).relative_to(ROOT).as_posix(), code.co_qualname))

    sys.setprofile(note)
    try:
        patch()
    finally:
        sys.setprofile(None)
    return sorted(names)


def test_one_patch_can_be_followed_in_few_files_and_functions():
    files, functions = path(), in_fresh_process(entered)
    assert len(files) <= MOST_FILES
    assert sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in files) <= MOST_LINES
    of_path = [name for file, name in functions if file in files]
    assert {file for file, _ in functions} >= set(files)
    assert len(of_path) <= MOST_FUNCTIONS
    assert len(functions) <= MOST_ENTERED, len(functions)
