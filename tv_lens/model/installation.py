"""What stands on a model because of its attachments: hooks, flags, replaced forward passes, frozen weights.

`Installation.settle` is the only place where these go on and off. It does not undo what it remembers to have done, but
looks at the model and makes it hold exactly what the live attachments need. So it may be interrupted at any line and
called again, and an attachment whose context was abandoned by an interrupt is taken off when its object is freed, or at
the latest before the next pass.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from tv_lens.errors import ModelChanged, ModelInUse
from tv_lens.model.attachment import Attachment, Attachments, is_ours
from tv_lens.model.lock import Caller, ModelLock
from tv_lens.model.rerouting import narrow, reroute_blocks, rerouted, restore_forward


class Attaching:
    """The context of one attachment; without one, a context in which the attachments around it are off.

    Args:
        installation: of the model.
        who: the verb that calls.
        attachment: what to attach; None takes off what is attached already.
        check: raises where the attachment does not fit the model; called with the lock held.
        passes: whether a forward pass runs inside.
        gives: what `with ... as` binds; the attachment if None.
    """

    active = False

    def __init__(
        self,
        installation: Installation,
        who: str,
        attachment: Attachment | None = None,
        check: Callable[[], None] | None = None,
        passes: bool = False,
        gives: Any = None,
    ):
        self.attachment = attachment
        self._installation, self._check, self._gives = installation, check, gives
        self.turn = installation.lock.turn(who, passes)

    def __enter__(self) -> Any:
        try:
            self.turn.caller = Caller.now()
            self._installation.lock.take(self.turn)
            if self._check is not None:
                self._check()
            self.active = True
            self._installation.add(self)
        except BaseException:
            self._leave()
            raise
        return self.attachment if self._gives is None else self._gives

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        here, entered = threading.get_ident(), self.turn.caller
        self._leave()
        if here != entered.thread:
            raise ModelInUse(
                f"{self.turn.who} was left in another thread than it was entered in; its edits are off.",
                got=f"entered in {entered}, left in thread {threading.current_thread().name!r}",
                do="enter and leave a context in one thread: use `with`.",
            )

    def __del__(self) -> None:
        if self.active:  # an interrupt struck before `__exit__` could run
            self._leave(freed=True)

    def _leave(self, freed: bool = False) -> None:
        self._installation.remove(self, freed)
        self._installation.lock.leave(self.turn)
        self.active = False


class _Running:
    """Lives as long as a call of `settle` runs, however that ends."""


class Installation:
    """The attachments of one TransformerLens model, and what stands on the model because of them.

    Attributes:
        lock: held by whoever has something attached.
    """

    def __init__(self, bridge: TransformerBridge):
        self._weak_bridge = ref(bridge)  # the installation is kept by its bridge
        self.lock = ModelLock()
        self._contexts: list[ref[Attaching]] = []
        self._installed: list[Attachment] | None = []  # None from the first change of the model to the last
        self._settling: Callable[[], _Running | None] = lambda: None
        self._listed: tuple[int, list[HookPoint]] = (0, [])
        self._hooks: list[tuple[HookPoint, int]] = []  # each hook point with the key of our hook on it
        self._flags: dict[str, bool] = {}  # the flags that are raised, as they were before
        self._frozen: list[torch.nn.Parameter] = []

    @property
    def _bridge(self) -> TransformerBridge:
        bridge = self._weak_bridge()
        if bridge is None:
            raise ModelInUse("The TransformerLens model of this registry is gone.", do="keep the HookedModel.")
        return bridge

    @classmethod
    def of(cls, bridge: TransformerBridge) -> Installation:
        """The installation of a bridge, the same for every `HookedModel` that is made of it."""
        with _MAKING:
            if bridge not in _INSTALLATIONS:
                _INSTALLATIONS[bridge] = cls(bridge)
            return _INSTALLATIONS[bridge]

    def attached(self, caller: Caller | None = None) -> list[Attachment]:
        """What is attached now, in entry order; with a caller, only what this caller attached."""
        live = [one for link in list(self._contexts) if (one := link()) is not None and one.active]
        barriers = [i for i, one in enumerate(live) if one.attachment is None]
        live = live[barriers[-1] + 1 if barriers else 0 :]
        own = [one.attachment for one in live if caller is None or one.turn.caller == caller]
        return [attachment for attachment in own if attachment is not None]

    def add(self, context: Attaching) -> None:
        """Makes a context's attachment act, after those before it."""
        self._contexts = [*(link for link in self._contexts if link() is not None), ref(context)]
        self.settle()

    def remove(self, context: Attaching, freed: bool = False) -> None:
        """Ends a context; the model is settled, unless another thread has a pass running or this one settles now."""
        self._contexts = [link for link in self._contexts if link() is not None and link() is not context]
        busy = freed and self._settling() is not None
        if not busy and self.lock.is_free_for(Caller.now() if freed else context.turn.caller):
            self.settle()

    def settle(self) -> None:
        """Makes the model hold exactly what the live attachments need.

        Raises:
            ModelChanged: hooks of tv_lens that belong to no attachment cannot be removed.
        """
        active = self.attached()
        if self._installed is not None and active == self._installed and self._is_exact():
            return
        running = _Running()
        self._settling, self._installed = ref(running), None
        bridge = self._bridge
        self._clear(bridge)
        for flag in sorted(set().union(*(attachment.all_flags for attachment in active))):
            self._flags.setdefault(flag, bool(getattr(bridge.cfg, flag, False)))
            getattr(bridge, f"set_{flag}")(True)
        for name, hook in Attachments(active).hook_functions():
            point: Any = bridge.get_hook_point(name)
            self._hooks.append((point, point.add_hook(hook).hook.id))
        for attachment in active:
            if attachment.block_call is not None:
                reroute_blocks(bridge.blocks, attachment.block_call)
            if attachment.logit_columns is not None:
                narrow(bridge.unembed, attachment.logit_columns)
        if any(attachment.frozen for attachment in active):
            self._frozen = [p for p in bridge.parameters() if p.requires_grad]
            for parameter in self._frozen:
                parameter.requires_grad_(False)
        if not self._is_exact():
            raise ModelChanged(
                "The model holds other hooks of tv_lens than its attachments need.",
                do="model.tl.reset_hooks(including_permanent=True) removes every hook; if it does not help, load anew.",
            )
        self._installed = active
        if active != self.attached():  # a context was freed meanwhile
            del running
            self.settle()

    def _clear(self, bridge: TransformerBridge) -> None:
        """Takes off all that is ours, whatever was remembered of it."""
        self._hooks = []
        for point in self._points(bridge):
            if not (point._forward_hooks or point.fwd_hooks):
                continue
            for handle in [handle for handle in point.fwd_hooks if is_ours(handle.user_hook)]:
                handle.hook.remove()
                point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]
            for key in [key for key, hook in point._forward_hooks.items() if is_ours(hook)]:
                del point._forward_hooks[key]  # TransformerLens was interrupted before it noted the hook
        for module in _reroutable(bridge):
            restore_forward(module)
        for block in bridge.blocks:
            if getattr(block, "_stop_at_layer_idx", None) is not None:
                block._stop_at_layer_idx = None  # TransformerLens was interrupted in a pass that stops early
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []
        for flag, before in list(self._flags.items()):
            getattr(bridge, f"set_{flag}")(before)
            del self._flags[flag]

    def _is_exact(self) -> bool:
        """Whether the hooks of ours that stand on the model are those that were put there."""
        bridge = self._bridge
        hooked = [point for point in self._points(bridge) if point._forward_hooks]
        ours = sum(is_ours(hook) for point in hooked for hook in point._forward_hooks.values())
        calls = any(a.block_call is not None for a in self._installed or [])
        stray = not calls and self._installed is not None and any(rerouted(block) for block in bridge.blocks)
        return not stray and ours == len(self._hooks) and all(key in point._forward_hooks for point, key in self._hooks)

    def _points(self, bridge: TransformerBridge) -> list[HookPoint]:
        """Every hook point, once; TransformerLens lists some under several names."""
        listed: Any = bridge.hook_points()
        if self._listed[0] != len(listed):
            self._listed = len(listed), list({id(point): point for point in listed}.values())
        return self._listed[1]

    def renew(self) -> None:
        """In a forked child: what other threads had attached is off, since those threads do not exist here."""
        here = threading.get_ident()
        self.lock.renew()
        self._contexts = [
            link for link in self._contexts if (one := link()) is not None and one.turn.caller.thread == here
        ]
        self._installed = None


def _reroutable(bridge: TransformerBridge) -> list[torch.nn.Module]:
    """The modules whose forward pass an attachment may replace."""
    linear = getattr(getattr(bridge, "unembed", None), "original_component", None)
    return [*bridge.blocks, *([] if linear is None else [linear])]


_MAKING = threading.Lock()
_INSTALLATIONS: WeakKeyDictionary[TransformerBridge, Installation] = WeakKeyDictionary()


def _renew_all() -> None:
    for installation in list(_INSTALLATIONS.values()):
        installation.renew()


os.register_at_fork(after_in_child=_renew_all)
