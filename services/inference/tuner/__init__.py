"""Finds the settings of speculation that suit a card, a model and the product's own prompts, by trying them."""
