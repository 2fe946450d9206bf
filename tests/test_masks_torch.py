"""The masks of PyTorch: shared draws, the draws of other noise, and which tensors they take."""

import math

import numpy as np
import pytest
from dropping_torch import (
    FLOATS,
    check,
    masks,
    torch,
    with_gradient,
)

import d2ldrop
from d2ldrop.randomness import odds, sharing_masks

pytestmark = pytest.mark.only_torch


# Shared draws, and the draws of other noise


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", [0.5, 0.25, 0.3])
def test_elements_along_axes_share_a_draw(d2l, p, dtype):
    X = torch.ones(40, 50, 3, 5, dtype=getattr(torch, dtype))
    for axes in ((2, 3), (-1, 2), [0], (1, 3)):
        Y, dX = with_gradient(lambda X, axes=axes: d2l.dropout_layer(X, p, axes=axes), X)
        shared = [k % 4 for k in axes]
        first = Y[tuple(slice(1) if k in shared else slice(None) for k in range(4))]
        assert torch.equal(Y, first.expand_as(Y))
        check(first, p=odds(p).threshold / 2 ** odds(p).bits)
        assert torch.equal(dX, Y)
    for wrong in (4, -5):
        with pytest.raises(d2ldrop.ArgumentError, match=f"Expected axes of an array of 4 axes. Received: {wrong}"):
            d2l.dropout_layer(X, p, axes=(wrong,))


def test_a_dropped_inf_is_zero_along_axes_too(d2l):
    Y = d2l.dropout_layer(torch.full((100, 4), torch.inf), 0.5, axes=(1,))
    assert set(Y.unique().tolist()) == {0, torch.inf}


def plain_mask(count, p):
    """Compare, element by element, a number whose binary digits are bits of PyTorch's generator with p."""
    numbers = masks.digits(odds(p))
    words = torch.empty((len(numbers), -(-count // 64)), dtype=torch.int64).random_(-(2**63), None)
    coins = np.unpackbits(words.numpy().view(np.uint8), axis=1, bitorder="little")[:, :count]
    weights = 0.5 ** np.arange(len(numbers), 0, -1)  # the last digit comes first
    return weights @ coins >= weights @ numbers


@pytest.mark.parametrize("p", [0.5, 0.25, 0.75, 0.3, 0.2, 1 / 256, 2**-16, 1 - 2**-16])
def test_comparing_digit_by_digit_is_comparing(d2l, p):
    """All ways, that of eager code and those of transforms and compilers, take the same bits from a seed."""
    X = torch.ones(1000, 77)
    torch.manual_seed(3)
    expected = torch.from_numpy(plain_mask(X.numel(), p)).view(X.shape)
    eager_state = torch.get_rng_state()
    assert sum(digit * 0.5 ** (k + 1) for k, digit in enumerate(reversed(masks.digits(odds(p))))) == odds(p).p
    torch.manual_seed(3)
    assert torch.equal(d2l.backend.keep_mask(X, odds(p)), expected)
    torch.manual_seed(3)
    assert torch.equal(d2l.dropout_layer(X, p) != 0, expected)
    torch.manual_seed(3)
    gradient = torch.func.grad(lambda X: d2l.dropout_layer(X, p).sum())(X)
    assert torch.equal(gradient != 0, expected)
    assert torch.equal(torch.get_rng_state(), eager_state)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axes", [(), (1,)])
def test_the_table_of_bytes_does_what_masks_do(d2l, monkeypatch, dtype, axes):
    """`drop` gives the same bits as `draw_mask` and `masked`, forward and backward, whatever the numbers are."""
    X = torch.randn(100, 33).to(getattr(torch, dtype))
    X[::3, ::5], X[1::3, ::5], X[2::3, 1::5] = torch.inf, torch.nan, -torch.inf
    for p in (0.5, 0.2, 1 - 2**-16, 1):
        results = []
        for eager in (True, False):
            monkeypatch.setattr("d2ldrop.torch.lesson.drawn_eagerly", lambda X, eager=eager: eager)
            torch.manual_seed(5)
            results.append(with_gradient(lambda X, p=p: d2l.dropout_layer(X, p, axes=axes), X))
        for ours, plain in zip(*results, strict=True):
            torch.testing.assert_close(ours, plain, rtol=0, atol=0, equal_nan=True)


def test_keep_masks_of_the_seam(d2l):
    X = torch.ones(200, 100)
    for p in (0.5, 0.25, 0.3):
        keep = d2l.backend.keep_mask(X, odds(p))
        assert keep.dtype == torch.bool
        check(keep.float() / (1 - p), d2l.backend.keep_mask(X, odds(p)).float() / (1 - p), p=p)
    assert d2l.backend.keep_mask(X, odds(0)).all()
    assert not d2l.backend.keep_mask(X, odds(1)).any()
    assert d2l.backend.keep_mask(X, odds(0.5), axes=(0,)).shape == (1, 100)


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal_numbers_of_the_seam(d2l, dtype):
    X = torch.ones(300, 400, dtype=getattr(torch, dtype)).T
    drawn = [d2l.backend.normal_like(X) for _ in range(2)]
    for Z in drawn:
        assert (Z.dtype, Z.shape) == (X.dtype, X.shape)
        Z = Z.double()
        n = Z.numel()
        assert abs(Z.mean()) < 5 / math.sqrt(n) + 1e-4
        assert abs(Z.var() - 1) < 5 * math.sqrt(2 / n) + 1e-3
        assert abs((Z**4).mean() - 3) < 5 * math.sqrt(96 / n) + 1e-2
    assert not torch.equal(*drawn)
    kept = d2l.backend.where(X > 0, X, -1.5), d2l.backend.where(X < 0, X, -1.5)
    assert all(Y.dtype == X.dtype for Y in kept)
    assert [Y.unique().tolist() for Y in kept] == [[1], [-1.5]]


def test_seeds_and_shared_generators_decide_normal_numbers(d2l):
    X = torch.ones(5, 7)
    seeded = [(d2l.seed(seed), d2l.backend.normal_like(X))[1] for seed in (1, 1, 2)]
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.equal(seeded[0], seeded[2])
    before = d2l.backend.entropy
    d2l.seed(5)
    with d2l.backend.isolated():
        d2l.backend.normal_like(X)
    after = before()
    d2l.seed(5)
    assert before() == after
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        Z = d2l.backend.normal_like(X)
    expected = np.random.Generator(np.random.Philox(1)).standard_normal((5, 7), np.float32)
    np.testing.assert_array_equal(Z, expected)


# One error


@pytest.mark.parametrize("X", [np.ones(3), [1.0], 3, None, "X"], ids=lambda X: type(X).__name__)
def test_other_arrays_are_refused(d2l, X):
    for function in (lambda X: d2l.dropout_layer(X, 0.5), lambda X: d2l.Dropout()(X), d2l.backend.real_floats):
        with pytest.raises(d2ldrop.ArgumentTypeError, match=r"Expected X to be an array of torch\. Received: "):
            function(X)


def test_numbers_that_cannot_be_scaled_are_refused(d2l):
    kinds = [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
    for X in (torch.zeros(3).to(kind) for kind in kinds):
        for p in (0, 0.5, 1):
            with pytest.raises(d2ldrop.ArgumentTypeError, match="Expected X to hold real numbers of 16 to 64 bits"):
                d2l.dropout_layer(X, p)
    with pytest.raises(d2ldrop.ArgumentTypeError, match=r"Expected X to be dense, .* Received: torch\.sparse_coo"):
        d2l.dropout_layer(torch.eye(3).to_sparse(), 0.5)
