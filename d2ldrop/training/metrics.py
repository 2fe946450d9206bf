"""The numbers of an epoch, batch by batch, and their means over samples."""

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["MetricLog"]


class MetricLog:
    """The metrics of one epoch: their values by batch, with the number of samples in each batch.

    Examples
    --------
    >>> log = MetricLog()
    >>> log.add("train_", {"loss": [2.0, 1.0]}, sizes=[3, 1])
    >>> log.means()
    {'train_loss': 1.75}
    >>> log.add("train_", {"loss": [1.0]}, sizes=[4])
    >>> log.means(), log.recent()
    ({'train_loss': 1.375}, {'train_loss': 1.0})
    >>> log["train_loss"]
    ([2.0, 1.0, 1.0], [3, 1, 4])
    """

    def __init__(self) -> None:
        self._columns: dict[str, tuple[list[float], list[int]]] = {}
        self._recent: dict[str, float] = {}

    def add(self, prefix: str, numbers: Mapping[str, Sequence[float]], sizes: Sequence[int]) -> None:
        """Add the values of some batches.

        Parameters
        ----------
        prefix
            `"train_"` or `"val_"`; what a label begins with.
        numbers
            Metric -> a value for each batch.
        sizes
            The number of samples in each batch.
        """
        self._recent = {}
        for key in sorted(numbers, key=lambda key: (key != "loss", key)):  # a compiler may have changed the order
            values, counts = self._columns.setdefault(prefix + key, ([], []))
            values.extend(numbers[key])
            counts.extend(sizes)
            self._recent[prefix + key] = _mean(numbers[key], sizes)

    def recent(self) -> dict[str, float]:
        """Return the means over the samples of the last `add`, by label."""
        return self._recent

    def means(self, prefix: str = "") -> dict[str, float]:
        """Return the means over all samples so far, of the labels that begin with `prefix`."""
        return {label: _mean(*column) for label, column in self._columns.items() if label.startswith(prefix)}

    def __getitem__(self, label: str) -> tuple[list[float], list[int]]:
        return self._columns[label]


def _mean(values: Sequence[float], sizes: Sequence[int]) -> float:
    """Return the mean over samples: a batch weighs as much as it has samples."""
    return float(np.average(values, weights=sizes))
