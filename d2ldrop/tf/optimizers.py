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
class AdamW(tf.keras.optimizers.AdamW):
    """Keras' AdamW, with epsilon where PyTorch has it: Keras adds it before it corrects the mean square."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change a variable in place."""
        epsilon, steps = self.epsilon, tf.cast(self.iterations + 1, variable.dtype)
        self.__dict__["epsilon"] = epsilon * tf.sqrt(1 - self.beta_2**steps)  # it began at 0
        super().update_step(gradient, variable, learning_rate)
        self.__dict__["epsilon"] = epsilon


@saved_by_keras
class Adam(AdamW):
    """The same with the decay in the gradient, which is Adam."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change a variable in place."""
        gradient = tf.convert_to_tensor(gradient) + self.weight_decay * variable
        super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: Keras calls it before the step."""


def optimizer_for(model: Any) -> tf.keras.optimizers.Optimizer:
    """Return the optimiser of Keras that a model asks for, see `d2ldrop.training.optimizers.chosen`."""
    name, lr, decay, momentum = chosen(model)
    if name != "sgd":
        return (AdamW if name == "adamw" else Adam)(lr, decay, epsilon=EPSILON)
    return SGD(lr, momentum, weight_decay=decay) if decay or momentum else tf.keras.optimizers.SGD(lr)
