"""The hooked model and its registry: the only room that touches TransformerLens."""
