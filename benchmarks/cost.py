"""What a piece of work costs in this process: wall and processor seconds, and memory above where it began."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float
    peak_mib: float

    def __str__(self) -> str:
        return f"{self.wall:9.2f} s wall  {self.cpu:9.2f} s cpu  {self.peak_mib:8.1f} MiB above the start"


def measured(work: Callable[[], T]) -> tuple[T, Cost]:
    """What the work returns, and its cost; memory is sampled every few milliseconds."""
    gc.collect()
    process, done = psutil.Process(), threading.Event()
    start = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        result = work()
    finally:
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        done.set()
        watcher.join()
    return result, Cost(wall, cpu, (max(peak, process.memory_info().rss) - start) / 2**20)
