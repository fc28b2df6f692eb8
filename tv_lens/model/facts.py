"""What was found out about a model by trying, kept for as long as the model stays what it was.

Whether rows agree with whole passes, whether a mask is honoured, how a layer's readers can be computed, how many tokens
a full device held: each is tried once, with the model's lock held and nothing attached, and is forgotten as soon as the
model's mark changes. `print(model.facts)` shows them; look there when an engine falls back.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from transformer_lens.model_bridge import TransformerBridge

from tv_lens.errors import ModelChanged
from tv_lens.loading.fingerprint import fingerprint
from tv_lens.model.foreign_hooks import foreign_hooks
from tv_lens.model.mark import Mark, Marker
from tv_lens.model.registry import HookRegistry
from tv_lens.storage.configuration import described

T = TypeVar("T")


class Facts:
    """The verdicts about one model, and the mark of the state that they are about.

    Args:
        bridge: the TransformerLens model.
        registry: its registry.

    Example:
        >>> print(model.facts)  # doctest: +SKIP
        the engine "rows" is exact: yes
        packing is exact: no
    """

    def __init__(self, bridge: TransformerBridge, registry: HookRegistry):
        self._bridge, self._registry = bridge, registry
        self._found: dict[str, Any] = {}
        self._marker = Marker(bridge)
        self._mark = self._loaded = self._marker.now()
        self._named: tuple[Mark, str] | None = None  # the fingerprint of a state
        self._inside = threading.local()

    # ---- verdicts -------------------------------------------------------------------------------------------------

    def find(self, name: str, how: Callable[[], T]) -> T:
        """The verdict of this name; found by `how` if it is not known for the model as it is now.

        It is found with the model's lock held and nothing attached, and is known to others only once it is found: an
        error or an interrupt leaves no verdict.

        Args:
            name: what is found out, as `print(model.facts)` shows it.
            how: tries it.
        """
        self._check()
        if name not in self._found:
            with self._registry.bare(f"model.facts: {name}"):
                if name not in self._found:  # another thread may have found it while this one waited
                    self._found[name] = how()
        return self._found[name]

    def known(self, name: str, default: T) -> T:
        """The verdict of this name if it was found before."""
        return self._found.get(name, default)

    def note(self, name: str, value: object) -> None:
        """Keeps what was found out in the course of other work."""
        self._found[name] = value

    def forget(self) -> None:
        """Forgets every verdict, so that each is tried again: after a change that no mark can see."""
        self._found = {}

    # ---- the state that they are about ------------------------------------------------------------------------------

    @property
    def mark(self) -> Mark:
        """The mark of the model as it is now, or inside a verb as it was when the verb began."""
        self._check()
        return self._mark

    def steady(self, who: str) -> Steady:
        """A context in which the model must not change: its mark is taken on entry and compared on a regular exit.

        Args:
            who: the verb that calls, for the error.
        """
        return Steady(self, who)

    def fingerprint(self, loaded: str) -> str:
        """Identifies the model as it is now in everything that is saved.

        Args:
            loaded: the fingerprint that it was loaded with, which stands as long as nothing has changed.
        """
        self._check()
        if self._named is None or self._named[0] != self._mark:
            self._named = self._mark, self._fingerprint(loaded)
        return self._named[1]

    def _fingerprint(self, loaded: str) -> str:
        now, before = self._mark, self._loaded
        same = now.weights == before.weights and now.modules == before.modules and now.config == before.config
        weights = loaded if same else fingerprint(self._bridge.original_model)
        if not now.hooks and now.training == before.training:
            return weights
        hooks = [[hook.name, described(hook.function)] for hook in foreign_hooks(self._bridge)]
        whole = json.dumps([weights, hooks, self._bridge.training], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def _check(self) -> None:
        """Forgets what was found about another state of the model; inside a verb its entry has done so."""
        if getattr(self._inside, "depth", 0):
            return
        with self._registry.lock.turn("model.facts"):
            mark = self._marker.now()
        if mark != self._mark:
            self._found = {}
            self._mark = mark

    def check_unchanged(self, who: str) -> None:
        """Compares the model with what it was when the verb began.

        Raises:
            ModelChanged: it is another.
        """
        now, before = self._marker.now(), self._mark
        if now != before:
            self._found, self._mark = {}, now
            raise ModelChanged(
                f"The model changed while {who} ran, so its numbers are of no one model.",
                got="; ".join(now.changes(since=before)),
                do="change weights, hooks and modes before a verb or after it, not in a metric or an intervention; "
                "model.intervene is for edits.",
            )

    def __repr__(self) -> str:
        words = {True: "yes", False: "no", None: "yes"}
        lines = [
            f"{name}: {words[value] if value is None or isinstance(value, bool) else value}"
            for name, value in sorted(self._found.items())
        ]
        return "\n".join(lines) or "nothing was tried on this model yet"


class Steady:
    """The context that `Facts.steady` returns; contexts of one thread nest, and the outermost one compares."""

    _thread = 0  # where it was entered

    def __init__(self, facts: Facts, who: str):
        self._facts, self._who = facts, who

    def __enter__(self) -> None:
        inside = self._facts._inside
        self._facts._check()
        inside.depth, self._thread = getattr(inside, "depth", 0) + 1, threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if kind is None and not getattr(self._facts._inside, "depth", 0):
            self._facts.check_unchanged(self._who)

    def __del__(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._thread == threading.get_ident():
            self._thread = 0
            self._facts._inside.depth -= 1
