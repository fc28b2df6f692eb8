"""Task vectors: how they are extracted, what they do, and how well the task can be read from the residual stream."""

from tv_lens.task_vectors.decodability_result import Decodability
from tv_lens.task_vectors.maps import RepresentationMap

__all__ = ["Decodability", "RepresentationMap"]
