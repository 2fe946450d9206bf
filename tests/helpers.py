"""What several test files need."""

from d2ldrop import Trainer


def fitted(d2l, small, epochs=1, kind="DropoutMLPScratch", data=None, **options):
    """Return a trainer and the model that it has trained on the digits, from seed 0 unless another is given."""
    model = getattr(d2l, kind)(**small)
    trainer = Trainer(epochs, **{"seed": 0, "progress": False, **options})
    trainer.fit(model, data or d2l.Digits())
    return trainer, model
