"""How uncertain a network is: what it predicts under many dropout masks, and how far these predictions disagree.

Training samples a network from the trained one by dropping units. Where that goes on in prediction, the outputs are
samples of the posterior predictive distribution of an approximation to a Bayesian network: *Monte Carlo dropout* (Gal
and Ghahramani, Dropout as a Bayesian approximation, ICML 2016).
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from d2ldrop.backend import AnyBackend, Array, never_called
from d2ldrop.errors import DataError, UsageError
from d2ldrop.hyperparameters import positive
from d2ldrop.randomness import integer, sharing_masks, streams
from d2ldrop.training.batches import EVAL_BATCH
from d2ldrop.training.checks import checked_model, inputs_of
from d2ldrop.training.evaluation import predicted

__all__ = ["MCPrediction", "MCRegression", "entropy", "mc_predict", "predict_proba", "softmax"]


class MCPrediction(NamedTuple):
    """What a classifier predicts for N inputs under T dropout masks; all numbers are float64, entropies in nats.

    With p_t the probabilities of the K classes under mask t, and H[p] = -sum_k p_k log p_k:
    """

    probabilities: np.ndarray
    """(N, K): the mean p = sum_t p_t / T."""

    entropy: np.ndarray
    """(N,): the predictive entropy H[p], from 0 to log K; large where classes are alike, or where masks disagree."""

    mutual_information: np.ndarray
    """(N,): H[p] - sum_t H[p_t] / T, from 0 to log K; large only where masks disagree."""

    variation_ratio: np.ndarray
    """(N,): 1 - f / T, where f of the masks have the most frequent of the predicted classes; at most 1 - 1 / K."""

    expected_entropy: np.ndarray
    """(N,): sum_t H[p_t] / T, the part of the entropy that does not come from disagreement."""


class MCRegression(NamedTuple):
    """What a regression model predicts for N inputs under T dropout masks, float64."""

    mean: np.ndarray
    """(N, num_outputs): the mean of the outputs."""

    std: np.ndarray
    """(N, num_outputs): their standard deviation, from the mean of the squared deviations. The noise of the targets
    themselves, which the model does not know, is not in it."""


def mc_predict(model: Any, X: Array, samples: int = 100, seed: int | None = None) -> MCPrediction | MCRegression:
    """Predict with dropout on, under many masks: Monte Carlo dropout.

    Parameters
    ----------
    model
        A model of any backend that has its parameters, on any device. Layers that keep statistics, as for batch
        normalisation, are as in evaluation.
    X
        Inputs (N, ...): what `Trainer.predict` takes.
    samples
        The number T of masks per input.
    seed
        An integer of at least 0 makes the result repeatable: bit by bit with the same backend on the same machine's
        CPU, for the same number of inputs and of samples. None: fresh entropy of the operating system.

    Returns
    -------
    MCPrediction or MCRegression
        The latter for a model whose attribute `is_regression` is true.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If `model` is not a `Module`, `samples` not a positive integer, or `seed` not an integer of at least 0.
    DataError
        If `X` is empty, or does not hold what the model was trained on.
    UsageError
        If the model has no parameters yet.

    Notes
    -----
    Each input has a mask of its own for each sample. A call of the network has at most 2000 rows: up to 2000 inputs,
    or, if they are fewer, several copies of them; the masks of all rows follow one another in one stream. So they
    depend on how many inputs there are, and an input's numbers are not the same among others. Noise that is drawn once
    for a whole batch, such as that of `dropconnect_layer` without `per_sample`, is new in each call only.

    Only sums over the masks are kept: the memory does not grow with `samples`. The model, a training that goes on, and
    the generators are left as they are, the latter as far as `Backend.isolated` can: where a model draws masks from
    `tf.random` or `mx.random` by itself, and not by `dropout_layer` or a layer, its training may go on with others.

    Source: Gal and Ghahramani, Dropout as a Bayesian approximation: representing model uncertainty in deep learning,
    ICML (2016); for the three measures Gal, Uncertainty in deep learning, thesis, Cambridge (2016), section 3.3. The
    mutual information of prediction and parameters is that of Houlsby, Huszar, Ghahramani and Lengyel, Bayesian active
    learning for classification and preference learning, arXiv:1112.5745 (2011); the variation ratio is that of
    Freeman, Elementary applied statistics (1965).

    Examples
    --------
    >>> from d2ldrop import numpy as d2l
    >>> model, data = d2l.DropoutMLP(10, 32, 16, 0.25, 0.5, lr=0.5), d2l.Digits()
    >>> d2l.Trainer(max_epochs=2, seed=0).fit(model, data)
    >>> result = mc_predict(model, data.split(train=False).X, samples=20, seed=0)
    >>> result.probabilities.shape, result.entropy.shape
    ((360, 10), (360,))
    >>> bool((result.mutual_information <= result.entropy).all())
    True
    """
    samples = positive("samples", samples)
    stream = streams(seed).dropout.spawn(1)[0]  # not the stream itself, from which a training draws its masks
    X = _inputs(model, X)
    if not len(X):
        raise DataError(f"Expected at least one sample in X. Received: {X.shape}")
    backend: AnyBackend = model.backend
    summed = _summed_outputs if model.is_regression else _summed_probabilities
    with sharing_masks(None), backend.isolated():
        backend.seed(integer(stream))
        blocks = (X[i : i + EVAL_BATCH] for i in range(0, len(X), EVAL_BATCH))
        parts = [summed(_sampled(model, block, samples), samples) for block in blocks]
    return type(parts[0])(*map(np.concatenate, zip(*parts, strict=True)))


def predict_proba(model: Any, X: Array) -> np.ndarray:
    """Return the probabilities of the classes, without dropout: the softmax of the outputs.

    Parameters
    ----------
    model
        A classifier of any backend that has its parameters.
    X
        Inputs (N, ...): what `Trainer.predict` takes.

    Returns
    -------
    numpy.ndarray
        float64, (N, K); each row sums to 1.

    Raises
    ------
    ArgumentError
        If `model` is not a `Module`.
    DataError
        If `X` does not hold what the model was trained on.
    UsageError
        If the model has no parameters yet, or is a regression model.
    """
    X = _inputs(model, X)
    if model.is_regression:
        raise UsageError(f"Expected a classifier. Received: {type(model).__name__}, whose outputs are no logits.")
    return softmax(predicted(model, X, model.backend.device_of(model)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax along the last axis in float64; subtracting the largest logit keeps exp in range.

    Examples
    --------
    >>> softmax(np.array([[1000.0, 1000.0], [0.0, -1000.0]]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    Z = np.asarray(logits, np.float64)
    E = np.exp(Z - Z.max(axis=-1, keepdims=True))
    return np.asarray(E / E.sum(axis=-1, keepdims=True))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return -sum p log p along the last axis, in nats, where 0 log 0 = 0.

    Examples
    --------
    >>> entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).round(4)
    array([0.6931, 0.    ])
    """
    P = np.asarray(probabilities, np.float64)
    return np.asarray(0.0 - (P * np.log(np.where(P > 0, P, 1))).sum(axis=-1))


def _inputs(model: Any, X: Array) -> np.ndarray:
    """Return inputs as `Trainer.predict` takes them, for a model that has its parameters."""
    checked_model(model)
    if not model.backend.is_built(model):
        raise never_called(model)
    return inputs_of(X, model, getattr(model.trainer, "data", None))


def _sampled(model: Any, X: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    """Yield the outputs for at most EVAL_BATCH inputs under some masks at a time: float64 (masks, N, ...).

    All calls are of one shape, as some frameworks compile anew for another. What the last one has too much is left out.
    """
    backend: AnyBackend = model.backend
    calls = math.ceil(samples / (EVAL_BATCH // len(X)))
    copies = math.ceil(samples / calls)  # of the inputs in each call; every row draws its own masks
    rows = backend.array(np.concatenate([X] * copies), backend.device_of(model))
    for done in range(0, samples, copies):
        outputs = backend.numpy(backend.sample(model, rows)).astype(np.float64)
        yield outputs.reshape(copies, len(X), *outputs.shape[1:])[: samples - done]


def _summed_probabilities(outputs: Iterator[np.ndarray], samples: int) -> MCPrediction:
    """Return what a classifier predicts, from the sums over the masks of p, of H[p], and of votes for each class."""
    total, entropies, votes = 0.0, 0.0, 0.0
    for logits in outputs:
        P = softmax(logits)
        total = total + P.sum(axis=0)
        entropies = entropies + entropy(P).sum(axis=0)
        classes = np.arange(P.shape[-1])
        votes = votes + (P.argmax(axis=-1)[..., np.newaxis] == classes).sum(axis=0)
    mean, expected = np.asarray(total) / samples, np.asarray(entropies) / samples
    predictive = entropy(mean)
    disagreement = np.maximum(predictive - expected, 0)  # below 0 only by rounding
    return MCPrediction(mean, predictive, disagreement, 1 - np.asarray(votes).max(axis=-1) / samples, expected)


def _summed_outputs(outputs: Iterator[np.ndarray], samples: int) -> MCRegression:
    """Return what a regression model predicts, from sums of deviations from the first outputs, and of their squares."""
    first, total, squares = np.empty(0), 0.0, 0.0
    for Y in outputs:
        first = first if first.size else Y[0]
        total = total + (Y - first).sum(axis=0)
        squares = squares + ((Y - first) ** 2).sum(axis=0)
    mean = np.asarray(total) / samples
    return MCRegression(first + mean, np.sqrt(np.maximum(np.asarray(squares) / samples - mean**2, 0)))
