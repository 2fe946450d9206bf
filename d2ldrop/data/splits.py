"""Which samples are set aside for validation."""

import numpy as np

from d2ldrop.errors import DataError

__all__ = ["divided", "validation_last"]


def divided(y: np.ndarray, shuffle: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the samples to train on, and of the fifth that is set aside for validation.

    Raises
    ------
    DataError
        If there is but one sample.
    """
    if len(y) == 1:
        raise DataError("Expected at least 2 samples, to set one aside for validation. Received: 1")
    strata = y if y.dtype.kind != "f" else np.zeros(len(y), np.int64)  # targets are no classes: all are of one
    order, cut = validation_last(strata, shuffle), len(y) - max(1, len(y) // 5)
    return order[:cut], order[cut:]


def validation_last(y: np.ndarray, shuffle: bool) -> np.ndarray:
    """Return an order of the samples in which each part at the end has about as much of each class as the whole.

    Examples
    --------
    >>> y = np.repeat([0, 1], 10)
    >>> y[validation_last(y, shuffle=True)[-4:]]
    array([0, 1, 0, 1])
    """
    if not shuffle:
        return np.arange(len(y))
    shuffled = np.random.default_rng(0).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    _, counts = np.unique(y, return_counts=True)
    place = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])  # in its class, from 0 to 1
    return by_class[np.argsort(place, kind="stable")]
