"""What the exercises' runs share: data that a process loads once, a training, and what is measured without dropout."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from d2ldrop.data import Digits, FashionMNIST, ImageData
from d2ldrop.data.splits import validation_last
from d2ldrop.registry import get_backend
from d2ldrop.studies.compare import CHAPTER
from d2ldrop.training.callbacks import Callback, Training
from d2ldrop.training.trainer import Trainer

__all__ = ["BATCH_SIZES", "DATA", "TrainingSamples", "fitted", "held_out", "load", "seen"]

DATA: dict[str, Callable[..., ImageData]] = {"fashion-mnist": FashionMNIST, "digits": Digits}
BATCH_SIZES = {"fashion-mnist": 256, "digits": 16}  # 256 would leave the digits, 1,437 of them, too few steps


@lru_cache(maxsize=1)
def load(name: str) -> ImageData:
    """Return a data set, read when this process first asks for it; its batches are those of the command line."""
    return DATA[name](batch_size=BATCH_SIZES[name])


@lru_cache(maxsize=1)
def seen(name: str, count: int = 10_000) -> ImageData:
    """Return the first training samples of a data set in the place of those to validate on.

    `trainer.evaluate(data=seen(name))` is then the accuracy on what was trained on, without dropout.
    """
    data = load(name)
    X, y = data.split(train=True)
    X, y = X[:count, 0], y[:count]
    return ImageData(X, y, X, y, data.batch_size, data.class_names)


@lru_cache(maxsize=1)
def held_out(name: str) -> ImageData:
    """Return the training samples of a data set, of which a sixth, always the same, is held out to validate on.

    Of Fashion-MNIST these are 10,000 of 60,000. So settings can be chosen without the samples to test on, which are
    the validation samples of `load`.
    """
    data = load(name)
    X, y = data.split(train=True)
    order = validation_last(y, shuffle=True)
    rest, held = order[: -(len(y) // 6)], order[-(len(y) // 6) :]
    return ImageData(X[rest, 0], y[rest], X[held, 0], y[held], data.batch_size, data.class_names)


def fitted(
    seed: int,
    *,
    backend: str,
    data: str | ImageData,
    epochs: int,
    model: str | Callable[..., Any] = "DropoutMLPScratch",
    callbacks: Sequence[Callback] = (),
    **hparams: Any,
) -> Trainer:
    """Return a trainer that has trained one of the chapter's models.

    The same seed means the same initial weights and order of the samples, whatever the hyperparameters: so differences
    between settings are taken seed by seed.

    Parameters
    ----------
    seed, epochs, callbacks
        As for `Trainer`.
    backend, data, model
        The names of a backend, of a data set in `DATA`, and of the model's class; or a data set, or a class.
    hparams
        Hyperparameters that replace those of the chapter.
    """
    samples = load(data) if isinstance(data, str) else data
    kind = get_backend(backend).models[model] if isinstance(model, str) else model
    trainer = Trainer(epochs, seed=seed, callbacks=callbacks, progress=False)
    trainer.fit(kind(num_outputs=samples.num_classes, **{**CHAPTER, **hparams}), samples)
    return trainer


class TrainingSamples(Callback):
    """Measures loss and accuracy on training samples after each epoch, without dropout.

    Parameters
    ----------
    data
        The name of the data set; its first 10,000 training samples are used, see `seen`.
    """

    def __init__(self, data: str):
        self.data = data
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    def on_epoch_end(self, trainer: Training) -> None:
        """Measure."""
        measured = trainer.evaluate(data=seen(self.data))
        self.losses.append(measured["val_loss"])
        self.accuracies.append(measured["val_acc"])
