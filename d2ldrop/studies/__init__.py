"""Experiments on top of the trainer."""
