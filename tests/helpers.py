"""What several test files need."""

import gzip
import json

import numpy as np

from d2ldrop import Trainer
from d2ldrop.cli import main as cli

QUICK = "--data digits --epochs 5 --hidden-1 32 --hidden-2 16 --lr 0.5 --batch-size 64".split()
"""Options of `d2ldrop train` with which the digits are learnt in a second."""


def fitted(d2l, small, epochs=1, kind="DropoutMLPScratch", data=None, **options):
    """Return a trainer and the model that it has trained on the digits, from seed 0 unless another is given."""
    model = getattr(d2l, kind)(**small)
    trainer = Trainer(epochs, **{"seed": 0, "progress": False, **options})
    trainer.fit(model, data or d2l.Digits())
    return trainer, model


IMAGES = np.random.default_rng(0).random((5, 1, 4, 4), np.float32)


def images(d2l):
    """Return these images in the backend's order of axes."""
    return IMAGES.reshape(5, 4, 4, 1) if d2l.channels_last else IMAGES


def built(d2l, hparams, kind="DropoutMLPScratch"):
    """Return a model for these images with the weights that it begins with."""
    model = getattr(d2l, kind)(**hparams)
    d2l.backend.build(model, (d2l.array(images(d2l)),), d2l.cpu())
    return model


def predicted(d2l, model):
    """Return the outputs of a model for these images."""
    return Trainer(1, progress=False).predict(images(d2l), model)


def idx_header(*shape):
    """Return how an IDX file of bytes begins; lengths may be negative."""
    return bytes((0, 0, 8, len(shape))) + b"".join(n.to_bytes(4, "big", signed=True) for n in shape)


def idx_file(path, array):
    """Write bytes as the data set's publishers do."""
    path.write_bytes(gzip.compress(idx_header(*array.shape) + array.tobytes()))


def run_cli(*argv):
    """Return the exit status of a command."""
    try:
        return cli.main([str(word) for word in argv])
    except SystemExit as ended:
        return ended.code


def taken_apart(path):
    """Return the header of a file, and the bytes of its arrays."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(path, header, arrays, length=None):
    header = header if isinstance(header, bytes) else header.encode()
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + arrays)
