"""How the tests run: on eight CPU devices; warnings and silent rank promotion are errors.

Most of their time goes into compilation, so XLA makes few optimisations: `XLA_FLAGS= python -m pytest` tests what users
compile.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")  # for `optimised` tests and child processes

import jax
import pytest

LONG = "stn_study synth readme loop model step pretrained bench population notebooks data_stream ancestor experiments"

# Also in pytest-xdist's processes, which inherit the flags that `pytest_sessionstart` adds.
IS_QUICK = "--xla_backend_optimization_level=1" in os.environ["XLA_FLAGS"].split()
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", IS_QUICK)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Keeps what XLA compiles in pytest's cache, for the next run and for the programs that tests start."""
    settings = {
        "jax_compilation_cache_dir": str(config.cache.mkdir("jax")),
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    os.environ["XDG_CACHE_HOME"] = str(config.cache.mkdir("xdg"))  # where read.py keeps its programs


def pytest_sessionstart():
    """Has XLA compile without its newer emitters, which is faster."""
    from crnn_jax.training.parallel import leave_out_fusion_emitters  # not at the top: its types would not be checked

    leave_out_fusion_emitters()


def pytest_collection_modifyitems(items):
    """Runs the files that take longest first, so that no process is left alone with one at the end."""
    files = [f"test_{name}.py" for name in LONG.split()]
    items.sort(key=lambda item: files.index(item.path.name) if item.path.name in files else len(files))


@pytest.fixture(autouse=True, scope="module")
def forget_compilations():
    """Frees the programs of a finished file: each has memory mappings, of which Linux allows a process 65,530."""
    yield
    jax.clear_caches()


@pytest.fixture
def optimised():
    """For tests that compute for longer than optimised compilation takes."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", IS_QUICK)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a small model (`small.save_small`), which reads nonsense."""
    from small import save_small  # not at the top: its types would not be checked

    return save_small(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def reader(model):
    """The Reader of `model`."""
    import crnn_jax

    return crnn_jax.load(model)
