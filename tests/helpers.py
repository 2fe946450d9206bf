"""What several test files need."""

import gzip

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
