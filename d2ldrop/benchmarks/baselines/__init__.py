"""For each backend, the same training and the same layers as users of the framework would write them."""
