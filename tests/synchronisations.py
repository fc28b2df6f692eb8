"""A device that is none: a machine with a pretended accelerator, on which every wait of the host for it is counted.

A GPU computes ahead of the program until the program asks for a number: `.item()`, `.cpu()`, `nonzero`, a boolean
index. Each of these waits for all that was queued, so one in a loop over layers or rows leaves the device idle.
Here the memory of the tensors that a GPU would hold is known (weights, what is made on their device, and what follows
from either), and a function mode and a dispatch mode see every operation on it:

    machine = Machine()
    machine.holds(model.tl)
    with machine:
        verb(model)                     # what is found out about a model once is found now
        waits, _ = machine.during(lambda: verb(model))

Attributes name what happened with its place in the library: `waits` (the host reads the device), `uploads` (the device
is given a host tensor, which waits as well unless it is pinned) and `mixed` (what a GPU would refuse: one operation on
tensors of both, `.numpy()` of the device's).

The convention that it reads: the host is named in words (`device="cpu"`, `.cpu()`), a device is an object (`x.device`).
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import tv_lens

T = TypeVar("T")
ROOT = Path(tv_lens.__file__).parent
DEVICE, HOST = torch.device("cpu", 0), torch.device("cpu")

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "nonzero_numpy",
    "masked_select",
    "_unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "equal",
    "is_nonzero",
    "item",
    "bincount",
    "repeat_interleave",  # of a tensor of counts, whose sum is the length
}
INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
COPYING = {"copy_", "copy", "_to_copy"}


class Machine:
    """A host and a pretended device, while it is entered.

    Attributes:
        waits: what the host read of the device, as (operation, place) with how often.
        uploads: what the device was given from the host, likewise.
        mixed: what a real device would refuse, likewise.
    """

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str]] = Counter()
        self.uploads: Counter[tuple[str, str]] = Counter()
        self.mixed: Counter[tuple[str, str]] = Counter()
        self._held: dict[int, Any] = {}  # storages, kept alive, since an address may be given twice
        self._modes = (_Operations(self), _Calls(self))

    def __enter__(self) -> Machine:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def holds(self, module: nn.Module) -> nn.Module:
        """The module, whose weights and buffers the device holds from now on."""
        for tensor in [*module.parameters(), *module.buffers()]:
            self.put(tensor)
        return module

    def put(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._held[storage._cdata] = storage
        return tensor

    def take(self, tensor: Tensor) -> Tensor:
        self._held.pop(tensor.untyped_storage()._cdata, None)
        return tensor

    def has(self, tensor: object) -> bool:
        """Whether the device holds this tensor."""
        if not isinstance(tensor, Tensor) or tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return False
        return tensor.untyped_storage()._cdata in self._held

    def during(self, work: Callable[[], T]) -> tuple[Counter[tuple[str, str]], T]:
        """The waits of a piece of work, and what it returns."""
        before = self.waits.copy()
        result = work()
        return self.waits - before, result


def _place() -> str:
    """The line of the library that is running, or of whoever called the machine."""
    frames = traceback.extract_stack()
    for frame in reversed(frames):
        if Path(frame.filename).is_relative_to(ROOT):
            return f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}"
    return "outside the library"


def _tensors(arguments: Any) -> Iterator[Tensor]:
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, (list, tuple)):
        for one in arguments:
            yield from _tensors(one)
    elif isinstance(arguments, dict):
        yield from _tensors(list(arguments.values()))


class _Operations(TorchDispatchMode):
    """What reaches PyTorch's kernels."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        machine, kwargs = self.machine, kwargs or {}
        name = func.overloadpacket.__name__
        given = list(_tensors([args, kwargs]))
        here = [machine.has(tensor) for tensor in given]
        out = func(*args, **kwargs)
        if not any(here):
            return out
        with _disable_current_modes():
            self._note(name, args, given, here)
            if name in COPYING and not here[0]:
                return out  # a host tensor is filled from the device
            if name in INDEXING and not here[0]:
                return out
            for tensor in _tensors(out):
                machine.put(tensor)
        return out

    def _note(self, name: str, args: Any, given: list[Tensor], here: list[bool]) -> None:
        machine = self.machine
        if name in WAITING and not (name == "repeat_interleave" and len(given) == 1 and len(args) > 1):
            machine.waits[name, _place()] += 1
        elif name in INDEXING:
            self._note_index(name, args, here)
        elif name in COPYING and len(here) > 1 and here[0] != here[1]:
            (machine.uploads if here[0] else machine.waits)[name, _place()] += 1
        elif any(not held and tensor.ndim > 0 for tensor, held in zip(given, here)):
            machine.mixed[name, _place()] += 1

    def _note_index(self, name: str, args: Any, here: list[bool]) -> None:
        machine = self.machine
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            machine.waits[f"{name} by a mask", _place()] += 1
        elif machine.has(args[0]) and any(not machine.has(index) for index in indices):
            machine.uploads[f"{name} by host indices", _place()] += 1
        if not machine.has(args[0]) or any(not machine.has(value) and value.ndim for value in _tensors(args[2:])):
            machine.mixed[name, _place()] += 1


_DEVICE_OF = Tensor.device.__get__  # each time another object, equal to this one
_FACTORIES = {
    getattr(torch, name)
    for name in ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "randint", "tensor", "zeros")
} | {torch.as_tensor, torch.empty_like, torch.full_like, torch.ones_like, torch.zeros_like, torch.randperm}


class _Calls(TorchFunctionMode):
    """What is called by its Python name, before PyTorch finds that nothing has to be copied."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        machine, kwargs = self.machine, kwargs or {}
        if func == _DEVICE_OF:
            device = func(*args, **kwargs)
            return DEVICE if device == HOST and machine.has(args[0]) else device
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__) and machine.has(args[0]):
            noted = machine.waits if func is Tensor.tolist else machine.mixed
            noted[func.__name__, _place()] += 1
        if func is Tensor.cpu:
            return self._moved(func, args[0], args, kwargs, False)
        if func is Tensor.to and (where := _target(machine, args[1:], kwargs)) is not None:
            return self._moved(func, args[0], args, kwargs, where)
        out = func(*args, **kwargs)
        if func in _FACTORIES and isinstance(out, Tensor) and kwargs.get("device") == DEVICE:
            machine.put(out)
        return out

    def _moved(self, func: Any, tensor: Tensor, args: Any, kwargs: Any, to_device: bool) -> Tensor:
        """The tensor on the other side, as memory of its own; itself where it is there already."""
        machine = self.machine
        was = machine.has(tensor)
        out = func(*args, **kwargs)
        if was == to_device:
            return out
        (machine.uploads if to_device else machine.waits)[func.__name__, _place()] += 1
        if out.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            out = out.clone()
        return machine.put(out) if to_device else machine.take(out)


def _target(machine: Machine, args: Any, kwargs: Any) -> bool | None:
    """Whether `.to(...)` names the device (True) or the host (False); None where it names neither."""
    for one in [*args[:1], kwargs.get("device"), kwargs.get("other")]:
        if isinstance(one, Tensor):
            return machine.has(one)
        if isinstance(one, torch.device):
            return one == DEVICE
        if isinstance(one, str):
            return False
    return None
