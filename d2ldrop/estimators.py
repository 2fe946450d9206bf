"""Estimators for scikit-learn: the chapter's network on your own data, in pipelines, searches and cross-validation.

`import d2ldrop` does not import this module, which imports scikit-learn.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from d2ldrop.data import ArrayData
from d2ldrop.errors import ArgumentError
from d2ldrop.hyperparameters import number, positive
from d2ldrop.randomness import probability
from d2ldrop.registry import get_backend
from d2ldrop.training.callbacks import Callback, EarlyStopping, Training
from d2ldrop.training.checks import gpus
from d2ldrop.training.trainer import Trainer

__all__ = ["DropoutClassifier", "DropoutRegressor"]


class _Continued(Callback):
    """Begins a training with the optimiser's memory of an earlier one, and keeps it for the next."""

    def __init__(self, memory: Mapping[str, np.ndarray] | None):
        self.memory = memory

    def on_fit_start(self, trainer: Training) -> None:
        """Set the memory, now that there is an optimiser."""
        if self.memory is not None:
            trainer.state = trainer.backend.set_optimizer_state(trainer.state, self.memory)

    def on_fit_end(self, trainer: Training) -> None:
        """Keep the memory."""
        self.memory = trainer.backend.optimizer_state(trainer.state)


class _DropoutEstimator(BaseEstimator):
    """What both estimators share: hyperparameters, checks of samples, training, and outputs."""

    _model_name: str
    """The class of the model, in `Backend.models`."""

    model_: Any
    history_: list[dict[str, float]]
    _memory: Mapping[str, np.ndarray] | None

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (256, 256),
        dropout: float | Sequence[float] = 0.5,
        *,
        backend: str = "numpy",
        optimizer: str = "adam",
        learning_rate_init: float = 0.001,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        batch_size: int | str = "auto",
        max_iter: int = 100,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        random_state: Any = None,
        device: str = "cpu",
        verbose: bool = False,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.backend = backend
        self.optimizer = optimizer
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _checked(self, X: Any, **options: Any) -> Any:
        """Return samples, checked, as float32; with `y` among the options, samples and targets."""
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that are too large become inf, which is refused
            return validate_data(self, X, dtype=np.float32, **options)

    def _new_model(self, num_outputs: int, **hparams: Any) -> Any:
        """Return the network that the hyperparameters describe."""
        sizes: Any = [self.hidden_layer_sizes] if np.ndim(self.hidden_layer_sizes) == 0 else self.hidden_layer_sizes
        rates: Any = [self.dropout] * len(sizes) if np.ndim(self.dropout) == 0 else self.dropout
        if len(rates) != len(sizes):
            raise ArgumentError(
                f"Expected dropout to be a number, or one for each of {len(sizes)} layers. Received: {self.dropout!r}"
            )
        return get_backend(self.backend).models[self._model_name](
            num_outputs,
            num_hiddens=[positive("hidden_layer_sizes", size) for size in sizes],
            dropouts=[probability(rate) for rate in rates],
            lr=number("learning_rate_init", self.learning_rate_init),
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            optimizer=self.optimizer,
            **hparams,
        )

    def _trainer(self, max_epochs: int = 1, **options: Any) -> Trainer:
        """Return a trainer on the device, silent unless `verbose`."""
        num_gpus = gpus(get_backend(self.backend), self.device)
        return Trainer(max_epochs, num_gpus, progress=None if self.verbose else False, **options)

    def _learn(self, X: np.ndarray, y: np.ndarray, new_model: Any = None, whole: bool = False) -> Self:
        """Train a new model, or the fitted one further: for one epoch or, if `whole`, to the end."""
        if new_model is not None:
            self._random_state = check_random_state(self.random_state)
            model, memory, history = new_model, None, []
        else:
            model, memory, history = self.model_, self._memory, self.history_
        batch_size = min(200, len(X)) if self.batch_size == "auto" else positive("batch_size", self.batch_size)
        X_val, y_val = X[:0], y[:0]
        callbacks: list[Callback] = [continued := _Continued(memory)]
        if whole and self.early_stopping:
            X, X_val, y, y_val = train_test_split(
                X,
                y,
                test_size=self.validation_fraction,
                random_state=self._random_state,
                stratify=y if is_classifier(self) else None,
            )
            patience = positive("n_iter_no_change", self.n_iter_no_change)
            callbacks.append(EarlyStopping("val_loss", patience, number("tol", self.tol), restore_best=True))
        seed = self._random_state.randint(2**31 - 1)
        trainer = self._trainer(positive("max_iter", self.max_iter) if whole else 1, seed=seed, callbacks=callbacks)
        trainer.fit(model, ArrayData(X, y, X_val, y_val, batch_size, regression=not is_classifier(self)))
        rows = [{**row, "epoch": k} for k, row in enumerate(trainer.history, start=len(history) + 1)]
        self.model_, self._memory, self.history_ = model, continued.memory, history + rows
        self.loss_curve_ = [row["train_loss"] for row in self.history_]
        self.n_iter_ = len(self.history_)
        return self

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the outputs of the model for samples, without dropout."""
        check_is_fitted(self, "model_")
        return self._trainer().predict(self._checked(X, reset=False), self.model_)


class DropoutClassifier(ClassifierMixin, _DropoutEstimator):
    """A network with dropout after each hidden layer, for classification.

    Parameters
    ----------
    hidden_layer_sizes
        The width of each hidden layer; a number is one layer.
    dropout
        The probability of dropping an activation: a number, or one for each hidden layer.
    backend
        The framework, one of `d2ldrop.available()`.
    optimizer
        `"adam"`, `"adamw"` or `"sgd"`, the framework's own.
    learning_rate_init
        The learning rate.
    weight_decay
        Times each parameter, biases too, it is added to the gradient; with `"adamw"`, parameters shrink by the
        learning rate times it instead.
    momentum
        That of `"sgd"`.
    batch_size
        The number of samples in a batch; `"auto"` is 200, or all samples if they are fewer.
    max_iter
        The number of epochs of `fit`.
    early_stopping
        Whether `fit` sets samples aside, ends when their loss has not improved for some epochs, and gives the model the
        weights of the best epoch.
    validation_fraction
        The part of the samples of each class that is then set aside.
    n_iter_no_change, tol
        After how many epochs without improvement `fit` then ends, and by how much the loss must fall to improve.
    class_weight
        The weight of each class in the loss, as a dictionary; `"balanced"` is inversely proportional to how often each
        occurs.
    random_state
        An integer, or a `numpy.random.RandomState`, makes training repeatable: from it come the initial weights, the
        order of the samples, the dropout masks, and which samples are set aside. None: NumPy's global one.
    device
        `"cpu"`, `"gpu"`, or `"auto"` for a GPU if the framework sees one.
    verbose
        Whether to show the progress.

    Attributes
    ----------
    classes_ : numpy.ndarray
        The labels, sorted; the columns of probabilities are in this order.
    model_ : Module
        The trained model, of the class `DropoutMLP` of the backend.
    history_ : list of dict
        A row for each epoch, as in `Trainer.history`; `loss_curve_` has the mean losses under dropout, and `n_iter_`
        is their number.
    n_features_in_, feature_names_in_
        How many features samples have and, if they came in a data frame with names, which.

    Notes
    -----
    `X` is (N, features), dense; all numbers, integers among them, become float32. Scale them: see the example. Where a
    parameter means the same as in scikit-learn's `MLPClassifier`, it has the same name.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> network = DropoutClassifier((32, 32), dropout=0.2, learning_rate_init=0.01, random_state=0)
    >>> make_pipeline(StandardScaler(), network).fit(X, y).score(X, y) > 0.9
    True
    """

    _model_name = "DropoutMLP"

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (256, 256),
        dropout: float | Sequence[float] = 0.5,
        *,
        backend: str = "numpy",
        optimizer: str = "adam",
        learning_rate_init: float = 0.001,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        batch_size: int | str = "auto",
        max_iter: int = 100,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        class_weight: Mapping[Any, float] | str | None = None,
        random_state: Any = None,
        device: str = "cpu",
        verbose: bool = False,
    ):
        super().__init__(
            hidden_layer_sizes,
            dropout,
            backend=backend,
            optimizer=optimizer,
            learning_rate_init=learning_rate_init,
            weight_decay=weight_decay,
            momentum=momentum,
            batch_size=batch_size,
            max_iter=max_iter,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            random_state=random_state,
            device=device,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new network.

        Parameters
        ----------
        X
            Samples (N, features), a dense array or a data frame.
        y
            Labels (N,), numbers or texts.

        Raises
        ------
        ValueError, TypeError
            If `X` or `y` is not of this kind, or a hyperparameter is wrong. Errors of training are those of
            `Trainer.fit`.
        """
        X, y = self._checked(X, y=y)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        return self._learn(X, np.searchsorted(self.classes_, y), self._new_classifier(y), whole=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Train the network, a new one at the first call, for one epoch; errors as for `fit`.

        Parameters
        ----------
        X, y
            As for `fit`. Early stopping is without effect here.
        classes
            All labels that there will be; needed at the first call.
        """
        if isinstance(self.class_weight, str):
            raise ArgumentError(
                f"Expected class_weight to be a dictionary or None: partial_fit does not see all labels at once. "
                f"Received: {self.class_weight!r}"
            )
        new = not hasattr(self, "model_")
        X, y = self._checked(X, y=y, reset=new)
        check_classification_targets(y)
        if new:
            if classes is None:
                raise ArgumentError("Expected classes, all labels that there will be. Received none at the first call.")
            self.classes_ = np.unique(classes)
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ArgumentError(f"Expected classes to be those of the first call, {self.classes_}. Received: {classes}")
        if len(other := np.setdiff1d(y, self.classes_)):
            raise ArgumentError(f"Expected y to hold labels among {self.classes_}. Received: {other.tolist()[0]!r}")
        return self._learn(X, np.searchsorted(self.classes_, y), self._new_classifier(y) if new else None)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each sample, (N,)."""
        chosen = self._outputs(X).argmax(axis=1)
        labels: np.ndarray = self.classes_[chosen]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, float32 (N, classes), in the order of `classes_`."""
        probabilities: np.ndarray = softmax(self._outputs(X), axis=1)
        return probabilities

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of `predict_proba`."""
        logarithms: np.ndarray = log_softmax(self._outputs(X), axis=1)
        return logarithms

    def _new_classifier(self, y: np.ndarray) -> Any:
        """Return a new network for the classes, with their weights."""
        weights = None
        if self.class_weight is not None:
            weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        return self._new_model(len(self.classes_), class_weights=weights)


class DropoutRegressor(RegressorMixin, _DropoutEstimator):
    """A network with dropout after each hidden layer, for regression.

    Its parameters and attributes are those of `DropoutClassifier`, without those of classes. It learns the squared loss
    of one target or of several; scale them as well, with scikit-learn's `TransformedTargetRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 100)[:, np.newaxis]
    >>> model = DropoutRegressor((32, 32), 0.1, learning_rate_init=0.01, random_state=0)
    >>> model.fit(X, np.abs(X[:, 0])).score(X, np.abs(X[:, 0])) > 0.8
    True
    """

    _model_name = "DropoutMLPRegressor"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new network.

        Parameters
        ----------
        X
            Samples (N, features), a dense array or a data frame.
        y
            Targets (N,) or (N, targets), numbers that are finite as float32.

        Raises
        ------
        ValueError, TypeError
            If `X` or `y` is not of this kind, or a hyperparameter is wrong. Errors of training are those of
            `Trainer.fit`.
        """
        X, y = self._with_targets(X, y, reset=True)
        return self._learn(X, y, self._new_regressor(y), whole=True)

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Train the network, a new one at the first call, for one epoch; `X`, `y` and errors as for `fit`."""
        new = not hasattr(self, "model_")
        X, y = self._with_targets(X, y, reset=new)
        if not new and y.shape[1:] != self._shape:
            raise ArgumentError(f"Expected targets of shape (N, {self._shape}) as at first. Received: {y.shape}")
        return self._learn(X, y, self._new_regressor(y) if new else None)

    def predict(self, X: Any) -> np.ndarray:
        """Return the targets of samples, float32 (N,) or (N, targets) as they were given to `fit`."""
        outputs = self._outputs(X)
        return outputs.reshape(len(outputs), *self._shape)

    def _with_targets(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return samples and targets, checked, as float32."""
        X, y = self._checked(X, y=y, reset=reset, multi_output=True, y_numeric=True)
        with np.errstate(over="ignore", invalid="ignore"):
            y = np.asarray(y, np.float32)
            assert_all_finite(y, input_name="y")
        return X, y

    def _new_regressor(self, y: np.ndarray) -> Any:
        """Return a new network for such targets."""
        self._shape = y.shape[1:]
        return self._new_model(y[0].size)
