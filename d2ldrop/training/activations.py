"""How large activations are before and after the dropout mask, as training goes on."""

from itertools import pairwise
from typing import Any

import numpy as np

from d2ldrop.backend import AnyBackend, Array
from d2ldrop.data import ArrayData, as_floats
from d2ldrop.errors import UsageError
from d2ldrop.hyperparameters import positive
from d2ldrop.training.callbacks import Callback, Training

__all__ = ["WHEN", "ActivationStats", "masked_activations"]

WHEN = ("before", "after")


def masked_activations(model: Any, X: Array) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the activations of each hidden layer in one call with dropout on, before and after its mask.

    Hidden layers are those of the chapter's models, scratch or concise: fully connected, with ReLU. So an activation
    before the mask is the positive part of what such a layer returns, and after it, it is an input of the next one.

    Parameters
    ----------
    model
        A built model of any adapter. It does not change, nor does a training that goes on.
    X
        Inputs (N, ...), an array of its framework on the model's device.

    Returns
    -------
    list of (numpy.ndarray, numpy.ndarray)
        For each hidden layer two arrays (N, units). Masks come from the generators that `seed` of its backend seeds.
    """
    backend: AnyBackend = model.backend
    host = [(backend.numpy(inputs), backend.numpy(outputs)) for inputs, outputs in backend.linear_calls(model, X)]
    return [(np.maximum(outputs, 0), inputs) for (_, outputs), (inputs, _) in pairwise(host)]


class ActivationStats(Callback):
    """Keep the mean and the variance of the activations in each hidden layer, before and after the mask, per epoch.

    After each epoch, some training samples pass through the model once with dropout on. Training does not notice.

    Parameters
    ----------
    samples
        How many training samples to look at, always the same; fewer if there are fewer.

    Attributes
    ----------
    rows : list of dict
        Two rows per hidden layer and epoch: `epoch`, `layer` (both from 1), `when` ("before" or "after" the mask),
        `mean` and `variance`, over all of the samples and units.

    Raises
    ------
    ArgumentError
        If `samples` is no positive integer.
    UsageError
        When training begins, if the data are not an `ArrayData`, or the model has no hidden layers.

    Notes
    -----
    What a hidden layer is, `masked_activations` says. As the mask does not depend on the activation h, the mean after
    it is E[h], up to chance, and the variance Var(h) / (1 - p) + p / (1 - p) E[h]^2.

    Examples
    --------
    >>> from d2ldrop import Trainer, numpy as d2l
    >>> stats = ActivationStats()
    >>> model = d2l.DropoutMLP(10, 64, 64, dropout_1=0.5, dropout_2=0.5, lr=0.1)
    >>> Trainer(max_epochs=1, seed=0, callbacks=[stats]).fit(model, d2l.Digits())
    >>> for row in stats.rows:
    ...     print(row["layer"], row["when"], row["variance"] > 0)
    1 before True
    1 after True
    2 before True
    2 after True
    """

    def __init__(self, samples: int = 1024):
        self.samples = positive("samples", samples)
        self.rows: list[dict[str, Any]] = []
        self._resumed = False

    def on_fit_start(self, trainer: Training) -> None:
        """Choose the samples; forget the rows of another training, but not those of one that goes on."""
        if not isinstance(trainer.data, ArrayData):
            raise UsageError(f"Expected data in arrays, as in ArrayData. Received: {type(trainer.data).__name__}")
        self.rows, self._resumed = self.rows if self._resumed else [], False
        X = trainer.data.split(True, trainer.backend.channels_last).X
        chosen = np.random.default_rng(0).permutation(len(X))[: self.samples]
        self._inputs = trainer.backend.array(as_floats(X[chosen]), trainer.device)
        if not self._look(trainer, 0):
            raise UsageError(
                "Expected a model with fully connected hidden layers, as the chapter's have. "
                f"Received: {type(trainer.model).__name__}"
            )

    def on_epoch_end(self, trainer: Training) -> None:
        """Add the rows of this epoch."""
        epoch = len(trainer.history)
        for layer, arrays in enumerate(self._look(trainer, epoch), start=1):
            for when, H in zip(WHEN, arrays, strict=True):
                mean, variance = float(H.mean(dtype=np.float64)), float(H.var(dtype=np.float64))
                self.rows.append({"epoch": epoch, "layer": layer, "when": when, "mean": mean, "variance": variance})

    def _look(self, trainer: Training, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the activations, under masks that depend on the number of the epoch alone."""
        with trainer.backend.isolated():
            trainer.backend.seed(epoch)
            return masked_activations(trainer.model, self._inputs)

    def state(self) -> dict[str, np.ndarray]:
        """Return the rows so far."""
        numbers = [[*{**row, "when": WHEN.index(row["when"])}.values()] for row in self.rows]
        return {"rows": np.array(numbers, float).reshape(-1, 5)}

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over the rows of a training that goes on."""
        self.rows, self._resumed = [], True
        for epoch, layer, when, mean, variance in arrays["rows"].tolist():
            self.rows.append(
                {"epoch": int(epoch), "layer": int(layer), "when": WHEN[int(when)], "mean": mean, "variance": variance}
            )
