"""The chapter's figures: a network before and after dropout, the confusion matrix, and the surest mistakes."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle

import d2ldrop
from d2ldrop import numpy as by_hand


def circles(axes):
    """Return the centre of each unit of a panel, and whether it is drawn as one that is kept."""
    patches = [patch for patch in axes.patches if isinstance(patch, Circle)]
    return {patch.center: to_rgb(patch.get_facecolor()) != (1, 1, 1) for patch in patches}


def lines(axes):
    """Return the connections of a panel, and the lines of its crosses, as pairs of points."""
    return [[tuple(map(tuple, segment)) for segment in drawn.get_segments()] for drawn in axes.collections]


def test_a_network_has_all_connections():
    (axes,) = by_hand.draw_network((4, 5, 2, 3))
    connections, crosses = lines(axes)
    assert len(circles(axes)) == 4 + 5 + 2 + 3
    assert all(circles(axes).values())
    assert len(set(connections)) == 4 * 5 + 5 * 2 + 2 * 3
    assert {point for line in connections for point in line} == set(circles(axes))
    assert crosses == []
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["inputs", "hidden layer 1", "hidden layer 2", "outputs"]


@pytest.mark.parametrize(("sizes", "labels"), [((2, 1), []), ((2, 3, 1), ["hidden layer"])])
def test_layers_have_names(sizes, labels):
    (axes,) = by_hand.draw_network(sizes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["inputs", *labels, "outputs"]


def test_dropped_units_lose_their_connections(d2l):
    d2l.seed(0)
    masks = [d2l.dropout_layer(d2l.ones((20,)), p) for p in (0.2, 0.5)]
    kept = [np.flatnonzero(d2l.numpy(mask)) for mask in masks]
    n1, n2 = map(len, kept)
    assert {n1, n2} <= set(range(1, 20))  # else there is nothing to see
    before, after = d2l.draw_network((4, 20, 20, 3), masks)
    assert (before.get_title(), after.get_title()) == ("without dropout", "with dropout")
    assert len(lines(before)[0]) == 4 * 20 + 20 * 20 + 20 * 3
    assert circles(before).keys() == circles(after).keys()
    connections, crosses = lines(after)
    assert len(set(connections)) == 4 * n1 + n1 * n2 + n2 * 3
    assert len(crosses) == 2 * (40 - n1 - n2)
    dropped = {point for point, stays in circles(after).items() if not stays}
    assert {point for line in connections for point in line} == circles(after).keys() - dropped
    rows = sorted({y for _, y in circles(after)})
    for y, stays in zip(rows[1:3], kept, strict=True):
        row = sorted(point for point in circles(after) if point[1] == y)
        assert {row[k] for k in stays} == set(row) - dropped
    middles = {tuple(np.round(np.mean(line, axis=0), 6)) for line in crosses}
    assert middles == {tuple(np.round(point, 6)) for point in dropped}


def test_a_whole_layer_may_be_dropped():
    _, axes = by_hand.draw_network((2, 3, 1), [np.zeros(3)])
    assert lines(axes)[0] == []


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0), (3, 2.5), (3, True), (3, "2")])
def test_draw_network_rejects_wrong_sizes(sizes):
    with pytest.raises(d2ldrop.ArgumentError, match=r"two or more positive integers\. Received: \["):
        by_hand.draw_network(sizes)


@pytest.mark.parametrize("masks", [[], [np.ones(3)], [np.ones(3), np.ones(5)], [np.ones((1, 3)), np.ones(4)]])
def test_draw_network_rejects_wrong_masks(masks):
    with pytest.raises(d2ldrop.ArgumentError, match=r"of shapes \[\(3,\), \(4,\)\]\. Received: \["):
        by_hand.draw_network((2, 3, 4, 1), masks)


def cells(axes):
    """Return the numbers that are written in a matrix."""
    written = {text.get_position(): text.get_text() for text in axes.texts}
    side = len(axes.get_xticks())
    return [[written[column, row] for column in range(side)] for row in range(side)]


def test_confusion(d2l):
    y, guesses = (d2l.array(np.array(labels, np.int32)) for labels in ([0, 0, 0, 0, 1, 2], [0, 1, 1, 1, 1, 0]))
    axes = d2l.show_confusion(y, guesses, ["a", "b", "c"])
    assert cells(axes) == [["1", "3", "0"], ["0", "1", "0"], ["1", "0", "0"]]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["a", "b", "c"]
    axes = d2l.show_confusion(y, guesses, shares=True)
    assert cells(axes) == [["25", "75", "0"], ["0", "100", "0"], ["100", "0", "0"]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]


def test_confusion_shows_classes_that_do_not_occur():
    axes = by_hand.show_confusion([1], [1], list("abc"), shares=True)
    assert cells(axes) == [["0", "0", "0"], ["0", "100", "0"], ["0", "0", "0"]]


def test_ten_classes_fit_on_a_page_without_touching():
    labels = np.arange(10)
    axes = by_hand.show_confusion(labels, labels, d2ldrop.FashionMNIST.CLASSES)
    figure = axes.get_figure()
    assert figure.get_figwidth() <= 8.5
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
    whole = figure.bbox
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label):
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0]), "as many guesses as labels. Received: 1 and 2"),
        (([0.5], [0]), "integers from 0 on, at least one. Received: float64"),
        (([-1], [0]), "integers from 0 on"),
        (([[0]], [[0]]), r"shape \(1, 1\)"),
        ((np.zeros(0, int), np.zeros(0, int)), "at least one"),
        (([0, 2], [0, 1], ["a", "b"]), "Expected 3 class names. Received: 2"),
    ],
)
def test_confusion_rejects_wrong_labels(arguments, message):
    with pytest.raises(d2ldrop.DataError, match=message):
        by_hand.show_confusion(*arguments)


def some_predictions(d2l):
    """Return five images, each of one shade, labels, and probabilities that are wrong for all but the first two."""
    shades = np.arange(5, dtype=np.float32) / 10
    images = np.ones((5, 1, 4, 3), np.float32) * shades[:, None, None, None]
    if d2l.channels_last:
        images = images.transpose(0, 2, 3, 1)
    y = np.array([0, 1, 1, 2, 0], np.int32)
    P = np.array([[0.9, 0.1, 0], [0, 1, 0], [0.6, 0.4, 0], [0, 0.97, 0.03], [0.1, 0.2, 0.7]], np.float32)
    return d2l.array(images), d2l.array(y), d2l.array(P)


def test_the_surest_mistakes_come_first(d2l):
    axes = d2l.show_mistakes(*some_predictions(d2l), names=["a", "b", "c"], num_rows=2, num_cols=2)
    assert [axis.get_title() for axis in axes] == ["c\nb 97.0%", "a\nc 70.0%", "b\na 60.0%", ""]
    shades = [float(axis.images[0].get_array()[0, 0]) for axis in axes[:3]]
    assert shades == pytest.approx([0.3, 0.4, 0.2])
    assert axes[0].images[0].get_array().shape == (4, 3)
    axes = d2l.show_mistakes(*some_predictions(d2l), num_rows=1, num_cols=1)
    assert [axis.get_title() for axis in axes] == ["2\n1 97.0%"]


def test_no_mistakes():
    X, y, P = some_predictions(by_hand)
    axes = by_hand.show_mistakes(X[:2], y[:2], P[:2])
    assert [len(axis.images) for axis in axes] == [0] * 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [0, 1]}, r"Received: \(5, 4, 3\), \(2,\), \(5, 3\)"),
        ({"probabilities": np.ones(5)}, r"probabilities \(N, K\)"),
        ({"probabilities": np.ones((5, 3))}, "rows of probabilities, such as a softmax gives"),
        ({"probabilities": np.array([[2.0, -1.0]] * 5)}, "rows of probabilities"),
        ({"names": ["a"]}, "Expected 3 class names. Received: 1"),
        ({"y": [0, 1, 2, 3, 0], "names": ["a", "b", "c"]}, "Expected 4 class names. Received: 3"),
    ],
)
def test_show_mistakes_rejects_wrong_predictions(changes, message):
    arguments = dict(zip(("images", "y", "probabilities"), some_predictions(by_hand), strict=True)) | changes
    with pytest.raises(d2ldrop.DataError, match=message):
        by_hand.show_mistakes(**arguments)


def test_grids_fit_on_a_page(d2l):
    data = d2l.Digits(batch_size=20)
    batch = next(iter(data.val_dataloader()))
    for ncols, width in ((4, 6), (6, 8.5), (8, 8.5), (12, 8.5)):
        assert data.visualize(batch, ncols=ncols)[0].get_figure().get_figwidth() == pytest.approx(width)
