"""From a name to a torch module and a tokenizer: embedded models, folders, GGUF files, Hugging Face models."""
