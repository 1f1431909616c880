"""Engines behind one protocol (`engine`), the SGLang launcher with its presets and model plug-in, the simulator, the tuner."""
