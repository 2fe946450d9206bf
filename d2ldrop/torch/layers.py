"""The layer to use in place of `nn.Dropout`, and what puts it into a network that is already there."""

import sys
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

from d2ldrop.errors import ArgumentTypeError
from d2ldrop.randomness import odds
from d2ldrop.torch.lesson import dropout_layer

ModelT = TypeVar("ModelT", bound=nn.Module)


class Dropout(nn.Dropout):
    """`dropout_layer` in training mode, the identity in evaluation mode; arguments as for `nn.Dropout`.

    Parameters
    ----------
    p
        The probability of dropping an element, a real number in [0, 1].
    inplace
        Whether to change the input itself, which must hold floats then. This saves no memory while it runs.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `p` is not a real number in [0, 1].
    """

    def __init__(self, p: float = 0.5, inplace: bool = False):
        odds(p, "p")
        super().__init__(p, inplace)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name
        """Return a tensor of the input's shape, dtype and device, under dropout while training."""
        if isinstance(input, fx.Proxy):  # `symbolic_trace` looks into layers that are not PyTorch's, unless told so
            return input.tracer.create_proxy("call_module", input.tracer.path_of_module(self), (input,), {})
        if not self.training:
            return input
        Y = dropout_layer(input, self.p)
        if not self.inplace or Y is input:
            return Y
        if Y.dtype != input.dtype:
            raise ArgumentTypeError(f"Expected floats for dropout in place. Received: {input.dtype}")
        return input.copy_(Y)


def replace_dropout(model: ModelT, back: bool = False) -> ModelT:
    """Change every `nn.Dropout` of a network, and the network if it is one, into our `Dropout`, in place.

    The layers stay the same objects: names, modes, hooks, `state_dict`, and layers used twice are as before.

    Parameters
    ----------
    model
        Any network.
    back
        Whether to change every `Dropout` of ours into `nn.Dropout` instead.

    Returns
    -------
    nn.Module
        The same network.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `model` is no network, or a layer's `p` is not a real number in [0, 1]; then no layer is changed.

    Notes
    -----
    Subclasses of `nn.Dropout`, and `nn.Dropout1d`, `nn.AlphaDropout` and so on, stay. So does what drops without a
    layer: the attention weights of `nn.MultiheadAttention`, the layers of `nn.LSTM`, calls of `F.dropout`. What PyTorch
    has compiled until then, it compiles anew.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"Expected model to be a network, an nn.Module. Received: {model!r}")
    old, new = (Dropout, nn.Dropout) if back else (nn.Dropout, Dropout)
    layers = [layer for layer in model.modules() if type(layer) is old]
    for layer in layers:
        odds(layer.p, "p")
    for layer in layers:
        layer.__class__ = new  # both have the same attributes
    if layers and "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # code that PyTorch 2.11 has compiled does not notice another class
    return model
