"""Calibration, rejection and foreign images: the numbers against plain loops, the pictures against the numbers."""

import contextlib
import io
import re

import numpy as np
import pytest

import d2ldrop
from d2ldrop import numpy as by_hand
from d2ldrop.calibration import auroc, calibration_bins, expected_calibration_error, rejection_curve
from d2ldrop.cli import main as cli
from d2ldrop.data import Digits, foreign_images


def some_predictions(count=500, classes=4):
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(classes), count), rng.integers(0, classes, count)


@pytest.mark.parametrize("bins", [1, 3, 15, 50])
def test_the_calibration_error_against_a_loop(bins):
    P, y = some_predictions()
    confidence, hits, error = P.max(axis=1), P.argmax(axis=1) == y, 0
    found = calibration_bins(P, y, bins)
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        assert found.counts[m] == inside.sum()
        if inside.any():
            assert found.accuracy[m] == pytest.approx(hits[inside].mean())
            assert found.confidence[m] == pytest.approx(confidence[inside].mean())
            error += inside.mean() * abs(hits[inside].mean() - confidence[inside].mean())
        else:
            assert np.isnan(found.accuracy[m])
    assert expected_calibration_error(P, y, bins) == pytest.approx(error)


def test_predictions_that_say_how_sure_they_are_have_no_calibration_error():
    P, _ = some_predictions(100_000)
    drawn = (np.random.default_rng(1).random((len(P), 1)) > P.cumsum(axis=1)).sum(axis=1)  # labels of these chances
    assert expected_calibration_error(P, drawn) < 0.01
    assert expected_calibration_error(np.eye(4)[drawn], drawn) == 0
    assert expected_calibration_error(np.eye(4)[drawn], (drawn + 1) % 4) == 1


def test_a_bin_has_its_upper_bound():
    P = np.array([[0.5, 0.5], [1.0, 0.0], [0.75, 0.25]])
    np.testing.assert_array_equal(calibration_bins(P, np.zeros(3, int), bins=4).counts, [0, 1, 1, 1])


def test_the_rejection_curve_against_a_loop():
    rng = np.random.default_rng(0)
    uncertainty, hits = rng.integers(0, 20, 300) / 20, rng.random(300) < 0.7  # many are equal
    rates, accuracies = rejection_curve(uncertainty, hits)
    assert rates[0] == 0
    assert (np.diff(rates) > 0).all()
    for rate, accuracy, largest in zip(rates, accuracies, sorted({*uncertainty}, reverse=True), strict=True):
        kept = uncertainty <= largest
        assert (rate, accuracy) == pytest.approx((1 - kept.mean(), hits[kept].mean()))


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    own, foreign = rng.integers(0, 10, 50) / 10, rng.integers(3, 13, 70) / 10
    pairs = foreign[:, None] - own
    assert auroc(own, foreign) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert auroc(own, own) == 0.5
    assert auroc(own, own + 2) == 1


P, Y = some_predictions(5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibration_bins(P, Y[:4]), r"\(5, 4\), and int64 \(4,\)"),
        (lambda: calibration_bins(P[:0], Y[:0]), "at least one"),
        (lambda: calibration_bins(P, Y / 2), "that are integers"),
        (lambda: calibration_bins(2 * P, Y), "rows of probabilities, such as a softmax gives"),
        (lambda: calibration_bins(P * np.nan, Y), "rows of probabilities"),
        (lambda: calibration_bins(P, Y, bins=0), "Expected bins to be a positive integer"),
        (lambda: rejection_curve(P[:, 0], Y[:4] == 1), r"Received: \(5,\) and \(4,\)"),
        (lambda: rejection_curve(P[:0, 0], Y[:0] == 1), "at least one"),
        (lambda: rejection_curve(P[:, 0] * np.nan, Y == 1), "none of them nan"),
        (lambda: auroc(P[:, 0], P[:0, 0]), "at least one"),
        (lambda: auroc(P[:, 0] / 0.0, P[:, 0]), "finite"),
        (lambda: by_hand.show_uncertain(np.zeros((5, 1, 2, 2)), Y, P, P[:3, 0]), r"\(5,\). Received: \(3,\)"),
        (lambda: by_hand.show_rejection(Y[:3], P, {}), r"Received: \(5,\) and \(3,\)"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_what_is_wrong_is_said(call, message):
    with pytest.raises((d2ldrop.DataError, d2ldrop.ArgumentError), match=message):
        call()


# Pictures


def test_the_most_uncertain_images_come_first(d2l):
    shades = np.arange(5, dtype=np.float32) / 10
    images = np.ones((5, 1, 4, 3), np.float32) * shades[:, None, None, None]
    y, P = np.array([0, 1, 1, 0, 0], np.int32), np.array([[0.9, 0.1]] * 5, np.float32)
    uncertainty = np.array([0.1, 0.5, 0.2, 0.3, 0.0], np.float32)
    axes = d2l.show_uncertain(*map(d2l.array, (images, y, P, uncertainty)), names=["a", "b"], num_rows=1, num_cols=4)
    assert [axis.get_title() for axis in axes] == [
        f"{label}\na 90%\n{u:.2f}" for label, u in zip("baba", (0.5, 0.3, 0.2, 0.1), strict=True)
    ]
    assert [axis.title.get_color() for axis in axes] == ["red", "black", "red", "black"]
    drawn = [float(axis.images[0].get_array()[0, 0]) for axis in axes]
    assert drawn == pytest.approx([0.1, 0.3, 0.2, 0.0])


def test_the_rejection_picture_shows_the_curves(d2l):
    P, y = some_predictions(200)
    axes = d2l.show_rejection(d2l.array(y), d2l.array(P), {"entropy": d2l.array(1 - P.max(axis=1)), "order": P[:, 0]})
    curve, _, best = axes.get_lines()
    rates, accuracies = rejection_curve((1 - P.max(axis=1)), P.argmax(axis=1) == y)
    np.testing.assert_allclose(curve.get_xdata(), rates, atol=1e-6)
    np.testing.assert_allclose(curve.get_ydata(), accuracies, atol=1e-6)
    hits = (P.argmax(axis=1) == y).mean()
    np.testing.assert_allclose(best.get_xydata(), [[0, hits], [1 - hits, 1], [1, 1]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["entropy", "order", "wrong ones first"]


def test_the_reliability_diagram_shows_the_bins(d2l):
    P, y = some_predictions()
    axes = d2l.show_reliability(d2l.array(y), d2l.array(P.astype(np.float32)), bins=10)
    found = calibration_bins(P, y, 10)
    filled = found.counts > 0
    bars, gaps = axes.containers
    assert [bar.get_height() for bar in bars] == pytest.approx(found.accuracy[filled])
    tops = [bar.get_y() + bar.get_height() for bar in gaps]
    assert tops == pytest.approx(found.confidence[filled], abs=1e-5)
    assert axes.get_title() == f"ECE {expected_calibration_error(P, y, 10):.4f}"


def test_histograms_of_foreign_images(d2l):
    own, foreign = np.linspace(0, 1, 50), np.linspace(0.5, 2, 30)
    axes = d2l.show_foreign(d2l.array(own), {"digits": d2l.array(foreign)}, xlabel="entropy", bins=8)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["own", f"digits, AUROC {auroc(own, foreign):.3f}"]
    assert axes.get_xlabel() == "entropy"
    areas = [patch.get_path().vertices[:, 1].max() for patch in axes.patches]
    assert areas == pytest.approx([13 / 50, 5 / 30], abs=0.05)


def test_foreign_images_are_digits_and_noise():
    found = foreign_images()
    assert [*found] == ["digits", "noise"]
    assert all((images.shape, images.dtype) == ((1797, 28, 28), np.uint8) for images in found.values())
    np.testing.assert_array_equal(found["noise"], foreign_images()["noise"])
    assert np.abs(found["noise"].mean() - 127.5) < 1
    X = np.concatenate([Digits().split(train).X for train in (True, False)])  # in another order
    assert found["digits"].mean() / 255 == pytest.approx(X.mean(), abs=0.01)
    assert foreign_images(10)["digits"].shape == (1797, 10, 10)


# The command line


def printed(*argv):
    """Return what a command prints."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert cli.main([str(word) for word in argv]) == 0
    return shown.getvalue()


def test_predict_with_samples(tmp_path):
    weights, plot = tmp_path / "w.safetensors", tmp_path / "grid.png"
    printed(
        *"train --backend numpy --data digits --epochs 3 --hidden-1 32 --hidden-2 16 --lr 0.5 --save".split(), weights
    )
    command = ("predict", "--backend", "numpy", "--weights", weights)
    plain, sampled = printed(*command), printed(*command, "--samples", 20, "--seed", 1, "--plot", plot)
    assert len(plain.splitlines()) == 1
    assert sampled.startswith(plain)
    pattern = r"mean of 20 masks: accuracy (\S+), entropy (\S+), calibration error (\S+)\n"
    numbers = [float(number) for number in re.search(pattern, sampled).groups()]
    model = d2ldrop.load_model(weights, "numpy")
    X, y = Digits().split(train=False)
    result = d2ldrop.mc_predict(model, X, samples=20, seed=1)
    P = result.probabilities
    expected = [(P.argmax(axis=1) == y).mean(), result.entropy.mean(), expected_calibration_error(P, y)]
    assert numbers == pytest.approx(expected, abs=5e-5)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert printed(*command, "--samples", 20) != printed(*command, "--samples", 20, "--seed", 1)
