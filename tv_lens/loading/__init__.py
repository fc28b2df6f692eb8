"""From a name to a module and a tokenizer: embedded models, folders, GGUF files, Hugging Face models."""
