"""What our speed is measured against: the same training as users of gluon write it."""

from collections.abc import Callable

import numpy as onp  # noqa: ICN001 - here, as in the book, `np` is MXNet's
from mxnet import autograd, gluon, np
from mxnet.gluon import nn

from d2ldrop.data import Split, as_floats


def plain_loop(train: Split, val: Split, batch_size: int, lr: float, dropout: float) -> Callable[[], float]:
    """Return a function that runs an epoch with validation: a loop over a hybridized net, with gluon's loaders."""
    net = nn.HybridSequential()
    net.add(nn.Dense(256, activation="relu"), nn.Dropout(dropout))
    net.add(nn.Dense(256, activation="relu"), nn.Dropout(dropout), nn.Dense(10))
    net.initialize()
    net.hybridize()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})
    X, X_val = (np.array(as_floats(split.X)) for split in (train, val))
    y, y_val = (np.array(split.y.astype(onp.int32)) for split in (train, val))
    rng = onp.random.default_rng()

    def epoch() -> float:
        order = np.array(rng.permutation(len(y)))
        for start in range(0, len(y), batch_size):
            chosen = order[start : start + batch_size]
            with autograd.record():
                batch_loss = loss(net(X[chosen]), y[chosen])
            batch_loss.backward()
            trainer.step(len(chosen))
        correct = sum(
            (net(X_val[i : i + batch_size]).argmax(axis=1).astype("int32") == y_val[i : i + batch_size]).sum()
            for i in range(0, len(y_val), batch_size)
        )
        return float(correct) / len(y_val)

    return epoch
