"""Tests of the bus: one contract, over memory and over a real Kafka."""
