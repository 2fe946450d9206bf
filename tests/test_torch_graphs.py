"""Recorded steps of PyTorch: what is around a recording runs anywhere, a recording itself needs a GPU."""

import importlib
from contextlib import nullcontext

import numpy as np
import pytest

from d2ldrop import Callback, Trainer
from d2ldrop.randomness import sharing_masks

torch = pytest.importorskip("torch")
replay = importlib.import_module("d2ldrop.torch.graphs")
caller = importlib.import_module("d2ldrop.torch.backend").TorchBackend.train_epoch.__globals__
pytestmark = pytest.mark.only_torch


def trained(d2l, small, model=None, epochs=3, **options):
    model = model or d2l.DropoutMLPScratch(**small)
    trainer = Trainer(epochs, **{"seed": 0, "progress": False, **options})
    trainer.fit(model, d2l.Digits())
    return trainer.history, d2l.get_weights(model)


@pytest.fixture
def recordings(monkeypatch):
    """Let a CPU play the GPU: what is recorded runs when it is replayed, and leaves its metrics in the same tensors."""
    made = []

    def record(step):
        made.append(step)
        metrics = {}

        def run():
            for key, value in step().items():
                metrics.setdefault(key, torch.empty_like(value)).copy_(value)

        return run, metrics

    monkeypatch.setattr(replay, "record", record)
    monkeypatch.setattr(replay, "aside", nullcontext)
    monkeypatch.setitem(caller, "can_be_replayed", lambda model, device: True)
    return made


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_replayed_steps_are_the_same_steps(d2l, small, kind, request):
    expected, weights = trained(d2l, small, getattr(d2l, kind)(**small), gradient_clip_val=0.5)
    recordings = request.getfixturevalue("recordings")
    received, replayed = trained(d2l, small, getattr(d2l, kind)(**small), gradient_clip_val=0.5)
    assert len(recordings) == 1
    for name in weights:
        np.testing.assert_array_equal(replayed[name], weights[name])
    for key in ("train_loss", "train_acc", "val_loss"):
        assert [row[key] for row in received] == [row[key] for row in expected]


def test_changes_of_what_was_recorded_make_a_new_recording(d2l, small, recordings):
    class Change(Callback):
        def on_epoch_end(self, trainer):
            if trainer.epoch == 0:
                trainer.optim.param_groups[0]["lr"] /= 2
            if trainer.epoch == 1:
                trainer.model.dropout_1 = 0.75
            if trainer.epoch == 2:
                trainer.model.lin1.bias.data = trainer.model.lin1.bias.data.clone()

    trained(d2l, small, epochs=5, callbacks=[Change()])
    assert len(recordings) == 4


def test_only_steps_without_code_of_the_reader_are_recorded(d2l, small):
    class Own(d2l.DropoutMLP):
        def loss(self, Y_hat, Y, averaged=True):
            return 2 * super().loss(Y_hat, Y, averaged)

    class Layer(torch.nn.Module):
        def forward(self, X):
            return X

    def built(kind):
        model = kind(**small)
        d2l.backend.build(model, (torch.zeros(2, 1, 8, 8),), torch.device("cpu"))
        return model

    gpu, model = torch.device("cuda"), built(d2l.DropoutMLP)
    assert replay.can_be_replayed(model, gpu)
    assert replay.can_be_replayed(built(d2l.DropoutMLPScratch), gpu)
    assert not replay.can_be_replayed(model, torch.device("cpu"))
    assert not replay.can_be_replayed(built(Own), gpu)
    with sharing_masks(np.random.default_rng(0)):
        assert not replay.can_be_replayed(model, gpu)
    hook = model.net[0].register_forward_hook(lambda *args: None)
    assert not replay.can_be_replayed(model, gpu)
    hook.remove()
    model.net.append(Layer())
    assert not replay.can_be_replayed(model, gpu)


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_train_step_does_not_synchronise(d2l, small, kind):
    """On the device `meta` there are shapes, but no values: reading one, for which a GPU would wait, is an error."""
    model = getattr(d2l, kind)(**small)
    d2l.backend.build(model, (torch.zeros(2, 1, 8, 8),), torch.device("cpu"))
    model.to("meta")
    images, labels = torch.empty(8, 1, 8, 8, device="meta"), torch.empty(8, dtype=torch.int64, device="meta")
    model.configure_optimizers = lambda: d2l.SGD(model.parameters(), lr=0.1)
    state = d2l.backend.init_state(model, seed=None)
    _, metrics = d2l.backend.train_step(state, (images, labels), clip=1.0)
    assert {key: value.device.type for key, value in metrics.items()} == {"loss": "meta", "acc": "meta"}
    with pytest.raises(RuntimeError, match="meta"):
        float(metrics["loss"])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_recorded_training_on_a_gpu(d2l, small, kind, monkeypatch):
    no_chance = {**small, "dropout_1": 0, "dropout_2": 0}
    received, _ = trained(d2l, small, getattr(d2l, kind)(**no_chance), num_gpus=1)
    monkeypatch.setitem(caller, "can_be_replayed", lambda model, device: False)
    expected, _ = trained(d2l, small, getattr(d2l, kind)(**no_chance), num_gpus=1)
    for key in ("train_loss", "val_loss"):
        assert [row[key] for row in received] == pytest.approx([row[key] for row in expected], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_each_replay_on_a_gpu_draws_a_new_mask(d2l, dtype):
    X = torch.ones(64, 64, device="cuda", dtype=getattr(torch, dtype))
    chosen = torch.zeros(1, device="cuda")
    step = replay.Replay((), lambda chosen: {"Y": d2l.dropout_layer(X, 0.5)}, chosen)
    assert len({d2l.numpy(step(chosen)["Y"]).tobytes() for _ in range(20)}) == 20
