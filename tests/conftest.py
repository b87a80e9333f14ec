"""How the tests run: eight CPU devices, warnings are errors, and a rank that is promoted silently is one too.

Most of their time is XLA's, which compiles with few optimisations: `XLA_FLAGS= python -m pytest` tests what a user
compiles.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")  # of `optimised` tests, and in processes

import jax
import pytest

LONG = "stn_study synth readme loop model step pretrained bench population notebooks data_stream ancestor experiments"

# Of processes that share the tests as well, which inherit what `pytest_sessionstart` adds.
IS_QUICK = "--xla_backend_optimization_level=1" in os.environ["XLA_FLAGS"].split()
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", IS_QUICK)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """What XLA compiles is kept beside pytest's own cache, for the next run and for the programs that tests start."""
    settings = {
        "jax_compilation_cache_dir": str(config.cache.mkdir("jax")),
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    os.environ["XDG_CACHE_HOME"] = str(config.cache.mkdir("xdg"))  # what read.py keeps


def pytest_sessionstart():
    """Programs are compiled by what is the sooner done with it."""
    from crnn_jax.training.parallel import leave_out_fusion_emitters  # not before its types are checked

    leave_out_fusion_emitters()


def pytest_collection_modifyitems(items):
    """The files that take longest first, so that no process is left alone with one of them."""
    files = [f"test_{name}.py" for name in LONG.split()]
    items.sort(key=lambda item: files.index(item.path.name) if item.path.name in files else len(files))


@pytest.fixture(autouse=True, scope="module")
def forget_compilations():
    """Programs of a file that is done are freed: each has memory mappings, of which Linux allows a process 65,530."""
    yield
    jax.clear_caches()


@pytest.fixture
def optimised():
    """For tests that compute for longer than it takes to compile them better."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", IS_QUICK)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a small model (`small.save_small`), which reads nonsense."""
    from small import save_small  # not before its types are checked

    return save_small(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def reader(model):
    """Its Reader."""
    import crnn_jax

    return crnn_jax.load(model)
