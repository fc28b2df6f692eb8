"""The reference: one page a room, with every public name of `tv_lens` where it lives; mkdocstrings fills it in.

Nothing is listed by hand but the rooms: names come from `tv_lens.__all__` and from the `__all__` of each room.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from types import ModuleType

import tv_lens as tv

# title, name of the page, modules whose public names stand there, and the module that people import, if there is one
ROOMS: tuple[tuple[str, str, tuple[str, ...], str | None], ...] = (
    ("Load and run", "model", ("loading", "model", "batch"), "model"),
    ("Sites and interventions", "interventions", ("site", "intervention"), None),
    ("tv_lens.metrics", "metrics", ("metrics",), "metrics"),
    ("tv_lens.tasks", "tasks", ("tasks",), "tasks"),
    ("Patching and effects", "patching", ("patching",), "patching"),
    ("Task vectors", "task_vectors", ("task_vectors",), "methods"),
    ("What is read from representations", "representations", (), "task_vectors"),
    ("tv_lens.circuits", "circuits", ("circuits",), "circuits"),
    ("tv_lens.circuits.truth", "circuits_truth", ("circuits.truth",), "circuits.truth"),
    ("Results", "results", ("results",), "results"),
    ("Folders of finished work", "storage", ("storage",), None),
    ("tv_lens.viz", "viz", ("viz",), "viz"),
    ("tv_lens.experiments", "experiments", ("experiments",), "experiments"),
    ("tv_lens.lab", "lab", ("lab",), "lab"),
    ("tv_lens.rows", "rows", ("rows",), "rows"),
)


def _home(name: str) -> str:
    """The module in which something at the top is defined, without the package's name."""
    value = getattr(tv, name)
    if inspect.ismodule(value):
        return ""
    where = getattr(value, "__module__", type(value).__module__)
    if not where.startswith("tv_lens"):  # a dictionary or a number has no module of its own
        where = next((f"tv_lens.{room}" for _, _, rooms, _ in ROOMS for room in rooms if _holds(room, value)), "")
    return where.removeprefix("tv_lens.")


def _holds(room: str, value: object) -> bool:
    return any(held is value for held in vars(importlib.import_module(f"tv_lens.{room}")).values())


def _inside(home: str, rooms: tuple[str, ...]) -> bool:
    return any(home == room or home.startswith(f"{room}.") for room in rooms)


def _names(module: ModuleType) -> list[str]:
    listed = getattr(module, "__all__", None)
    if listed is None:  # nothing but the names at the top, and of the metrics all that have a name
        listed = [metric.__name__ for metric in getattr(module, "METRICS", {}).values()]
    return [name for name in listed if not inspect.ismodule(getattr(module, name))]


def _imported(name: str) -> ModuleType | None:
    """The module under which a room is reached; None where this version has no such room."""
    try:
        return importlib.import_module(f"tv_lens.{name}")
    except ModuleNotFoundError:
        found = getattr(tv, name, None) if name in tv.__all__ else None
        return found if inspect.ismodule(found) else None


@cache
def public_names() -> dict[str, list[tuple[str, str]]]:
    """For each page the names on it, functions first: how people write one, and where mkdocstrings finds it."""
    homes = {name: _home(name) for name in tv.__all__}
    pages: dict[str, list[tuple[str, str]]] = {}
    for _, page, rooms, shown in ROOMS:
        here = [name for name, home in homes.items() if home and _inside(home, rooms)]
        found = [(f"tv.{name}", f"tv_lens.{homes[name]}.{name}") for name in here]
        module = None if shown is None else _imported(shown)
        if module is not None:
            for name in _names(module):
                value = getattr(module, name)
                if not any(getattr(tv, other) is value for other in here):
                    where = getattr(value, "__module__", "")
                    where = where if where.startswith("tv_lens.") else module.__name__
                    found.append((f"tv.{shown}.{name}", f"{where}.{name}"))
        pages[page] = sorted(found, key=lambda entry: _is_class(entry[1]))
    return pages


def _is_class(found: str) -> bool:
    module, _, name = found.rpartition(".")
    return inspect.isclass(getattr(importlib.import_module(module), name))


@cache
def reference_pages() -> tuple[tuple[str, str, str], ...]:
    """Title, path and text of each page of the reference; the first is their table of contents."""
    pages, lines = [], ["# API", "", "Every public name, by room. `tv` is `import tv_lens as tv`.", ""]
    for title, page, _, shown in ROOMS:
        names = public_names()[page]
        if not names:
            continue
        module = None if shown is None else _imported(shown)
        text = [f"# {title}", ""]
        about = inspect.getdoc(module) if module is not None else None
        if about:
            text += [about.partition("\n\n")[0], ""]
        for written, found in names:
            text += [f"::: {found}", "    options:", f"      heading: {written}", f"      toc_label: {written}", ""]
        pages.append((title, f"api/{page}.md", "\n".join(text)))
        links = ", ".join(f"[`{written}`]({page}.md#{found})" for written, found in names)
        lines += [f"**[{title}]({page}.md)**: {links}", ""]
    return (("API", "api/index.md", "\n".join(lines)), *pages)
