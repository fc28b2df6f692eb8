"""The paper's experiments on pretrained language models, and their page."""
