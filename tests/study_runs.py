"""What the studies of the tests run; workers import it."""

import os
import signal
import sys
import time
from pathlib import Path
from uuid import uuid4

from d2ldrop.studies.training import fitted


def trained(seed, **settings):
    """Train a small model on the digits, and return its curves."""
    history = fitted(seed, data="digits", num_hiddens_1=32, num_hiddens_2=16, **settings).history
    return {"val_acc": history[-1]["val_acc"], "losses": [row["train_loss"] for row in history]}


def counted(seed, folder, factor=2):
    """Leave a file for each call."""
    (Path(folder) / f"{seed}-{uuid4().hex}").touch()
    return {"value": seed * factor}


def killed_once(seed, folder, victim):
    """Kill the process when it makes one of the runs for the first time; each takes so long that results arrive."""
    time.sleep(0.1)
    if seed == victim and not (marker := Path(folder) / "killed").exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return counted(seed, folder)


def killed_always(seed, folder, victim):
    """Kill the process whenever it makes one of the runs."""
    if seed == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return counted(seed, folder)


def failing(seed, folder, victim):
    """Raise an error in one of the runs."""
    if seed == victim:
        raise ZeroDivisionError("nothing to divide by")
    return counted(seed, folder)


def threads(seed, backend):
    """Count the threads of NumPy's BLAS and, if it is there, of PyTorch."""
    from threadpoolctl import threadpool_info

    trained(seed, backend=backend, epochs=1)
    pools = {f"pool {k}": pool["num_threads"] for k, pool in enumerate(threadpool_info())}
    return pools | ({"torch": sys.modules["torch"].get_num_threads()} if "torch" in sys.modules else {})
