"""After training, nothing keeps a model or its trainer alive that the reader has dropped; see also memory.py."""

import gc
import weakref

import pytest
from helpers import fitted


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_dropped_models_and_trainers_are_freed(d2l, small, kind):
    trainer, model = fitted(d2l, small, kind=kind, epochs=2)
    trainer.predict(trainer.data.split(False, d2l.channels_last)[0])
    trainer.evaluate()
    left = [weakref.ref(each) for each in (trainer, model, trainer.data)]
    del trainer, model
    gc.collect()
    assert [each() for each in left] == [None] * 3
