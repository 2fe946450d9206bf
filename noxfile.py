"""Sessions: `nox -l` lists them; what follows `--` goes to the program that the session runs."""

import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests_all"]
nox.options.reuse_existing_virtualenvs = True

BACKENDS = {"numpy": "", "torch": "[torch]", "tf": "[tf]", "jax": "[jax]", "mxnet": "[mxnet]"}
PYPROJECT = nox.project.load_toml("pyproject.toml")
ALL = "-cconstraints-all.txt"  # all frameworks at once: MXNet holds NumPy below 2
EACH = "-cconstraints.txt"  # any of the others: NumPy 2


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session
def demo(session: nox.Session) -> None:
    """Train on real data in PyTorch, as the README's first command does."""
    session.install(EACH, ".[torch]")
    session.run("d2ldrop", "train", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, and who may import whom."""
    session.install(EACH, *group("lint"), "-e", ".")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: shared code strictly, and each adapter against the seam."""
    session.install(EACH, *group("lint"), "-e", ".")
    session.run("mypy", *session.posargs)


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def tests(session: nox.Session, backend: str) -> None:
    """Run the tests where only one framework is installed."""
    session.install(ALL if backend == "mxnet" else EACH, *group("test"), "-e", f".{BACKENDS[backend]}")
    session.run("pytest", *session.posargs, env={"D2LDROP_BACKENDS": f"numpy,{backend}"})


@nox.session
def tests_all(session: nox.Session) -> None:
    """Run the tests where all frameworks are installed."""
    session.install(ALL, *group("test"), "-e", ".[all]")
    session.run("pytest", *session.posargs, env={"D2LDROP_BACKENDS": ",".join(BACKENDS)})


@nox.session
def notebooks(session: nox.Session) -> None:
    """Execute the notebooks with a real kernel, once per backend, then one of them in JupyterLab in a browser."""
    session.install(ALL, *group("notebooks"), "-e", ".[all,notebooks]")
    files = session.posargs or ["tests/notebooks.py", "tests/browser.py"]
    session.run("pytest", *files, env={"D2LDROP_BACKENDS": ",".join(BACKENDS)})


@nox.session
def watching(session: nox.Session) -> None:
    """Measure what the animated board costs, in time and in memory; run nothing else meanwhile."""
    session.install(EACH, *group("notebooks"), "-e", ".[torch]")
    session.run("python", "tests/watching.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure our epochs, layers and memory against rivals; run nothing else meanwhile."""
    session.install(ALL, ".[all]")
    session.run("d2ldrop", "bench", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and sdist, and use the wheel in an environment that knows nothing else."""
    session.install("build")
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--outdir", folder)
        (wheel,) = Path(folder).glob("*.whl")
        session.install(EACH, str(wheel))
        session.cd(folder)
        session.run("python", "-c", "import d2ldrop; print(d2ldrop.__file__, d2ldrop.available())")
        session.run("python", "-m", "d2ldrop", "info")
