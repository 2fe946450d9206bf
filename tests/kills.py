"""Kill trainings at random moments and resume them: `nox -s kills -- --kills 100`.

For each backend a training that is killed so many times must end with the same checkpoint as one that is not.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import d2ldrop

SCRIPT = """
import sys
import d2ldrop
from d2ldrop import Checkpoint, Trainer

name, folder, epochs = sys.argv[1:]
d2l = d2ldrop.backend(name)
model = d2l.DropoutMLPScratch(
    num_outputs=10, num_hiddens_1=32, num_hiddens_2=16, dropout_1=0.25, dropout_2=0.5, lr=0.1
)
print("ready", flush=True)
trainer = Trainer(int(epochs), seed=3, progress=False, callbacks=[Checkpoint(folder, best="val_loss")])
trainer.fit(model, d2l.Digits(batch_size=100), resume=folder)
"""


def differences(name: str, kills: int, folder: Path, seed: int = 0) -> list[str]:
    """Return in what a training that was killed differs in the end from one that was not."""
    chance, epochs, killed, whole = random.Random(seed), 4 * kills, folder / "killed", folder / "whole"
    script = [sys.executable, "-c", SCRIPT, name]
    count = 0
    while count < kills:
        process = subprocess.Popen([*script, str(killed), str(epochs)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # it is about to begin
        time.sleep(chance.uniform(0, 0.3))
        count += process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
        if list(killed.glob(f"epoch-{epochs:05}*")):  # a fast machine: train longer
            epochs += 4 * kills
    for path in (killed, whole):
        subprocess.run([*script, str(path), str(epochs)], check=True, stdout=subprocess.DEVNULL)
    found = [f"{path} is left" for path in killed.glob(".*")]
    for file in (f"epoch-{epochs:05}.safetensors", "best.safetensors"):
        (arrays, about), (expected, about_whole) = (d2ldrop.read_weights(path / file) for path in (killed, whole))
        same = arrays.keys() == expected.keys() and losses(about) == losses(about_whole)
        found += [] if same else [f"{file}: history or names"]
        found += [f"{file}: {key}" for key in arrays if not np.array_equal(arrays[key], expected.get(key))]
    return found


def losses(about: dict[str, object]) -> list[dict[str, float]]:
    """Return the history in a checkpoint's metadata, without times."""
    rows = json.loads(str(about.get("checkpoint", "{}"))).get("history", [])
    return [{key: value for key, value in row.items() if key not in ("seconds", "samples_per_second")} for row in rows]


def main() -> None:
    """Kill trainings in each backend, and end with 1 if one came out differently."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--backend", action="append")
    args = parser.parse_args()
    failed = False
    for name in args.backend or d2ldrop.available():
        with tempfile.TemporaryDirectory() as folder:
            found = differences(name, args.kills, Path(folder))
        print(f"{name}: killed {args.kills} times, {len(found)} differences {found or ''}", flush=True)
        failed = failed or bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    main()
