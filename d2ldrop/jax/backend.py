"""How shared code drives JAX: arrays, training, weights, and the function edition."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
import optax
from flax import linen, traverse_util
from jax import Array
from jax import numpy as jnp

from d2ldrop.backend import Backend, Draw, Metrics, Numbers, Parameter, by_name
from d2ldrop.errors import UsageError
from d2ldrop.jax import arrays, keys, lesson, masks, steps
from d2ldrop.jax.compiled import keep_compiled
from d2ldrop.jax.functional import Net
from d2ldrop.jax.lesson import Module
from d2ldrop.jax.modules import COLLECTIONS, State, create, named, noting_dense, sampler
from d2ldrop.jax.optimizers import at_rate, with_injected_rate
from d2ldrop.jax.steps import Batch, Steps, evaluation_of, floats, sampling_of
from d2ldrop.randomness import Odds


class JaxBackend(Backend[Module, Array, jax.Device]):
    """JAX with Flax and Optax: an epoch is one compiled loop.

    A model keeps its variables as `model.learned`. A step takes them from there, and puts the new ones there.
    """

    name = "jax"
    channels_last = True
    takes_keys = True
    models = by_name(lesson.DropoutMLPScratch, lesson.DropoutMLP, lesson.DropoutMLPRegressor, lesson.SoftmaxRegression)

    cpu, gpu, num_gpus = staticmethod(arrays.cpu), staticmethod(arrays.gpu), staticmethod(arrays.num_gpus)
    is_array, array, numpy = staticmethod(arrays.is_array), staticmethod(arrays.array), staticmethod(arrays.numpy)
    seed, dropout_layer = staticmethod(keys.seed), staticmethod(lesson.dropout_layer)
    entropy, isolated = staticmethod(keys.entropy), staticmethod(keys.generator.isolated)
    is_tracing = staticmethod(keys.is_tracing)
    real_floats, where = staticmethod(masks.real_floats), staticmethod(masks.where)
    normal_like = staticmethod(masks.normal_like)

    def place(self, values: Iterable[Any], device: jax.Device) -> tuple[Array, ...]:
        """Copy several arrays to the device."""
        return tuple(arrays.array(X, device) for X in values)

    def keep_mask(self, X: Array, p: Odds, axes: Iterable[int] = (), key: Array | None = None) -> Array:
        """Draw a boolean for each element of X: True with probability 1 - p; along `axes` the mask has size 1."""
        return masks.draw_mask(X, p, key, axes)

    # Models

    def build(
        self, model: Module, inputs: Sequence[Any], device: jax.Device, seed: Any = None, draw: Draw | None = None
    ) -> bool:
        """Put the variables on the device, and create them if there are none."""
        keep_compiled()
        if seed is not None:
            keys.seed(seed)
        new = not self.is_built(model)
        if new:
            create(model, floats(inputs), keys.get_key())
        model.learned = jax.device_put(model.learned, device)
        if new and draw is not None:
            own = self.parameters(model).items()
            self.assign(model, draw({name: value.shape[:: -1 if turned else 1] for name, (value, turned) in own}))
        return new

    def is_built(self, model: Module) -> bool:
        """Return True if the model has its parameters."""
        return model.learned is not None

    def parameters(self, model: Module) -> dict[str, Parameter]:
        """Return parameters and batch statistics under Flax's names, but lin1, ... for the fully connected layers."""
        return {name: Parameter(value, transposed) for name, _, value, transposed in named(model)}

    def assign(self, model: Module, weights: Mapping[str, np.ndarray]) -> None:
        """Let the model have other variables; a training that goes on continues from them."""
        flat = {
            path: jax.device_put(jnp.array(weights[name].T if transposed else weights[name], value.dtype), value.device)
            for name, path, value, transposed in named(model)
        }
        variables = traverse_util.unflatten_dict(flat)
        model.learned = {name: variables.get(name, {}) for name in COLLECTIONS}

    def predict(self, model: Module, X: Array) -> Array:
        """Return the outputs of the model, without dropout and gradients."""
        model.training = False
        return model(*floats([X]))

    def affine(self, layer: linen.Dense) -> tuple[Array, Array]:
        """Return the parameters of a layer, inside a call of its model."""
        params = layer.variables["params"]
        return params["kernel"], params["bias"]

    def sample(self, model: Module, X: Array) -> Array:
        """Return the outputs of the model with dropout on, by a new key."""
        if model._sample is None:
            model._sample = sampling_of(model)
        Y: Array = model._sample(model.learned, X, keys.get_key())
        return Y

    def linear_calls(self, model: Module, X: Array) -> list[tuple[Array, Array]]:
        """Return the input and the output of each `nn.Dense` in a call with dropout on, by a new key."""
        with noting_dense() as calls:  # it is not compiled, so that arrays can be noted
            sampler(model)(cast("Any", model.learned), floats([X]), keys.get_key())
        return [(inputs, outputs) for _, inputs, outputs in calls]

    # Training

    def init_state(self, model: Module, seed: int | None) -> State:
        """Put together the optimiser, its memory, and the key from which dropout's keys are made."""
        model._evaluate = model._sample = None  # the reader may have changed what they were made from
        variables: Any = model.learned
        optim = model.configure_optimizers()
        key = keys.get_key() if seed is None else jax.random.PRNGKey(seed)
        state = State.create(apply_fn=model.apply, tx=optim, dropout_rng=key, steps=Steps(model, optim), **variables)
        # Where a reader's own `init` returns the class `optax.EmptyState`, as in the book, an instance takes its place.
        memory = jax.tree.map(lambda leaf: leaf() if leaf is optax.EmptyState else leaf, state.opt_state)
        state = state.replace(opt_state=memory)
        device = next((leaf.device for leaf in jax.tree.leaves(variables)), None)
        state = jax.device_put(state.replace(step=jnp.int32(0)), device)
        state.steps.kept = state.params
        return state

    def optimizer_state(self, state: State) -> dict[str, np.ndarray]:
        """Return copies of the optimiser's memory, by numbers, of the count of steps, and of the key of the masks.

        A learning rate that was set is there as well.
        """
        leaves = {str(k): np.array(leaf) for k, leaf in enumerate(jax.tree.leaves(state.opt_state))}
        rate = {} if state.rate is None else {"rate": np.array(state.rate)}
        return {"step": np.array(state.step), "key": np.array(state.dropout_rng), **rate, **leaves}

    def set_optimizer_state(self, state: State, arrays: Mapping[str, np.ndarray]) -> State:
        """Return the state with what `optimizer_state` returned."""
        leaves, structure = jax.tree.flatten(state.opt_state)
        placed = [jax.device_put(arrays[str(k)], jnp.asarray(leaf).device) for k, leaf in enumerate(leaves)]
        step, key = (
            jax.device_put(arrays[name], jnp.asarray(value).device)
            for name, value in (("step", state.step), ("key", state.dropout_rng))
        )
        state = state.replace(opt_state=jax.tree.unflatten(structure, placed), step=step, dropout_rng=key)
        return self.set_lr(state, float(arrays["rate"])) if "rate" in arrays else state

    def set_lr(self, state: State, lr: float) -> State:
        """Return the state with another learning rate, an argument of the compiled step from now on."""
        if (memory := with_injected_rate(state.opt_state, lr)) is not None:
            return state.replace(opt_state=memory)
        rate = jax.device_put(jnp.asarray(lr), jnp.asarray(state.step).device)
        return state.replace(tx=at_rate(state.tx, lr), rate=rate)

    def train_step(self, state: State, batch: Batch, clip: float) -> tuple[State, Metrics]:
        """Take one step of the optimiser."""
        model = state.steps.model
        model.training = True
        state, metrics = state.steps.step(state.replace(**model.learned), batch, clip)
        self.finish_epoch(model, state)
        return state, metrics

    def train_epoch(
        self, state: State, data: Batch, order: np.ndarray, batch_size: int, clip: float
    ) -> tuple[State, Numbers]:
        """Take a step for each `batch_size` entries of `order`, in one compiled loop; a last, shorter one by itself."""
        model, parts = state.steps.model, []
        model.training = True
        state = state.replace(**model.learned)
        whole = len(order) // batch_size * batch_size
        for part, size in ((order[:whole], batch_size), (order[whole:], len(order) - whole)):
            if len(part):
                rows = jax.device_put(part.reshape(-1, size).astype(np.int32), data[0].device)
                state, metrics = state.steps.epoch(state, data, rows, clip)
                parts.append(metrics)
        self.finish_epoch(model, state)
        return state, _fetched(parts)

    def finish_epoch(self, model: Module, state: State) -> None:
        """Let the model keep the state's variables, also where a reader's own `fit_epoch` took the steps.

        If it has had these, it keeps what it has now: a callback may have set its weights since then.
        """
        if state.params is not state.steps.kept:
            model.learned, state.steps.kept = state.variables, state.params

    def eval_step(self, model: Module, batch: Batch) -> Metrics:
        """Return the metrics of one batch, without dropout and gradients."""
        model.training = False
        if model._evaluate is None:
            model._evaluate = evaluation_of(model)
        metrics: Metrics = model._evaluate(model.learned, batch)
        return metrics

    def eval_epoch(self, model: Module, data: Batch, batch_size: int) -> Numbers:
        """Return the metrics of each `batch_size` samples, without dropout and gradients."""
        starts = range(0, len(data[-1]), batch_size)
        return _fetched([self.eval_step(model, tuple(X[i : i + batch_size] for X in data)) for i in starts])

    def clip_gradients(self, grad_clip_val: float, model: Any) -> Any:
        """Return gradients, given in place of the model, scaled to a common norm of at most `grad_clip_val`."""
        return steps.clip_gradients(grad_clip_val, model)

    # The function edition

    def outputs(self, net: Any, X: Array) -> Array:
        """Return the outputs of a net or function for a batch, without dropout."""
        Y: Array = net(X)
        return Y

    def learn(self, net: Any, X: Array, y: Array, loss: Any, updater: Any) -> tuple[Array, Array]:
        """Take a step with a new key for the masks; return the sum of the losses, and the outputs, under dropout.

        An updater that is no optimiser of Optax is called with the batch size and the gradients.
        """
        if not isinstance(net, Net):
            raise UsageError(f"Expected a net of the kind Net(function, params). Received: {net!r}")
        key = keys.get_key()

        def objective(params: Any) -> tuple[Array, Array]:
            y_hat = net.function(params, X, key)
            return self.total_loss(loss, y_hat, y), y_hat

        (total, y_hat), grads = jax.value_and_grad(objective, has_aux=True)(net.params)
        if hasattr(updater, "update"):
            net.update(updater, jax.tree.map(lambda grad: grad / len(y), grads))
        else:  # divides by the batch size itself
            updater(len(y), grads)
        return total, y_hat

    def num_correct(self, y_hat: Array, y: Array) -> Array:
        """Return how many of the predictions are right, on the device."""
        return ((y_hat.argmax(axis=1) if y_hat.ndim > 1 else y_hat) == y).sum()


def _fetched(parts: Sequence[Metrics]) -> Numbers:
    """Return metrics, scalars or vectors, as lists of numbers: the host waits for the device once."""
    host = jax.device_get(parts)
    names = host[0] if host else ()
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in host]).tolist() for name in names}


backend = JaxBackend()
