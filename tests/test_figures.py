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


def test_a_wide_layer_has_an_ellipsis_and_its_size():
    masks = [np.arange(256) % 2, np.arange(256) % 4]
    before, after = by_hand.draw_network((784, 256, 256, 10), masks)
    assert [text.get_text() for text in before.get_yticklabels()] == [
        "inputs\n784", "hidden layer 1\n256", "hidden layer 2\n256", "outputs\n10"
    ]  # fmt: skip
    for axes in (before, after):
        per_row = [sum(centre[1] == y for centre in circles(axes)) for y in axes.get_yticks()]
        assert per_row == [8, 8, 8, 10]
        dots = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert [line.get_ydata()[0] for line in dots] == axes.get_yticks()[:3].tolist()
        centres = {x for x, _ in circles(axes)}
        assert not any(
            abs(x - dot) < 0.6 for x in centres for line in dots for dot in line.get_xdata() if abs(x) != 0.5
        )
    assert not before.texts
    assert [text.get_text() for text in after.texts] == ["128 kept", "192 kept"]
    rows = {y: [] for y in after.get_yticks()}
    for (_, y), stays in sorted(circles(after).items()):
        rows[y].append(stays)
    kept = [[*(masks[k][:4] != 0), *(masks[k][-4:] != 0)] for k in (0, 1)]  # the first and the last units
    assert [*rows.values()][1:3] == kept
    connections, crosses = lines(after)
    assert len(connections) == 8 * 4 + 4 * 6 + 6 * 10
    assert len(crosses) == 2 * (4 + 2)


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


@pytest.mark.parametrize("shares", [False, True])
def test_confusion_shows_classes_that_do_not_occur(shares):
    axes = by_hand.show_confusion([1], [1], list("abc"), shares=shares)
    assert cells(axes) == [["-"] * 3, ["0", "100" if shares else "1", "0"], ["-"] * 3]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a\n(no samples)", "b", "c\n(no samples)"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b", "c"]
    assert axes.images[0].get_array().mask.all(axis=1).tolist() == [True, False, True]  # grey


LONG = ["a class with a name of several words", "short", "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerk", ""]


def assert_whole(figure, texts):
    """Assert that a figure holds texts, and that none touches the next one."""
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for text, box in zip(texts, boxes, strict=False):
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    "names", [d2ldrop.FashionMNIST.CLASSES, LONG, LONG[:2], None], ids=["ten", "long", "two", "no"]
)
def test_the_classes_of_a_matrix_fit_on_a_page_without_touching(names):
    labels = np.arange(len(names or "0123"))
    axes = by_hand.show_confusion(labels, labels, names, shares=True)
    figure = axes.get_figure()
    assert figure.get_figwidth() <= 8.5
    assert_whole(figure, axes.get_yticklabels())
    for text in (*axes.get_xticklabels(), axes.title, axes.xaxis.label, axes.yaxis.label):
        assert_whole(figure, [text])
    size = axes.get_window_extent()
    assert min(size.width, size.height) > 0.4 * len(labels) * figure.dpi


@pytest.mark.parametrize("num_cols", [2, 4, 8])
def test_long_titles_are_broken_into_lines(num_cols):
    titles = [f"{name}\n{other} 97.0%" for name in LONG for other in LONG[:2]]
    axes = by_hand.show_images(np.zeros((8, 5, 5)), 8 // num_cols, num_cols, titles=titles, scale=8.5 / 8)
    figure = axes[0].get_figure()
    assert_whole(figure, [axis.title for axis in axes])
    for axis, title in zip(axes, titles, strict=True):
        assert "".join(axis.get_title().split()) == "".join(title.split())  # all of it
    assert min(axis.get_window_extent().width for axis in axes) > 0.8 * figure.dpi


def test_images_in_colour(d2l):
    rng = np.random.default_rng(0)
    images = rng.random((3, 5, 6, 3)).astype(np.float32)
    stored = images if d2l.channels_last else images.transpose(0, 3, 1, 2)
    y, P = np.array([0, 0, 0], np.int32), np.array([[0, 1]] * 3, np.float32)
    batch = d2l.array(stored), d2l.array(y)
    data = d2l.ArrayData(stored, y, stored, y)
    for axes in (
        d2l.show_images(batch[0], 1, 3),
        data.visualize(batch, 1, 3),
        d2l.show_mistakes(*batch, d2l.array(P), num_rows=1, num_cols=3),
    ):
        for axis, image in zip(axes, images, strict=True):
            np.testing.assert_allclose(axis.images[0].get_array(), image)
    axes = by_hand.show_images([images[0] * 4 - 2, np.full((5, 6, 3), 7.0)], 1, 2)  # normalised ones
    low, high = images[0].min(), images[0].max()
    np.testing.assert_allclose(axes[0].images[0].get_array(), (images[0] - low) / (high - low), rtol=1e-5)
    assert np.isfinite(axes[1].images[0].get_array()).all()


def test_what_is_no_image_is_refused():
    for wrong in (np.zeros((2, 5)), np.zeros((2, 2, 5, 7)), np.zeros((2, 3, 4, 4, 3))):
        with pytest.raises(d2ldrop.DataError, match=r"Expected images \(N, C, H, W\) .* Received: shape \(2, "):
            d2ldrop.data.ArrayData(wrong, [0, 0]).visualize((wrong, [0, 0]))


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
