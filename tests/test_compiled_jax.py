"""JAX keeps what it compiles in the user's cache folder, unless somebody said otherwise."""

import os

import pytest

jax = pytest.importorskip("jax")
compilation_cache = pytest.importorskip("jax.experimental.compilation_cache.compilation_cache")

from d2ldrop.jax.compiled import keep_compiled  # noqa: E402 - what it imports may be missing

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Let nobody have chosen a folder, and return the one that JAX is to use."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    monkeypatch.setenv("D2LDROP_JAX_CACHE", str(tmp_path / "kept"))
    yield tmp_path / "kept"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_what_is_compiled_is_kept(folder):
    keep_compiled()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # so small a function as below, too
    jax.jit(lambda x: x * 3 + 41)(1.0)
    assert [path for path in folder.rglob("*") if path.is_file()]


def test_it_is_kept_below_the_users_cache_folder(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("D2LDROP_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "cache" / "d2ldrop" / "jax"))


def test_it_can_be_turned_off(folder, monkeypatch):
    monkeypatch.setenv("D2LDROP_JAX_CACHE", "0")
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None
    assert not folder.exists()


def test_a_folder_that_others_chose_stays(folder, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "theirs")
    assert not folder.exists()


def test_a_relative_folder_stays_where_it_is(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D2LDROP_JAX_CACHE", "kept")
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir.startswith(str(folder))


def test_a_folder_that_cannot_be_written_is_left_out(folder):
    folder.write_text("a file where the folder should be")
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None


def test_training_asks_for_it(folder, small):
    from d2ldrop import jax as d2l

    trainer = d2l.Trainer(1, progress=False)
    trainer.fit(d2l.DropoutMLPScratch(**small), d2l.Digits(512))
    assert jax.config.jax_compilation_cache_dir.startswith(str(folder))
    assert os.listdir(folder)
