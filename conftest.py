"""Keep the doctests away from adapters whose framework is not installed."""

import d2ldrop
from d2ldrop.registry import registered

collect_ignore = [f"d2ldrop/{name}" for name in registered() if name not in d2ldrop.available()]
collect_ignore += ["d2ldrop/tensorflow.py"] if "tf" not in d2ldrop.available() else []
collect_ignore += [
    f"d2ldrop/benchmarks/baselines/{name}.py" for name in registered() if name not in d2ldrop.available()
]
