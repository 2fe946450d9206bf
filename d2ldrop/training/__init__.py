"""The training loop, and what belongs to it: modules, metrics, callbacks, progress, weights in files."""
