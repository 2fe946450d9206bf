"""How far probabilities and uncertainties can be relied upon: calibration, rejection, and inputs from elsewhere.

Everything here is NumPy on the host.
"""

from typing import NamedTuple

import numpy as np

from d2ldrop.errors import DataError
from d2ldrop.hyperparameters import positive

__all__ = ["Bins", "auroc", "calibration_bins", "check_probabilities", "expected_calibration_error", "rejection_curve"]


class Bins(NamedTuple):
    """Predictions by their confidence, in M bins of equal width; a bin without predictions has nan as its means."""

    edges: np.ndarray
    """(M + 1,): the bounds of the bins, from 0 to 1; each bin has its upper one."""

    counts: np.ndarray
    """(M,): the number of predictions in each bin."""

    confidence: np.ndarray
    """(M,): the mean of the largest probability."""

    accuracy: np.ndarray
    """(M,): the fraction of predictions that are right."""


def calibration_bins(probabilities: np.ndarray, y: np.ndarray, bins: int = 15) -> Bins:
    """Sort predictions into bins by their confidence, the largest probability.

    Parameters
    ----------
    probabilities
        (N, K), rows that sum to 1.
    y
        True labels (N,), integers.
    bins
        The number M of bins.

    Raises
    ------
    ArgumentError
        If `bins` is not a positive integer.
    DataError
        If there are no samples, the shapes do not fit together, labels are no integers, or rows are no probabilities.

    Notes
    -----
    Source: Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI (2015),
    with the number of bins of Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML (2017).

    Examples
    --------
    >>> P, y = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1])
    >>> calibration_bins(P, y, bins=2).counts
    array([0, 3])
    """
    bins = positive("bins", bins)
    confidence, hits = _predictions(probabilities, y)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (confidence, hits)]
    means = [np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums]
    return Bins(edges, counts, *means)


def expected_calibration_error(probabilities: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Return how far confidence is from accuracy: the mean over the predictions of that difference in their bins.

    It is ``sum_m |B_m| / N |accuracy(B_m) - confidence(B_m)|`` over the bins B_m of `calibration_bins`, from 0 to 1.
    Parameters, errors and sources are those of `calibration_bins`.

    Examples
    --------
    >>> P, y = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1])
    >>> round(expected_calibration_error(P, y, bins=1), 4)  # |2 / 3 - (0.9 + 0.8 + 0.6) / 3|
    0.1
    """
    _, counts, confidence, accuracy = calibration_bins(probabilities, y, bins)
    filled = counts > 0
    return float(np.average(np.abs(accuracy - confidence)[filled], weights=counts[filled]))


def rejection_curve(uncertainty: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the accuracy on what is left when the most uncertain predictions are rejected.

    Parameters
    ----------
    uncertainty
        (N,): larger for what is to be rejected first.
    hits
        (N,): whether each prediction is right.

    Returns
    -------
    rate, accuracy : numpy.ndarray
        Both (P,): the fraction of predictions that is rejected, from 0 up, and the accuracy on the others. There is a
        point for each different uncertainty: predictions that are equally uncertain are rejected together.

    Raises
    ------
    DataError
        If there are no samples, the shapes differ, or an uncertainty is nan.

    Examples
    --------
    >>> rejection_curve(np.array([0.1, 0.9, 0.5, 0.9]), np.array([True, False, True, True]))
    (array([0.  , 0.5 , 0.75]), array([0.75, 1.  , 1.  ]))
    """
    uncertainty, hits = np.asarray(uncertainty), np.asarray(hits)
    if uncertainty.ndim != 1 or uncertainty.shape != hits.shape or not len(hits) or np.isnan(uncertainty).any():
        raise DataError(
            "Expected uncertainties (N,), none of them nan, and hits (N,), at least one. "
            f"Received: {uncertainty.shape} and {hits.shape}"
        )
    values, place = np.unique(uncertainty, return_inverse=True)
    kept = np.cumsum(np.bincount(place, minlength=len(values)))  # what is at most as uncertain as each value
    right = np.cumsum(np.bincount(place, weights=hits, minlength=len(values)))
    return (1 - kept / len(hits))[::-1], (right / kept)[::-1]


def auroc(own: np.ndarray, foreign: np.ndarray) -> float:
    """Return the area under the ROC curve of an uncertainty that is to tell foreign inputs from own ones.

    It is the probability that a foreign input is more uncertain than one of the kind that was trained on, ties counting
    a half: 0.5 for a guess, 1 where all foreign ones are.

    Parameters
    ----------
    own, foreign
        Uncertainties (N,) and (M,).

    Raises
    ------
    DataError
        If one of them is not (N,), empty, or not finite.

    Notes
    -----
    As a measure of this kind: Hendrycks and Gimpel, A baseline for detecting misclassified and out-of-distribution
    examples in neural networks, ICLR (2017).

    Examples
    --------
    >>> auroc(np.array([0.1, 0.2]), np.array([0.2, 0.3]))
    0.875
    """
    from sklearn.metrics import roc_auc_score

    own, foreign = np.asarray(own, np.float64), np.asarray(foreign, np.float64)
    for values in (own, foreign):
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise DataError(f"Expected uncertainties (N,), finite, at least one. Received: shape {values.shape}")
    is_foreign = np.arange(len(own) + len(foreign)) >= len(own)
    return float(roc_auc_score(is_foreign, np.concatenate([own, foreign])))


def check_probabilities(rows: np.ndarray) -> None:
    """Check that the rows of an array (N, K) are probabilities.

    Raises
    ------
    DataError
        If one has a number below 0, or does not sum to 1.
    """
    if not (rows.min() >= 0 and np.allclose(rows.sum(axis=1, dtype=np.float64), 1, atol=0.01)):  # nor if one is nan
        raise DataError(f"Expected rows of probabilities, such as a softmax gives. Received: {rows[0]}")


def _predictions(probabilities: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence of each prediction, and whether it is right."""
    P, y = np.asarray(probabilities), np.asarray(y)
    if P.ndim != 2 or y.shape != P.shape[:1] or y.dtype.kind not in "iu" or not P.size:
        raise DataError(
            "Expected probabilities (N, K), and labels (N,) that are integers, at least one. "
            f"Received: {P.shape}, and {y.dtype} {y.shape}"
        )
    check_probabilities(P)
    return P.max(axis=1).astype(np.float64), P.argmax(axis=1) == y
