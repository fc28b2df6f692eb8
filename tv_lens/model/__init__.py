"""The hooked model and its registry: the only room that touches TransformerLens."""

from tv_lens.model.attention_patterns import AttentionPatterns, attention
from tv_lens.model.capture import Capture
from tv_lens.model.registry import HookRegistry
from tv_lens.site import COMPONENTS, Sites

__all__ = ["COMPONENTS", "AttentionPatterns", "Capture", "HookRegistry", "Sites", "attention"]
