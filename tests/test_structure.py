"""The structure of the source: which way imports go, what an adapter consists of, and that shared code names none."""

import ast
import graphlib
import re
from pathlib import Path

import pytest
from mutants import MUTANTS

import d2ldrop
from d2ldrop.registry import package_of, registered

ROOT = Path(d2ldrop.__file__).parent
ADAPTERS = tuple(name for name in registered() if (ROOT / name).is_dir())  # those that are part of this library
FRAMEWORKS = {package_of(name) for name in ADAPTERS} - {"numpy"} | {"flax", "keras", "optax"}


def module_name(path: Path) -> str:
    """Return the import path of a file."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(path): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}


def imported(tree: ast.AST) -> set[str]:
    """Return what is imported anywhere below a node, in functions and for type checkers as well."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(name: str) -> str | None:
    """Return the module of this library that an import loads, and None for others."""
    return next((found for found in (name, name.rpartition(".")[0]) if found in TREES), None)


def is_shared(module: str) -> bool:
    """Return True if a module is neither part of an adapter nor a baseline of the benchmark."""
    _, part, *_ = (*module.split("."), "")
    return part not in (*ADAPTERS, "tensorflow") and not module.startswith("d2ldrop.benchmarks.baselines")


def test_the_source_is_found():
    assert len(ADAPTERS) == 5
    assert {"torch", "tensorflow", "jax", "mxnet"} < FRAMEWORKS
    assert own("d2ldrop.errors.UsageError") == "d2ldrop.errors"
    assert sum(is_shared(module) for module in TREES) > 20


@pytest.mark.parametrize("module", [module for module in TREES if is_shared(module)])
def test_shared_code_imports_no_framework_and_no_adapter(module):
    names = imported(TREES[module])
    assert not {name for name in names if name.partition(".")[0] in FRAMEWORKS}
    assert not {name for name in names if own(name) and not is_shared(own(name))}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_import_neither_each_other_nor_their_own_package(adapter):
    """Inside an adapter, `from d2ldrop.torch import ...` would ask for the package while it is being made."""
    for module, tree in TREES.items():
        if module.startswith(f"d2ldrop.{adapter}"):
            loaded = {own(name) for name in imported(tree)} - {None}
            assert f"d2ldrop.{adapter}" not in loaded
            assert {name.split(".")[1] for name in loaded} & {*ADAPTERS} <= {adapter}


def test_imports_form_no_circle():
    graph = {module: {own(name) for name in imported(tree)} - {None} for module, tree in TREES.items()}
    assert len(graph["d2ldrop.training.trainer"]) > 5
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def defined(tree: ast.Module) -> set[str]:
    """Return the public names that a module defines, without variables for types."""
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and "TypeVar" not in ast.unparse(node):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}


LISTED = [name for name, tree in TREES.items() if is_shared(name) and defined(tree)] + ["d2ldrop.jax.nnx"]


@pytest.mark.parametrize("module", LISTED)
def test_a_module_lists_its_public_names(module):
    """`__all__` holds what a module of shared code defines; a package's holds what it offers of its modules."""
    values = [ast.literal_eval(node.value) for node in TREES[module].body if "__all__ =" in ast.unparse(node)[:9]]
    assert values == [[*dict.fromkeys(values[0])]], "once, and each name once"
    is_package = (ROOT.parent / module.replace(".", "/")).is_dir()
    if not is_package:
        assert {*values[0]} == defined(TREES[module])


@pytest.mark.parametrize("module", [*TREES])
def test_modules_import_before_they_define(module):
    defined = False
    for statement in TREES[module].body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            defined = True
        else:
            assert not (defined and imported(statement)), f"line {statement.lineno}"


@pytest.mark.parametrize("module", [*TREES])
def test_no_import_rule_is_waived(module):
    waived = [line for line in SOURCES[module].splitlines() if re.search(r"noqa(?!: *[A-Z])|noqa.*(E402|F401)", line)]
    assert not waived


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_defines_nothing_in_its_package(adapter):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(TREES[f"d2ldrop.{adapter}"]) if isinstance(node, kinds)]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_lesson_is_short_and_begins_with_dropout(adapter):
    lesson = f"d2ldrop.{adapter}.lesson"
    assert len(SOURCES[lesson].splitlines()) <= 200
    defined = [node.name for node in TREES[lesson].body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert defined[0] == "dropout_layer"
    expected = {"Module", "Classifier", "SGD", "SoftmaxRegression", "DropoutMLPScratch", "DropoutMLP"}
    assert expected <= {*defined} | {name.rpartition(".")[2] for name in imported(TREES[lesson])}


FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_that_is_read_can_run_code(module):
    """No module unpickles, evaluates text, or starts a shell."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            on_module = isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
            owner = node.func.value.id if on_module else ""
            assert called not in {"exec", "__import__"} or owner, (module, node.lineno)
            assert called != "eval" or owner, (module, node.lineno)  # a method may have that name
            assert (owner, called) not in {("os", "system"), ("os", "popen")}, (module, node.lineno)
            assert not any(
                word.arg in ("shell", "allow_pickle") and getattr(word.value, "value", True) for word in node.keywords
            ), (module, node.lineno)
    assert not {name.partition(".")[0] for name in imported(TREES[module])} & FORBIDDEN


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_each_row_about_transforms_names_its_test(adapter):
    """In `docs/transforms.md`, a framework's section names tests of its files, a row at least one."""
    tests = Path(__file__).parent
    page = (tests.parent / "docs" / "transforms.md").read_text(encoding="utf-8")
    title = {"torch": "PyTorch", "tf": "TensorFlow", "jax": "JAX", "mxnet": "MXNet", "numpy": "NumPy"}[adapter]
    section = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)[1]
    sources = [path.read_text("utf-8") for path in tests.glob(f"test_*s_{adapter}.py")]
    defined = {name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}
    named = re.findall(r"`(test_\w+)`", section)
    assert named
    assert set(named) <= defined
    rows = [
        line for line in section.splitlines() if line.startswith("|") and not line.startswith(("|--", "| transform"))
    ]
    assert all("`test_" in row.rpartition(" | ")[2] for row in rows)


def test_each_mutant_finds_its_place_and_its_test():
    """A fault whose place was rewritten would be noticed only by `nox -s mutants`, which takes long."""
    for name, mutant in MUTANTS.items():
        path, _, test = mutant.test.partition("::")
        assert mutant.old in (ROOT / mutant.file).read_text("utf-8"), name
        assert test.split("[")[0] in (Path(__file__).parent / path).read_text("utf-8"), name
