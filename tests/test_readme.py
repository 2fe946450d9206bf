"""The README from top to bottom: its Python runs, its commands and extras are there, its links lead somewhere."""

import doctest
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from d2ldrop.cli import main as cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALLER = {
    "FashionMNIST(batch_size=256)": "Digits(batch_size=256)",
    "max_epochs=10": "max_epochs=1",
    "samples=100": "samples=3",
    "early_stopping=True": "max_iter=2",
}
"""What is written in the README, and what is run here, so that it takes a second."""

if not (ROOT / "pyproject.toml").exists():
    pytest.skip("the README of a checkout is tested", allow_module_level=True)


def blocks(language):
    """Return the README's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def python_of(block):
    """Return what a reader types of a block of Python, with or without prompts."""
    examples = doctest.DocTestParser().get_examples(block)
    return "".join(example.source for example in examples) if examples else block


def commands():
    """Return the command lines of all shell blocks as lists of words; what `&&` joins are several."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]


@pytest.mark.only_numpy
@pytest.mark.only_torch
def test_each_block_runs_after_those_above_it(d2l, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "reader"}
    sources = [python_of(block) for block in blocks("python")]
    assert len(sources) > 8
    assert all(any(words in source for source in sources) for words in SMALLER)
    for source in sources:
        if "from torch import" in source and d2l.name != "torch":
            continue
        for words, others in SMALLER.items():
            source = source.replace(words, others)
        source = source.replace("from d2ldrop import torch as d2l", f"from d2ldrop import {d2l.name} as d2l")
        exec(compile(source, "README.md", "exec"), namespace)
    assert {path.name for path in tmp_path.iterdir()} == {"h.csv", "run"}
    assert namespace["network"].score(namespace["X"][:100], namespace["y"][:100]) > 0.5


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "d2ldrop"], ids=" ".join)
def test_commands_are_understood(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    args = cli.parser().parse_args(words[1:])
    cli.check_together(cli.parser(), args)
    assert args.command == words[1]


def test_the_newcomers_commands_name_what_is_there(tmp_path, monkeypatch):
    others = [words for words in commands() if words[0] != "d2ldrop"]
    assert len(others) == 6  # two commands of three parts
    sessions = re.findall(r"^def (\w+)\(session: nox", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    for program, *words in others:
        if program == "python3":
            assert words == "-m venv .venv".split()
        elif program == ".venv/bin/pip":
            assert (ROOT / words[words.index("-c") + 1]).is_file()
        elif program == ".venv/bin/nox":
            assert words[0] == "-s"
            assert {*words[1:]} <= {*sessions}
        else:
            assert program == ".venv/bin/d2ldrop"
            assert cli.parser().parse_args(words).command == "train"


def test_extras_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {extra for extras in re.findall(r"\.\[([\w,]+)\]", README) for extra in extras.split(",")}
    assert {"torch", "tf", "jax", "mxnet", "notebooks"} <= named
    assert named <= {*project["optional-dependencies"]}
    assert all((ROOT / name).is_file() for name in re.findall(r"pip install -c (\S+)", README))


def test_links_lead_to_files():
    targets = [target.partition("#") for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert len(targets) > 5
    for path, _, heading in targets:
        text = (ROOT / path).read_text(encoding="utf-8")
        headings = {
            re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
        }
        assert not heading or heading in headings
