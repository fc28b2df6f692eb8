"""The circuits that decode the vectors of tasks, tested on held-out queries, and their page."""

from tv_lens.experiments.vector_circuits.measure import CIRCUIT_SIZES, CircuitSize, decoding_circuits
from tv_lens.experiments.vector_circuits.page import circuits_page
from tv_lens.experiments.vector_circuits.result import DecodingResult
from tv_lens.experiments.vector_circuits.task_circuit import TaskCircuit

__all__ = ["CIRCUIT_SIZES", "CircuitSize", "DecodingResult", "TaskCircuit", "circuits_page", "decoding_circuits"]
