"""What a network learns over training: losses, decodability, causes, timing, and the page of it."""

from tv_lens.experiments.training.figures import plot_emergence, plot_training_map
from tv_lens.experiments.training.map import TrainingMap
from tv_lens.experiments.training.measure import EmergenceSize, emergence
from tv_lens.experiments.training.page import emergence_page
from tv_lens.experiments.training.result import Emergence, coupling
from tv_lens.experiments.training.timing import ChangePoints, Coupling

__all__ = [
    "ChangePoints",
    "Coupling",
    "Emergence",
    "EmergenceSize",
    "TrainingMap",
    "coupling",
    "emergence",
    "emergence_page",
    "plot_emergence",
    "plot_training_map",
]
