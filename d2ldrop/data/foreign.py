"""Images of another kind than those a network was trained on, to see whether it notices."""

import numpy as np

__all__ = ["foreign_images"]


def foreign_images(side: int = 28) -> dict[str, np.ndarray]:
    """Return handwritten digits and noise, as grey images of any size.

    Parameters
    ----------
    side
        The number of rows and of columns.

    Returns
    -------
    dict of str to numpy.ndarray
        `digits`: scikit-learn's 1,797 digits of 8x8 pixels, resized by bilinear interpolation, and as many images of
        `noise`, whose pixels are uniform on 0 ... 255 and independent, always the same: uint8 (1797, side, side).
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    resized = [Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR) for digit in digits]
    noise = np.random.default_rng(0).integers(0, 256, (len(digits), side, side), np.uint8)
    return {"digits": np.stack([np.asarray(image) for image in resized]), "noise": noise}
