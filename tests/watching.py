"""Measure what the animated board costs in a notebook: time and memory with the board on and off.

Everything runs in one real kernel, which sends each picture to a client that reads it, as JupyterLab does. Run nothing
else at the same time.
"""

import argparse
import json
import statistics

from jupyter_client.manager import start_new_kernel

SETUP = """
import json, time
import psutil
import d2ldrop

d2l = d2ldrop.backend({backend!r})
d2l.use_svg_display()
hparams = dict(num_hiddens_1=256, num_hiddens_2=256, dropout_1=0.5, dropout_2=0.5, lr=0.1)

def fit(data, epochs, watched, callbacks=()):
    model = d2l.DropoutMLPScratch(num_outputs=10, **hparams)
    trainer = d2l.Trainer(epochs, seed=0, callbacks=callbacks, progress=None if watched else False)
    started = time.perf_counter()
    trainer.fit(model, data)
    return time.perf_counter() - started

class Memory(d2ldrop.Callback):
    def on_epoch_end(self, trainer):
        if trainer.progress is None:
            trainer.model.board.show()  # at least once per epoch, however short epochs are
        if trainer.epoch + 1 in (20, 200):
            sizes.append(psutil.Process().memory_info().rss / 2**20)

data, digits = d2l.{data}(batch_size=256), d2l.Digits(batch_size=256)
"""
TIME = "print(json.dumps(fit(data, {epochs}, watched={watched})))"
MEMORY = "sizes = []; fit(digits, 200, watched={watched}, callbacks=[Memory()]); print(json.dumps(sizes))"


def run(client, code):
    """Run a cell; return what it printed, as JSON, and how many pictures it sent."""
    printed, pictures = [], []

    def look(message):
        content = message["content"]
        if message["msg_type"] == "stream" and content["name"] == "stdout":
            printed.append(content["text"])
        elif message["msg_type"] in ("display_data", "update_display_data"):
            pictures.append(content["data"]["image/svg+xml"])

    reply = client.execute_interactive(code, output_hook=look, store_history=False, timeout=3600)["content"]
    if reply["status"] != "ok":
        raise SystemExit("\n".join(reply["traceback"]))
    return json.loads("".join(printed) or "null"), len(pictures)


def watch_time(client, epochs, rounds):
    """Train with the board off, on, and off again, alternately; print medians, and the range over the rounds."""
    boards = {"off": False, "on": True, "off again": False}
    times, pictures = {name: [] for name in boards}, 0
    for round_ in range(rounds + 1):
        names = list(boards)[round_ % 3 :] + list(boards)[: round_ % 3]  # none is always the first
        for name in names:
            seconds, sent = run(client, TIME.format(epochs=epochs, watched=boards[name]))
            if round_ > 0:  # the first is to warm up
                times[name].append(seconds)
                pictures += sent
    print(f"\n{'board':10}{'median s':>10}{'longer by':>12}{'rounds from':>14}{'to':>8}{'pictures':>10}")
    off = statistics.median(times["off"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        shares = [one / other - 1 for one, other in zip(seconds, times["off"], strict=True)]
        sent = f"{pictures / rounds:.0f}" if name == "on" else "0"
        print(f"{name:10}{median:10.3f}{median / off - 1:12.1%}{min(shares):14.1%}{max(shares):8.1%}{sent:>10}")
    print("'off again' is the same as 'off': the difference between them is noise.")


def watch_memory(client):
    """Train for 200 epochs with the board off and on, and print how the memory of the process grows."""
    print(f"\n{'board':10}{'MiB after epoch 20':>20}{'after 200':>12}{'growth':>9}{'pictures':>10}")
    for name, watched in {"off": False, "on": True}.items():
        (early, late), pictures = run(client, MEMORY.format(watched=watched))
        print(f"{name:10}{early:20.1f}{late:12.1f}{late - early:9.1f}{pictures:10}")


def main():
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--data", default="FashionMNIST", choices=["FashionMNIST", "Digits"])
    parser.add_argument("--epochs", type=int, default=10, help="of each training that is timed")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    manager, client = start_new_kernel()
    try:
        run(client, SETUP.format(backend=args.backend, data=args.data))
        print(f"{args.backend}, {args.data}: {args.rounds} rounds of {args.epochs} epochs")
        watch_time(client, args.epochs, args.rounds)
        watch_memory(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


if __name__ == "__main__":
    main()
