"""scikit-learn's digits: real data that needs no network."""

import numpy as np

from d2ldrop.data.modules import ImageData, Split

__all__ = ["Digits"]


class Digits(ImageData):
    """scikit-learn's digits: 1,797 real 8x8 images of handwritten digits, inside that package: needs no network.

    The order is shuffled once, always the same way, and the last fifth is for validation.

    Parameters
    ----------
    batch_size
        The number of samples in a batch.

    Notes
    -----
    Batches are float32 in [0, 1], (N, 1, 8, 8) or (N, 8, 8, 1) as the framework has it; labels are integers.

    Source: Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI machine learning repository (1998).
    """

    def __init__(self, batch_size: int = 64):
        from sklearn.datasets import load_digits

        self.save_hyperparameters()
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        X = (images[order].reshape(-1, 8, 8) / 16).astype(np.float32)
        y = labels[order].astype(np.int64)
        cut = len(y) * 4 // 5
        self._fill(Split(X[:cut], y[:cut]), Split(X[cut:], y[cut:]), batch_size)
