"""Keras' optimisers, by the names that a model may give, with weight decay and momentum as they are in PyTorch."""

from typing import Any

import tensorflow as tf

from d2ldrop.training.optimizers import chosen

saved_by_keras = tf.keras.utils.register_keras_serializable(package="d2ldrop")
EPSILON = 1e-8  # Keras' own default is 1e-7


@saved_by_keras
class SGD(tf.keras.optimizers.SGD):
    """Keras' SGD, but with the decay in the gradient, and the learning rate outside of the velocity.

    Keras' own weight decay is that of AdamW, in all its optimisers. Its velocity adds up gradients times learning
    rates: where the rate changes, steps go on at the old one for a while. Here, as in PyTorch, a rate is at once that
    of the whole step.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change a variable in place."""
        gradient = tf.convert_to_tensor(gradient) + self.weight_decay * variable
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            velocity.assign(self.momentum * velocity + gradient)
            gradient = velocity
        variable.assign_sub(tf.cast(learning_rate, variable.dtype) * gradient)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: Keras calls it before the step."""


@saved_by_keras
class Adam(tf.keras.optimizers.Adam):
    """Keras' Adam, but with the decay in the gradient; its own weight decay is that of AdamW."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change a variable in place."""
        gradient = tf.convert_to_tensor(gradient) + self.weight_decay * variable
        super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: Keras calls it before the step."""


def optimizer_for(model: Any) -> tf.keras.optimizers.Optimizer:
    """Return the optimiser of Keras that a model asks for, see `d2ldrop.training.optimizers.chosen`."""
    optimizers = tf.keras.optimizers
    name, lr, decay, momentum = chosen(model)
    if name == "adamw":
        return optimizers.AdamW(lr, weight_decay=decay, epsilon=EPSILON)
    if name == "adam":
        return Adam(lr, weight_decay=decay, epsilon=EPSILON) if decay else optimizers.Adam(lr, epsilon=EPSILON)
    return SGD(lr, momentum, weight_decay=decay) if decay or momentum else optimizers.SGD(lr)
