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
    by_hand.backend.build(model, (X,), "cpu")
    for param in model.parameters():
        setattr(param.layer, param.name, param.value.astype(np.float64))
    return model, X, y


def loss_with_masks(model, X, y, seed=1):
    """Return the training loss under masks that a seed determines."""
    model.train()
    with sharing_masks(np.random.Generator(np.random.Philox(seed))):
        return float(model.loss(model(X), y))


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_agree_with_numerical_differentiation(kind, small):
    model, X, y = in_float64(kind, small)
    loss_with_masks(model, X, y)
    model.backward(model.dloss)
    step, rng = 1e-6, np.random.default_rng(2)
    for param in model.parameters():
        values, grads = param.value, param.grad
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
    in_torch.backend.build(other, (torch.tensor(X),), in_torch.cpu())
    in_torch.set_weights(other, by_hand.get_weights(model))
    other.train()
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        other_loss = other.loss(other(torch.tensor(X)), torch.tensor(y))
    other_loss.backward()
    assert loss == pytest.approx(other_loss.item(), rel=1e-12)
    linear = [layer for layer in other.modules() if isinstance(layer, torch.nn.Linear)]
    mine = [param.grad for param in model.parameters()]
    its = [grad.numpy() for layer in linear for grad in (layer.weight.grad.T, layer.bias.grad)]
    for a, b in zip(mine, its, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-12)


def test_scratch_and_concise_are_the_same_function(small):
    scratch, X, y = in_float64("DropoutMLPScratch", small)
    concise, _, _ = in_float64("DropoutMLP", small)
    by_hand.set_weights(concise, by_hand.get_weights(scratch))
    assert loss_with_masks(scratch, X, y) == loss_with_masks(concise, X, y)
    scratch.backward(scratch.dloss)
    concise.backward(concise.dloss)
    for a, b in zip(scratch.parameters(), concise.parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad)


def test_softmax_and_cross_entropy_stay_in_range():
    Z = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]])
    np.testing.assert_allclose(by_hand.softmax(Z), [[1, 0, 0], [1 / 3] * 3])
    np.testing.assert_allclose(by_hand.cross_entropy(Z, np.array([1, 2])), [1e4, np.log(3)])


def test_layers_pass_the_gradient_on_to_their_inputs():
    """The gradient with respect to the data is left out in training, but a layer inside a network needs it."""
    by_hand.seed(0)
    net = by_hand.Sequential(by_hand.Flatten(), by_hand.Linear(5), by_hand.ReLU(), by_hand.Linear(3))
    X, y, step = np.random.default_rng(0).standard_normal((4, 2, 3)), np.array([0, 2, 1, 1]), 1e-4
    dX = net.backward(by_hand.cross_entropy_backward(net(X), y))
    for index in np.ndindex(*X.shape):
        shift = np.zeros_like(X)
        shift[index] = step
        above, below = (by_hand.cross_entropy(net(X + sign * shift), y).mean() for sign in (1, -1))
        assert dX[index] == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-5)


def test_gradients_leave_out_what_only_the_input_needs(monkeypatch):
    net = by_hand.Sequential(by_hand.Flatten(), by_hand.Linear(5), by_hand.ReLU(), by_hand.Linear(3))
    X, y = np.random.default_rng(0).standard_normal((4, 2, 3)), np.array([0, 2, 1, 1])
    dY = by_hand.cross_entropy_backward(net(X), y)
    net.backward(dY)
    expected = [param.grad.copy() for param in net.parameters()]
    monkeypatch.setattr(type(net.sequence[0]), "backward", None)  # the first layer's input is the data
    net.gradients(dY)
    for param, grad in zip(net.parameters(), expected, strict=True):
        np.testing.assert_array_equal(param.grad, grad)
