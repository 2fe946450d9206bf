"""The oracle itself: NumPy's gradients against numerical differentiation, and against torch's."""

import numpy as np
import pytest

import d2ldrop
from d2ldrop import numpy as by_hand
from d2ldrop.randomness import sharing_masks

MODELS = ["DropoutMLPScratch", "DropoutMLP", "SoftmaxRegression"]


def in_float64(kind, small):
    """Return a built model in double precision, and a batch."""
    hparams = small if kind != "SoftmaxRegression" else {"num_outputs": 10, "lr": 0.5}
    by_hand.seed(0)
    model = getattr(by_hand, kind)(**hparams)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, 1, 4, 5)), rng.integers(0, 10, 12)
    by_hand.build(model, (X,), "cpu")
    for layer in model.parameters():
        layer.W, layer.b = layer.W.astype(np.float64), layer.b.astype(np.float64)
    return model, X, y


def loss_with_masks(model, X, y, seed=1):
    """Return the training loss under masks that a seed determines."""
    model.train()
    with sharing_masks(np.random.Generator(np.random.Philox(seed))):
        return float(model.loss(model(X), y))


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_agree_with_numerical_differentiation(kind, small):
    model, X, y = in_float64(kind, small)
    model.parameters()[0].first = False  # also that with respect to the data
    loss_with_masks(model, X, y)
    dX = model.backward(model.dloss).reshape(X.shape)
    step, rng = 1e-6, np.random.default_rng(2)
    pairs = [(X, dX)] + [pair for layer in model.parameters() for pair in ((layer.W, layer.dW), (layer.b, layer.db))]
    for values, grads in pairs:
        assert values.shape == grads.shape
        for index in {tuple(rng.integers(0, n) for n in values.shape) for _ in range(20)}:
            old = values[index]
            values[index] = old + step
            above = loss_with_masks(model, X, y)
            values[index] = old - step
            below = loss_with_masks(model, X, y)
            values[index] = old
            np.testing.assert_allclose(grads[index], (above - below) / (2 * step), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "SoftmaxRegression"])
def test_gradients_agree_with_those_of_torch(kind, small):
    torch = pytest.importorskip("torch")
    in_torch = d2ldrop.backend("torch")
    model, X, y = in_float64(kind, small)
    loss = loss_with_masks(model, X, y)
    model.backward(model.dloss)

    other = getattr(in_torch, kind)(**model.hparams).double()
    in_torch.build(other, (torch.tensor(X),), in_torch.cpu())
    in_torch.set_weights(other, by_hand.get_weights(model))
    other.train()
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        other_loss = other.loss(other(torch.tensor(X)), torch.tensor(y))
    other_loss.backward()
    assert loss == pytest.approx(other_loss.item(), rel=1e-12)
    linear = [layer for layer in other.modules() if isinstance(layer, torch.nn.Linear)]
    for mine, its in zip(model.parameters(), linear, strict=True):
        np.testing.assert_allclose(mine.dW.T, its.weight.grad.numpy(), rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(mine.db, its.bias.grad.numpy(), rtol=1e-5, atol=1e-12)


def test_scratch_and_concise_are_the_same_function(small):
    scratch, X, y = in_float64("DropoutMLPScratch", small)
    concise, _, _ = in_float64("DropoutMLP", small)
    by_hand.set_weights(concise, by_hand.get_weights(scratch))
    assert loss_with_masks(scratch, X, y) == loss_with_masks(concise, X, y)
    scratch.backward(scratch.dloss)
    concise.backward(concise.dloss)
    for a, b in zip(scratch.parameters(), concise.parameters(), strict=True):
        np.testing.assert_array_equal(a.dW, b.dW)


def test_softmax_and_cross_entropy_stay_in_range():
    Z = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]])
    np.testing.assert_allclose(by_hand.softmax(Z), [[1, 0, 0], [1 / 3] * 3])
    np.testing.assert_allclose(by_hand.cross_entropy(Z, np.array([1, 2])), [1e4, np.log(3)])
