"""Weights of your own: training data from decisions and their outcomes, an adapter, and an EAGLE3 draft for the adapted model.

`setups` and `sample_runs` make decisions on the shipped stocks, `teacher` says what should have been answered, `examples` holds both as
token ids. `adapter_training` and `draft_training` train on them; only they, `model_folder` and `draft_model` import torch.
"""
