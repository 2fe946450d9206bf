"""Dropout from *Dive into Deep Learning*, by hand and in every framework: `from d2ldrop import torch as d2l`.

No framework is imported before it is asked for.
"""

from d2ldrop.data import ArrayData, Digits, FashionMNIST
from d2ldrop.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    CheckpointError,
    D2LDropError,
    DataError,
    DataNotFoundError,
    DivergedError,
    StudyError,
    UsageError,
    WeightsError,
)
from d2ldrop.noise import (
    alpha_dropout_layer,
    channel_dropout_layer,
    dropconnect_layer,
    gaussian_dropout_layer,
    input_noise,
)
from d2ldrop.registry import available, backend, dropout_layer, register_backend
from d2ldrop.training.activations import ActivationStats
from d2ldrop.training.callbacks import Callback, CSVLog, EarlyStopping, LRSchedule
from d2ldrop.training.checkpoints import Checkpoint
from d2ldrop.training.trainer import Trainer
from d2ldrop.training.weights import load_model, load_weights, read_weights, save_weights
from d2ldrop.uncertainty import MCPrediction, MCRegression, mc_predict, predict_proba

__version__ = "0.1.0"

__all__ = [
    "ActivationStats",
    "ArgumentError",
    "ArgumentTypeError",
    "ArrayData",
    "BackendError",
    "CSVLog",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "D2LDropError",
    "DataError",
    "DataNotFoundError",
    "Digits",
    "DivergedError",
    "EarlyStopping",
    "FashionMNIST",
    "LRSchedule",
    "MCPrediction",
    "MCRegression",
    "StudyError",
    "Trainer",
    "UsageError",
    "WeightsError",
    "alpha_dropout_layer",
    "available",
    "backend",
    "channel_dropout_layer",
    "dropconnect_layer",
    "dropout_layer",
    "gaussian_dropout_layer",
    "input_noise",
    "load_model",
    "load_weights",
    "mc_predict",
    "predict_proba",
    "read_weights",
    "register_backend",
    "save_weights",
]
