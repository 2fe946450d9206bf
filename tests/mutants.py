"""Break the library on purpose, one place at a time, and check that a test notices: python tests/mutants.py [NAME ...].

Each mutant is a change of one place in a copy of the package, and the test that must fail then. No mutant needs data
that has to be downloaded.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """A deliberate fault."""

    file: str  # below d2ldrop/
    old: str
    new: str
    test: str  # below tests/
    backend: str = "numpy"


with open(Path(__file__).with_suffix(".toml"), "rb") as table:
    MUTANTS = {name: Mutant(**fields) for name, fields in tomllib.load(table).items()}


def survives(mutant: Mutant) -> bool:
    """Return True if the test passes although the mutant is in place."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("d2ldrop", "tests"):
            shutil.copytree(ROOT / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "conftest.py"):
            shutil.copy(ROOT / part, folder)
        path = Path(folder, "d2ldrop", mutant.file)
        source = path.read_text(encoding="utf-8")
        if mutant.old not in source:
            raise SystemExit(f"{mutant.file} has no {mutant.old!r} any more")
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{mutant.test}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder, "D2LDROP_BACKENDS": mutant.backend},
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode not in (0, 1):
            raise SystemExit(done.stdout)
        return done.returncode == 0


def main(names: list[str]) -> int:
    """Try the mutants of some names, or all of them; return 1 if one survives."""
    alive = []
    for name in names or MUTANTS:
        noticed = not survives(MUTANTS[name])
        print(f"{'noticed' if noticed else 'NOT NOTICED'}: {name}, by {MUTANTS[name].test}", flush=True)
        alive += [] if noticed else [name]
    print(f"{len(names or MUTANTS) - len(alive)} noticed, {len(alive)} not noticed: {', '.join(alive) or 'none'}")
    return bool(alive)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
