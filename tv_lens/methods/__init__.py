"""Methods as values: how a task vector is taken, which heads are summed, how points are mapped.

`tv.extract` takes a `ResidualMean` or a `FunctionVector`, `tv.representation_map` a `PCA` or a `UMAP`. The methods
that score edges stand beside the circuits, in `tv.circuits`.
"""

from tv_lens.task_vectors.function_vector import FunctionVector
from tv_lens.task_vectors.pca_map import PCA
from tv_lens.task_vectors.ranking import head_ranking, ranking_stability
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.umap_map import UMAP
from tv_lens.task_vectors.universal import UniversalHeads, universal_heads

__all__ = [
    "PCA",
    "UMAP",
    "FunctionVector",
    "ResidualMean",
    "UniversalHeads",
    "head_ranking",
    "ranking_stability",
    "universal_heads",
]
