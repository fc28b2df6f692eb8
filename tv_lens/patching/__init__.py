"""What an activation does: patches, effects of nodes, of paths and of demonstrations, and scores of prompts."""

from tv_lens.patching.effects import demonstration_effects
from tv_lens.patching.scoring import Scores

__all__ = ["Scores", "demonstration_effects"]
