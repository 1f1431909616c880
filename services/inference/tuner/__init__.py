"""Finds the settings of speculation that suit a GPU, a model and the product's own prompts, by trying them."""
