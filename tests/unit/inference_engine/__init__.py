"""Tests of the engine's launcher, plug-in, converter, tuner and calibration."""
