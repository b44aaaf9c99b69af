"""What all tests share is the compiler's cache: one of them that is killed must not make the others fail."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture
def cache(tmp_path):
    """A cache of its own, into which everything goes."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path), 0.0)):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_half_an_entry_is_compiled_again(cache):
    def compiled():
        return jax.jit(lambda x: 2 * x + 1)

    assert compiled()(1.0) == 3
    entries = list(cache.glob("*-cache"))
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    assert compiled()(1.0) == 3
