"""Decoding circuits of a model whose circuits are known, which the tests of this folder share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tiny_folder import CIRCUIT_SIZE
from tv_lens.circuits import truth
from tv_lens.experiments import DecodingResult
from tv_lens.experiments.vector_circuits.measure import decoding_circuits


@pytest.fixture(scope="session")
def known() -> DecodingResult:
    """The task switch, both of whose tasks have a decoder of their own."""
    first, second = truth.switch_tasks()
    model = truth.task_switch(n=2).model
    size = replace(CIRCUIT_SIZE, n=2)
    return decoding_circuits(model, [first, second], layer=0, edges=2, shots=3, size=size, progress=False)
