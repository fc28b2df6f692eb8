"""How does a model learn a task in context? Task vectors, patching and decoding circuits on TransformerLens."""

from tv_lens.batch import TokenBatch
from tv_lens.errors import TVLensError
from tv_lens.intervention import Add, Intervention, Mean, Project, Replace, Resample, Zero
from tv_lens.metrics import Answers, exact_match, kl, log_prob, logit_diff, metric, prob, rank
from tv_lens.model import HookedModel, load
from tv_lens.site import COMPONENTS, Site, Sites, sites
from tv_lens.sweep import Sweep

__version__ = "0.1.0"
