"""The function edition of the chapter: what its readers call besides their framework's own functions.

How a step is taken and a net is called differs between frameworks (`Backend.learn`, `outputs`, `total_loss`); the
functions here find the backend by the arrays that they are given.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from d2ldrop.backend import AnyBackend, Array
from d2ldrop.data import BatchLoader, FashionMNIST
from d2ldrop.errors import ArgumentError, DataError
from d2ldrop.hyperparameters import number, whole
from d2ldrop.plots.board import ProgressBoard
from d2ldrop.plots.pictures import fitting, plain_images, show_images
from d2ldrop.randomness import streams
from d2ldrop.registry import backend_of

__all__ = [
    "Accumulator",
    "Animator",
    "Timer",
    "accuracy",
    "evaluate_accuracy",
    "evaluate_accuracy_gpu",
    "evaluate_loss",
    "get_fashion_mnist_labels",
    "load_fashion_mnist_for",
    "predict_ch3",
    "train_ch3",
    "train_ch6_for",
    "train_epoch_ch3",
]


class Accumulator:
    """Sums of `n` variables.

    Examples
    --------
    >>> metric = Accumulator(2)
    >>> metric.add(1, 10)
    >>> metric.add(2, 20)
    >>> metric[0], metric[1]
    (3.0, 30.0)
    """

    def __init__(self, n: int):
        self.data = [0.0] * n

    def add(self, *args: Any) -> None:
        """Add a number to each sum."""
        self.data = [total + float(value) for total, value in zip(self.data, args, strict=True)]

    def reset(self) -> None:
        """Set all sums to zero."""
        self.data = [0.0] * len(self.data)

    def __getitem__(self, i: int) -> float:
        return self.data[i]


class Timer:
    """Running times in seconds; the first begins when the timer is made."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.start()

    def start(self) -> None:
        """Begin a running time."""
        self._started = time.perf_counter()

    def stop(self) -> float:
        """End the running time, keep it, and return it."""
        self.times.append(time.perf_counter() - self._started)
        return self.times[-1]

    def avg(self) -> float:
        """Return the mean of the times."""
        return sum(self.times) / len(self.times)

    def sum(self) -> float:
        """Return the sum of the times."""
        return sum(self.times)

    def cumsum(self) -> list[float]:
        """Return the sums of the first, the first two, ... times."""
        return [float(total) for total in np.cumsum(self.times)]


class Animator:
    """Curves to which points are added together: animated in a notebook, silent in a script.

    Parameters
    ----------
    xlabel, ylabel, xlim, ylim, xscale, yscale
        The axes.
    legend
        The names of the curves.
    fmts
        matplotlib's formats of lines, repeated for more curves.
    nrows, ncols, figsize
        A grid of axes, the first of which is drawn on, and its size in inches.
    """

    def __init__(
        self,
        xlabel: str | None = None,
        ylabel: str | None = None,
        legend: Sequence[str] | None = None,
        xlim: tuple[float, float] | None = None,
        ylim: tuple[float, float] | None = None,
        xscale: str = "linear",
        yscale: str = "linear",
        fmts: Sequence[str] = ("-", "m--", "g-.", "r:"),
        nrows: int = 1,
        ncols: int = 1,
        figsize: tuple[float, float] = (3.5, 2.5),
    ):
        self.legend, figure, axes = list(legend or ()), None, None
        if nrows * ncols > 1:
            from matplotlib import pyplot as plt

            figure, grid = plt.subplots(nrows, ncols, figsize=figsize, squeeze=False, layout="constrained")
            axes = grid[0, 0]
        self.board = ProgressBoard(xlabel, ylabel, xlim, ylim, xscale, yscale, fmts, (), figure, axes, figsize)

    def add(self, x: Any, y: Any) -> None:
        """Add a point to each curve.

        Parameters
        ----------
        x, y
            A number, or a number per curve; a curve whose number is None gets no point.
        """
        ys = list(y) if hasattr(y, "__len__") else [y]
        xs = list(x) if hasattr(x, "__len__") else [x] * len(ys)
        for k, (across, up) in enumerate(zip(xs, ys, strict=True)):
            if across is not None and up is not None:
                self.board.draw(across, up, self.legend[k] if k < len(self.legend) else f"curve {k + 1}")


def load_fashion_mnist_for(kind: type[FashionMNIST]) -> Callable[..., tuple[BatchLoader, BatchLoader]]:
    """Return an adapter's `load_data_fashion_mnist`, given the class of its data."""

    def load_data_fashion_mnist(
        batch_size: int, resize: int | tuple[int, int] | None = None, *, seed: int | None = None
    ) -> tuple[BatchLoader, BatchLoader]:
        """Return batches of Fashion-MNIST to train on, reshuffled at each pass, and batches to test on.

        Parameters
        ----------
        batch_size
            The number of samples in a batch.
        resize
            The height and width of the images in pixels, together or as a pair; None leaves them as they are, 28.
        seed
            Decides on the orders. None: each comes from the global generator of the framework.

        Raises
        ------
        ArgumentTypeError, ArgumentError
            If `seed` is not an integer, or negative.
        """
        order = streams(seed).order
        data = kind(batch_size, resize or (28, 28))
        train, test = data.train_dataloader(), data.val_dataloader()
        if seed is not None:
            train.rng = np.random.default_rng(order)
        return train, test

    return load_data_fashion_mnist


def get_fashion_mnist_labels(labels: Any) -> list[str]:
    """Return the names of Fashion-MNIST's labels, given as integers or arrays of them."""
    return [FashionMNIST.CLASSES[int(label)] for label in labels]


def accuracy(y_hat: Array, y: Array) -> float:
    """Return the number of correct predictions.

    Parameters
    ----------
    y_hat
        Scores (N, K), or predicted labels (N,).
    y
        Labels (N,).
    """
    backend = backend_of(y)
    return float(backend.numpy(_num_correct(backend, y_hat, y)))


def evaluate_accuracy(net: Any, data_iter: Iterable[tuple[Array, Array]]) -> float:
    """Return the fraction of correct predictions, without dropout and gradients.

    Parameters
    ----------
    net
        A model of the framework, or a function of a batch of inputs.
    data_iter
        Batches (X, y).
    """
    correct, samples = [], 0
    for X, y in data_iter:
        backend = backend_of(X)
        correct.append(_num_correct(backend, backend.outputs(net, X), y))
        samples += len(y)
    return _mean(correct, samples)


def evaluate_accuracy_gpu(net: Any, data_iter: Iterable[tuple[Array, Array]], device: Any = None) -> float:
    """Return what `evaluate_accuracy` returns, with the batches moved to a device first.

    Parameters
    ----------
    net, data_iter
        As for `evaluate_accuracy`.
    device
        By default the one of the net's parameters, where the framework keeps them in the net.
    """
    batches = iter(data_iter)
    first = next(batches, None)
    if first is None:
        raise _no_batches()
    place = backend_of(first[0]).device_of_net(net) if device is None else device
    return evaluate_accuracy(net, _moved(chain([first], batches), place))


def evaluate_loss(net: Any, data_iter: Iterable[tuple[Array, Array]], loss: Any) -> float:
    """Return the mean loss over samples, without dropout and gradients.

    Parameters
    ----------
    net, data_iter
        As for `evaluate_accuracy`.
    loss
        The framework's loss, or a function of outputs and labels; averaged over the batch, or per sample.
    """
    losses, samples = [], 0
    for X, y in data_iter:
        backend = backend_of(X)
        losses.append(backend.total_loss(loss, backend.outputs(net, X), y))
        samples += len(y)
    return _mean(losses, samples)


def train_epoch_ch3(
    net: Any, train_iter: Iterable[tuple[Array, Array]], loss: Any, updater: Any
) -> tuple[float, float]:
    """Train on each batch once, with dropout on, and return mean loss and accuracy over samples.

    Parameters
    ----------
    net, train_iter, loss
        As for `evaluate_loss`.
    updater
        An optimiser of the framework, or a function of the batch size that changes the parameters by the gradients of
        the sum of the batch's losses; in TensorFlow and JAX, which keep gradients nowhere, these are the second
        argument.
    """
    losses, correct, samples = [], [], 0
    for X, y in train_iter:
        backend = backend_of(X)
        total, y_hat = backend.learn(net, X, y, loss, updater)
        losses.append(total)
        correct.append(_num_correct(backend, y_hat, y))
        samples += len(y)
    return _mean(losses, samples), _mean(correct, samples)


def train_ch3(
    net: Any,
    train_iter: Iterable[tuple[Array, Array]],
    test_iter: Iterable[tuple[Array, Array]],
    loss: Any,
    num_epochs: int,
    updater: Any,
    device: Any = None,
) -> list[dict[str, float]]:
    """Train, with dropout on, and animate the curves.

    Parameters
    ----------
    net, train_iter, loss, updater
        As for `train_epoch_ch3`.
    test_iter
        Batches to measure the accuracy on.
    num_epochs
        How often to go through `train_iter`.
    device
        Where to move each batch; by default it stays where it is.

    Returns
    -------
    list of dict
        A row per epoch: `epoch`, `train_loss`, `train_acc`, `test_acc`.
    """
    num_epochs = whole("num_epochs", num_epochs)
    animator = Animator(xlabel="epoch", xlim=(1, max(num_epochs, 2)), legend=["train loss", "train acc", "test acc"])
    history = []
    for epoch in range(1, num_epochs + 1):
        train_loss, train_acc = train_epoch_ch3(net, _moved(train_iter, device), loss, updater)
        test_acc = evaluate_accuracy(net, _moved(test_iter, device))
        animator.add(epoch, (train_loss, train_acc, test_acc))
        history.append({"epoch": epoch, "train_loss": train_loss, "train_acc": train_acc, "test_acc": test_acc})
    animator.board.finish()
    return history


def train_ch6_for(prepare: Callable[[Any, float, Any], tuple[Any, Any, Any]]) -> Callable[..., list[dict[str, float]]]:
    """Return an adapter's `train_ch6`; `prepare(net, lr, device)` returns net, loss and optimiser, on the device."""

    def train_ch6(
        net: Any,
        train_iter: Iterable[tuple[Array, Array]],
        test_iter: Iterable[tuple[Array, Array]],
        num_epochs: int,
        lr: float,
        device: Any = None,
    ) -> list[dict[str, float]]:
        """Initialise a net's weights by Glorot's rule, and train it with cross-entropy and SGD on a device.

        Parameters
        ----------
        net
            A model of the framework; in TensorFlow a function that returns one.
        train_iter, test_iter, num_epochs
            As for `train_ch3`.
        lr
            The learning rate.
        device
            By default the CPU.

        Returns
        -------
        list of dict
            As of `train_ch3`.

        Notes
        -----
        Source of the rule: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
        networks, AISTATS 2010.
        """
        net, loss, updater = prepare(net, number("lr", lr), device)
        return train_ch3(net, train_iter, test_iter, loss, num_epochs, updater, device)

    return train_ch6


def predict_ch3(net: Any, test_iter: Iterable[tuple[Array, Array]], n: int = 6) -> np.ndarray:
    """Draw the first `n` images of the first batch below their true and predicted labels; return the axes."""
    X, y = next(iter(test_iter))
    backend = backend_of(X)
    guessed = backend.numpy(backend.outputs(net, X)).argmax(axis=1)
    pairs = zip(get_fashion_mnist_labels(y[:n]), get_fashion_mnist_labels(guessed[:n]), strict=True)
    titles = ["\n".join(pair) for pair in pairs]
    return show_images(plain_images(X)[:n], 1, n, titles=titles, scale=fitting(n))


def _moved(batches: Iterable[tuple[Array, ...]], device: Any) -> Iterator[tuple[Array, ...]]:
    """Yield batches on a device; None leaves them where they are."""
    for batch in batches:
        yield batch if device is None else backend_of(batch[0]).place(batch, device)


def _num_correct(backend: AnyBackend, y_hat: Array, y: Array) -> Array:
    """Return how many predictions are right, on the device, if there is a label for each; none is broadcast."""
    shape = tuple(y_hat.shape)
    if shape[1:] == (1,):  # labels as a column, or the output of a regression: the largest score is always the first
        raise ArgumentError(f"Expected scores (N, K) of two or more classes, or labels (N,). Received: {shape}")
    expected = shape[:1] + shape[2:]  # scores are along axis 1
    if tuple(y.shape) != expected:
        raise ArgumentError(f"Expected labels {expected} for predictions {shape}. Received: {tuple(y.shape)}")
    return backend.num_correct(y_hat, y)


def _mean(totals: Sequence[Array], samples: int) -> float:
    """Fetch numbers from the device, add them, and divide by the number of samples."""
    if not samples:
        raise _no_batches()
    return sum(float(backend_of(total).numpy(total)) for total in totals) / samples


def _no_batches() -> DataError:
    return DataError("Expected batches of samples. Received none: pass a loader that can be gone through again.")
