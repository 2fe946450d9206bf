"""Sessions: `nox -l` lists them; what follows `--` goes to the program that the session runs.

`nox --force-python 3.13 -s "tests(jax)"` runs one with another Python.
"""

import shutil
import tempfile
from pathlib import Path
from zipfile import ZipFile

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests_all"]
nox.options.reuse_existing_virtualenvs = True

BACKENDS = {"numpy": "", "torch": "[torch]", "tf": "[tf]", "jax": "[jax]", "mxnet": "[mxnet]"}
PYPROJECT = nox.project.load_toml("pyproject.toml")
ALL = "-cconstraints-all.txt"  # all frameworks at once: MXNet needs NumPy 1
EACH = "-cconstraints.txt"  # any of the others: NumPy 2
LOWEST = "-cconstraints-lowest.txt"  # the lower bounds in pyproject.toml
SLOW = "--ignore=tests/test_chapter.py"  # ten epochs of the real data, which `tests_all` trains
CORE = [
    f"tests/test_{name}.py"
    for name in ("dropout", "forged_weights", "functional", "models", "noise", "readers", "seam", "weights")
]


def kept_by_jax(session: nox.Session) -> dict[str, str]:
    """Return the variables by which processes share what JAX compiles; many tests compile the same.

    JAX neither locks these files nor writes them in one step: a process that reads what another still writes, or was
    killed while it wrote, warns and compiles. The tests' own processes ignore that, as pyproject.toml says.
    """
    races = ("ignore:Error reading persistent compilation", "ignore:Error writing persistent compilation")
    return {
        "PYTHONWARNINGS": ",".join(races),
        "JAX_COMPILATION_CACHE_DIR": str((session.cache_dir / "jax").resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def group(*names: str) -> list[str]:
    """Return the requirements of dependency groups."""
    return nox.project.dependency_groups(PYPROJECT, *names)


@nox.session
def demo(session: nox.Session) -> None:
    """Train on real data in PyTorch, as the README's first command does."""
    session.install(EACH, ".[torch]")
    session.run("d2ldrop", "train", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, and the direction of imports."""
    session.install(EACH, *group("lint"), "-e", ".")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Check types where the frameworks that have types are installed; NumPy 2 knows more types than NumPy 1."""
    session.install(EACH, *group("types"), "-e", ".[torch,jax]")
    session.run("mypy", *session.posargs)


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def tests(session: nox.Session, backend: str) -> None:
    """Run the tests of one framework where no other is installed.

    `tests_all` runs everything with NumPy 1. With NumPy 2, NumPy runs all tests but the slow ones, and each framework
    those that depend most on its version.
    """
    session.install(ALL if backend == "mxnet" else EACH, *group("test"), "-e", f".{BACKENDS[backend]}")
    selected = [SLOW] if backend == "numpy" else [*CORE, "-k", backend]  # the ids of tests have the backend's name
    env = {"D2LDROP_BACKENDS": backend, **kept_by_jax(session)}
    session.run("pytest", *(session.posargs or selected), env=env)


@nox.session
def tests_all(session: nox.Session) -> None:
    """Run all tests where all frameworks are installed, in two processes of one thread each."""
    session.install(ALL, *group("test"), "-e", ".[all]")
    env = {"D2LDROP_BACKENDS": ",".join(BACKENDS), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    env |= kept_by_jax(session)
    session.run("pytest", *(session.posargs or ["-n2", "--dist=loadfile"]), env=env)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows; PyTorch's and MXNet's are in `tests_all`."""
    session.install(LOWEST, *group("test"), "-e", ".[tf,jax]")
    session.run("pytest", *(session.posargs or CORE), env={"D2LDROP_BACKENDS": "numpy,tf,jax"})


@nox.session
def clusters(session: nox.Session) -> None:
    """Run studies on Dask and Ray clusters of two workers, and kill one of these."""
    session.install(EACH, *group("test"), "-e", ".[torch,dask,ray]")
    session.run("pytest", *(session.posargs or ["tests/test_clusters.py"]), env={"D2LDROP_BACKENDS": "numpy,torch"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the library on purpose, one place at a time, and check that a test notices."""
    session.install(ALL, *group("test"), "-e", ".[all]")
    session.run("python", "tests/mutants.py", *session.posargs)


@nox.session
def kills(session: nox.Session) -> None:
    """Kill trainings 100 times in each backend, resume them, and compare the end with that of others, bit by bit."""
    session.install(ALL, "-e", ".[all]")
    session.run("python", "tests/kills.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Give 200,000 mutated files to each reader of files; only errors of this library may come out."""
    session.install(EACH, *group("fuzz"), "-e", ".")
    for reader in session.posargs or ("idx", "weights", "checkpoint"):
        session.run("python", "tests/fuzz.py", reader)


@nox.session
def audit(session: nox.Session) -> None:
    """Look the tested versions up in the database of known vulnerabilities; it needs the network."""
    session.install(*group("audit"))
    for constraints in ("constraints.txt", "constraints-all.txt"):
        session.run("pip-audit", "--no-deps", "--disable-pip", "-r", constraints, *session.posargs)


@nox.session
def trace(session: nox.Session) -> None:
    """Count how often shared code and each adapter call each other in a `fit` of one batch."""
    session.install(ALL, "-e", ".[all]")
    session.run("python", "tests/crossings.py", *session.posargs)


@nox.session
def notebooks(session: nox.Session) -> None:
    """Execute the notebooks in a real kernel, once per backend, two at a time; then one in JupyterLab in a browser."""
    session.install(ALL, *group("notebooks"), "-e", ".[all,notebooks]")
    env = {"D2LDROP_BACKENDS": ",".join(BACKENDS), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for options in [session.posargs] if session.posargs else (["-n2", "tests/notebooks.py"], ["tests/browser.py"]):
        session.run("pytest", *options, env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation in three languages, where each page's code is executed, and look at it in a browser.

    Nothing is downloaded: where pages train on Fashion-MNIST if they find it, they use the digits.
    """
    session.install(ALL, *group("docs"), "-e", ".[all]")
    built = Path("docs", "_build")
    shutil.rmtree(built, ignore_errors=True)
    env = {"D2LDROP_DATA": str(built / "no-data"), "HTTPS_PROXY": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
    env |= kept_by_jax(session)
    for language, folder in {"en": "html", "zh_CN": "html/zh_CN", "ko": "html/ko"}.items():
        options = ["-qW", "--keep-going", "-D", f"language={language}", "-d", str(built / "doctrees" / language)]
        session.run("sphinx-build", *options, "docs", str(built / folder), env=env)
    session.run("pytest", *(session.posargs or ["tests/docs_site.py"]))


@nox.session
def watching(session: nox.Session) -> None:
    """Measure what the animated board costs, in time and in memory; run nothing else meanwhile."""
    session.install(EACH, *group("notebooks"), "-e", ".[torch]")
    session.run("python", "tests/watching.py", *session.posargs)


@nox.session
def memory(session: nox.Session) -> None:
    """Measure the memory that fits of new models leave behind, in each backend."""
    session.install(ALL, "-e", ".[all]")
    session.run("python", "tests/memory.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure our epochs, layers and memory against baselines; run nothing else meanwhile."""
    session.install(ALL, ".[all]")
    session.run("d2ldrop", "bench", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and sdist, and use the wheel in an environment with nothing else in it."""
    session.install(EACH, *group("build"))
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--outdir", folder)
        (wheel,) = Path(folder).glob("*.whl")
        stray = [name for name in ZipFile(wheel).namelist() if not name.startswith(("d2ldrop/", "d2ldrop-"))]
        if stray:
            session.error(f"The wheel holds more than the package: {stray}")
        session.install(EACH, str(wheel))
        session.cd(folder)
        session.run("python", "-c", "import d2ldrop; print(d2ldrop.__file__, d2ldrop.available())")
        session.run("python", "-m", "d2ldrop", "info")
