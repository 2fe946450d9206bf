"""Experiments on top of the trainer: the comparison of backends, and the chapter's exercises."""
