"""What is said of a name of the book's package that is not here: which name is nearest."""

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NoReturn

__all__ = ["ELSEWHERE", "missing_names"]

ELSEWHERE = {
    "cross_entropy": "Classifier.loss",
    "download": "FashionMNIST, which fetches its files itself",
    "download_extract": "FashionMNIST, which fetches its files itself",
    "evaluate_accuracy_gpus": "evaluate_accuracy_gpu",
    "evaluate_accuracy_gpu": "evaluate_accuracy",
    "FlattenLayer": "reshape",
    "get_dataloader_workers": "DataModule(num_workers=...), which has no effect, as everything is in memory",
    "get_scratch_params": "get_weights",
    "get_seed": "seed",
    "get_key": "seed",
    "grad_clipping": "Trainer(gradient_clip_val=...)",
    "KaggleHouse": "CSVData",
    "linear_regression": "LinearRegression",
    "relu": "the framework's own",
    "resnet18": "Classifier, to write it as a subclass",
    "set_scratch_params_device": "Trainer(num_gpus=1)",
    "softmax": "predict_proba, for the probabilities that a model gives",
    "train_2d": "plot, to draw what a loop of your own computes",
    "train_batch_ch13": "train_epoch_ch3",
    "train_ch13": "Trainer",
    "train_ch6": "train_ch3",
    "train_ch8": "Trainer",
    "train_ch11": "Trainer",
    "try_gpus": "try_all_gpus",
}
"""Names of the book's package, and the name here that comes nearest where it is not the one that looks most alike."""


def missing_names(module: str, name: str) -> Callable[[str], Any]:
    """Return an adapter's `__getattr__`, which is asked for names that the adapter lacks.

    Parameters
    ----------
    module
        The adapter's import path.
    name
        What the backend is called.
    """

    def __getattr__(asked: str) -> NoReturn:  # noqa: N807 - Python calls it so
        if asked.startswith("__"):  # Python's own questions, such as that for __path__
            raise AttributeError(f"module {module!r} has no attribute {asked!r}")
        public = importlib.import_module(module).__all__
        lower = {each.lower(): each for each in public}
        alike = [lower[each] for each in get_close_matches(asked.lower(), lower, n=1, cutoff=0.7)]
        nearest = ELSEWHERE.get(asked) or next(iter(alike), None)
        hint = f"The nearest is {nearest}." if nearest else f"{module}.__all__ lists what it has."
        raise AttributeError(f"Expected a name of the backend {name}. Received: {asked!r}, which it lacks. {hint}")

    return __getattr__
