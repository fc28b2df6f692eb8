"""What an activation does: patches, effects of nodes, of paths and of demonstrations, and scores of prompts."""
