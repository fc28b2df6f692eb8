"""Turns with a model: threads wait and say so, tasks of one loop are refused, forked children do not inherit a wait."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time

import pytest
import torch

from fresh_process import in_fresh_process
from tv_lens.errors import ModelInUse
from tv_lens.model import lock as locks
from tv_lens.model.lock import Caller, ModelLock


def elsewhere(work, timeout=10):
    """What a call gives or raises in another thread."""
    out = []

    def run():
        try:
            out.append(work())
        except Exception as error:
            out.append(error)

    thread = threading.Thread(target=run, daemon=True, name="the other")
    thread.start()
    thread.join(timeout)
    return out[0] if out else "still waiting"


def test_turns_of_one_thread_nest_and_others_wait_for_the_last_one():
    lock = ModelLock()
    with lock.turn("outer"), lock.turn("inner"):
        assert elsewhere(lambda: lock.acquire(timeout=0.05)) is False
    assert elsewhere(lambda: lock.acquire(timeout=0.05)) is True


def test_a_turn_whose_object_is_gone_is_over():
    """As after an interrupt between taking the lock and entering the block."""
    lock = ModelLock()
    lock.take(lock.turn("abandoned"))
    gc.collect()
    assert elsewhere(lambda: lock.acquire(timeout=1)) is True


def test_whoever_waits_says_so_and_gives_up_where_the_holder_runs_nothing(monkeypatch):
    monkeypatch.setattr(locks, "SAYS_AFTER", 0.05)
    monkeypatch.setattr(locks, "GIVES_UP_AFTER", 0.3)
    lock = ModelLock()
    with lock.turn("model.intervene"), pytest.warns(UserWarning, match="model.run in .* waits for the model"):
        error = elsewhere(lambda: lock.take(lock.turn("model.run")))
    assert isinstance(error, ModelInUse)
    assert str(error).startswith("model.run: another thread holds the model in model.intervene and runs nothing.")
    assert "leave the context first" in error.do


@pytest.mark.filterwarnings("ignore:.*waits for the model")
def test_whoever_waits_for_a_long_pass_goes_on_waiting(monkeypatch):
    monkeypatch.setattr(locks, "GIVES_UP_AFTER", 0.05)
    lock = ModelLock()
    with lock.turn("model.intervene"), lock.turn("a long pass", passes=True):
        assert elsewhere(lambda: lock.take(lock.turn("model.run")), timeout=0.4) == "still waiting"
    holder = lock.turn("model.intervene")
    with holder:  # and where the holder makes pass after pass
        waiting = threading.Thread(target=lambda: lock.take(lock.turn("model.run")), daemon=True)
        waiting.start()
        for _ in range(20):
            with lock.turn("a pass", passes=True):
                time.sleep(0.01)
        assert waiting.is_alive()
    waiting.join(5)
    assert not waiting.is_alive()


def test_another_task_of_the_loop_is_refused_at_once():
    lock = ModelLock()

    async def task(entered, leave):
        with lock.turn("model.intervene"):
            entered.set()
            await leave.wait()
            return Caller.now()

    async def both():
        entered, leave = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(task(entered, leave), name="first")
        await entered.wait()
        began = time.monotonic()
        with pytest.raises(ModelInUse, match="another task of this event loop") as caught:
            with lock.turn("model.run"):
                pass
        assert "'first'" in str(caught.value) and time.monotonic() - began < 1
        leave.set()
        return await first

    assert asyncio.run(both()).task is not None  # the first task went on, unharmed
    with lock.turn("afterwards"):
        pass


def test_a_turn_that_an_ended_task_left_open_belongs_to_its_thread():
    """A context that one cell of a notebook entered is not in the way of the next cell."""
    lock, kept = ModelLock(), []

    async def cell():
        kept.append(lock.turn("model.intervene"))
        lock.take(kept[0])

    asyncio.run(cell())
    with lock.turn("the next cell"):
        pass
    assert elsewhere(lambda: lock.acquire(timeout=0.05)) is False


def test_the_lock_works_as_a_plain_lock():
    lock = ModelLock()
    with lock:
        assert elsewhere(lambda: lock.acquire(timeout=0.05)) is False
    assert lock.acquire() and lock.acquire()
    lock.release(), lock.release()
    with pytest.raises(RuntimeError, match="not acquired"):
        lock.release()


def test_a_forked_child_does_not_wait_for_threads_that_it_does_not_have():
    """Also where such a thread had an edit on: the child's model is plain."""
    assert in_fresh_process(_fork_beside_a_context) == "plain"


def _fork_beside_a_context() -> str:
    import tiny_characters
    import tv_lens as tv

    torch.set_num_threads(1)
    model = tiny_characters.model("llama")
    plain = model.run("abc")
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with model.intervene(tv.Zero("resid_post[1]")):
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    entered.wait()
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, b"plain" if torch.equal(model.run("abc"), plain) else b"edited")
        os._exit(0)
    os.waitpid(child, 0)
    leave.set()
    return os.read(read, 10).decode()


def test_a_forked_child_of_several_threads_is_refused_instead_of_hanging():
    message = in_fresh_process(_fork_after_several_threads)
    assert (
        message.startswith("This process was forked") and "spawn" in message and message.endswith("and with one: done")
    )


def _fork_after_several_threads() -> str:
    import tiny_characters
    from tv_lens.errors import TVLensError

    torch.set_num_threads(2)
    model = tiny_characters.model("llama")
    model.run("abc")
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            model.run("abc")
        except TVLensError as error:
            os.write(write, str(error).encode())
        torch.set_num_threads(1)
        model.run("abc")
        os.write(write, b" and with one: done")
        os._exit(0)
    os.waitpid(child, 0)
    return os.read(read, 5000).decode()
