"""The layer to use in place of gluon's `Dropout`."""

from typing import Any

from mxnet.gluon import nn

from d2ldrop.randomness import odds


class Dropout(nn.Dropout):
    """gluon's layer, but zero at p = 1, where gluon's is nan, as it multiplies by 1 / (1 - p)."""

    def hybrid_forward(self, F: Any, X: Any) -> Any:
        """Return `X` under dropout in training, and `X` otherwise; F is `mx.nd`, or `mx.sym` while a graph is made."""
        if odds(self._rate).scale > 0:
            return super().hybrid_forward(F, X)
        # A graph cannot ask whether it runs in training. But dropout of ones is 0 or 2 then, and 1 otherwise.
        in_training = F.npx.dropout(F.np.ones_like(X), p=0.5) != 1
        return F.np.where(in_training, F.np.zeros_like(X), X)
