"""What a piece of work costs a card and its host, and the table into which it is written as soon as it is known."""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def resident_bytes() -> int:
    """Memory that this process holds on the host."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the most it ever held
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Utilisation:
    """The share of time in which the card ran some kernel, as its driver samples it (it averages over up to a second).

    Args:
        device: the card.

    Attributes:
        reason: why there is nothing to read; empty where there is.
    """

    def __init__(self, device: torch.device):
        self.samples: list[tuple[float, float]] = []
        self.reason, self._process = "", None
        self._closed, self._answered = threading.Event(), threading.Event()
        if device.type != "cuda":
            self.reason = "no GPU"
            return
        try:
            torch.cuda.utilization(device)
            threading.Thread(target=self._poll, args=(device,), daemon=True).start()
        except Exception as error:  # pynvml is missing, or the driver does not tell (as on a part of a card)
            self.reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            self._start_nvidia_smi(device)

    def _poll(self, device: torch.device) -> None:
        while not self._closed.wait(0.1):
            self.samples.append((time.perf_counter(), float(torch.cuda.utilization(device))))

    def _start_nvidia_smi(self, device: torch.device) -> None:
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        uuid = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        command = [
            "nvidia-smi",
            "-i",
            uuid,
            "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits",
            "-lms",
            "100",
        ]
        try:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except OSError as error:
            self.reason += f"; nvidia-smi: {error.strerror}"
            return
        threading.Thread(target=self._read, daemon=True).start()
        self._answered.wait(5)

    def _read(self) -> None:
        for line in self._process.stdout:
            try:
                self.samples.append((time.perf_counter(), float(line)))
                self.reason = ""
            except ValueError:
                self.reason += f"; nvidia-smi: {line.strip()}"
                break
            finally:
                self._answered.set()

    def between(self, start: float, end: float) -> float | None:
        """The mean of the samples in an interval; None where there are fewer than two."""
        values = [value for at, value in list(self.samples) if start <= at <= end]
        return sum(values) / len(values) if len(values) > 1 else None

    def close(self) -> None:
        self._closed.set()
        if self._process is not None:
            self._process.terminate()


@dataclass(frozen=True)
class Cost:
    """Seconds, and memory above what was held before, of one piece of work; None where it cannot be known."""

    seconds: float
    host_mib: float
    device_mib: float | None
    busy: float | None


class Meter:
    """Measures work on a device, which is synchronised before and after."""

    def __init__(self, device: torch.device):
        self.device, self.utilisation = device, Utilisation(device)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], T]) -> tuple[T, float]:
        """What the work returns, and how long it took."""
        self.wait()
        started = time.perf_counter()
        result = work()
        self.wait()
        return result, time.perf_counter() - started

    def measured(self, work: Callable[[], T]) -> tuple[T, Cost]:
        """What the work returns, and all that it cost."""
        gc.collect()
        on_card, done, device_mib = self.device.type == "cuda", threading.Event(), None
        before_work = peak = resident_bytes()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.02):
                peak = max(peak, resident_bytes())

        if on_card:
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        started = time.perf_counter()
        try:
            result, seconds = self.seconds(work)
        finally:
            done.set()
            watcher.join()
        if on_card:
            device_mib = (torch.cuda.max_memory_allocated(self.device) - before) / 2**20
        host = (max(peak, resident_bytes()) - before_work) / 2**20
        return result, Cost(seconds, host, device_mib, self.utilisation.between(started, time.perf_counter()))


COLUMNS: dict[str, tuple[str, str]] = {
    "part": ("part", "{}"),
    "shape": ("shape", "{}"),
    "dtype": ("dtype", "{}"),
    "cells": ("cells", "{:,}"),
    "ours_s": ("tv_lens, s", "{:.2f}"),
    "single_s": ("one pass each, s", "{:.2f}"),
    "single_n": ("run", "{}"),
    "single_ratio": ("ratio", "{:.1f}x"),
    "batched_s": ("batched passes, s", "{:.2f}"),
    "batched_n": ("run", "{}"),
    "batched_ratio": ("ratio", "{:.1f}x"),
    "busy": ("GPU busy, %", "{:.0f}"),
    "device_mib": ("device peak, MiB", "{:,.0f}"),
    "host_mib": ("host growth, MiB", "{:,.0f}"),
    "tflops": ("TFLOP/s", "{:.3g}"),
    "difference": ("largest difference", "{:.1e}"),
    "spread": ("spread", "{:.2g}"),
    "remark": ("remark", "{}"),
}


class Report:
    """A Markdown table and a file of JSON lines beside it, which grow by a row as soon as a part ends.

    Args:
        path: of the Markdown file.
        header: lines above the table.
        about: the same as data, the first of the JSON lines.
    """

    def __init__(self, path: Path, header: str, about: Mapping[str, Any]):
        self.path, self.data = path, path.with_suffix(".jsonl")
        self.rows: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        titles = [title for title, _ in COLUMNS.values()]
        path.write_text(f"{header}\n\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n", encoding="utf-8")
        self.data.write_text(json.dumps(about) + "\n", encoding="utf-8")

    def add(self, row: dict[str, Any]) -> None:
        """Writes a row to both files, whole and at once, and prints it."""
        self.rows.append(row)
        cells = [shape.format(row[key]) if row.get(key) is not None else "-" for key, (_, shape) in COLUMNS.items()]
        plain = [cell.replace("|", "/").replace("\n", " ") for cell in cells]
        for path, line in ((self.path, f"| {' | '.join(plain)} |"), (self.data, json.dumps(row))):
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        pairs = zip(list(COLUMNS.values())[3:], cells[3:])  # all but the part, the shape and the dtype
        named = [f"{title} {cell}" for (title, _), cell in pairs if cell != "-"]
        print(f"{row['part']}, {row['shape']} in {row['dtype']}: {'; '.join(named)}", flush=True)
