"""The project's rules that a machine can check: PRNG keys first, options by keyword, docstrings, file sizes.

Modules are read, not imported: decorators (jit, run-time type checks) would hide what is written.
"""

import ast
import pkgutil
from pathlib import Path

import pytest

import crnn_jax

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("crnn_jax", "experiments", "tests") for path in (ROOT / folder).rglob("*.py"))
MODULES = {"crnn_jax": Path(crnn_jax.__file__)}
for info in pkgutil.walk_packages(crnn_jax.__path__, "crnn_jax."):
    path = Path(info.module_finder.path, info.name.rpartition(".")[2])
    MODULES[info.name] = path / "__init__.py" if info.ispkg else path.with_suffix(".py")

# An argument with a default is an option: it follows a `*`. The first argument is what the function is about and may
# have one too. Exceptions:
BY_POSITION = {
    "crnn_jax.lstm.orthogonal_gates": "flax calls its initialisers as init(key, shape, dtype)",
    "crnn_jax.synth.draws.Draws.uniform": "low and high are one thing, as in random.uniform",
}
KEY_LATER = {
    "crnn_jax.training.step.train_step": "the body of a scan: the state that it carries, then what each step takes",
}


def public_definitions(module: str):
    """The public classes, functions and methods of a module: (dotted name, syntax tree)."""

    def walk(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{prefix}.{node.name}", node
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{prefix}.{node.name}")

    return list(walk(ast.parse(MODULES[module].read_text()).body, module))


def public_functions(module: str):
    return [(name, node) for name, node in public_definitions(module) if isinstance(node, ast.FunctionDef)]


def positional(node: ast.FunctionDef) -> list[str]:
    """The names of the arguments in front of the `*`, without self."""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_the_modules_are_found():
    assert {"crnn_jax.sampler", "crnn_jax.synth.render", "crnn_jax.training.step"} <= MODULES.keys()
    assert all(path.is_file() for path in MODULES.values())
    assert sum(len(public_functions(module)) for module in MODULES) > 80


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_has_a_docstring(module):
    assert ast.get_docstring(ast.parse(MODULES[module].read_text())), "the module itself"
    assert [name for name, node in public_definitions(module) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_key_comes_first(module):
    late = []
    for name, node in public_functions(module):
        options = [argument.arg for argument in node.args.kwonlyargs]
        if "key" in positional(node)[1:] + options and name not in KEY_LATER:
            late.append(name)
    assert late == []


@pytest.mark.parametrize("module", MODULES)
def test_options_are_keyword_only(module):
    found = {}
    for name, node in public_functions(module):
        arguments = positional(node)
        options = set(arguments[1:]) & set(arguments[len(arguments) - len(node.args.defaults) :])
        if options and name not in BY_POSITION:
            found[name] = options
    assert found == {}


def test_the_exceptions_are_still_there():
    names = {name for module in MODULES for name, _ in public_functions(module)}
    assert BY_POSITION.keys() | KEY_LATER.keys() <= names


@pytest.mark.parametrize("module", MODULES)
def test_no_module_needs_tensorflow(module):
    imported = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert not {name for name in imported if name.partition(".")[0] in ("tensorflow", "tf_keras", "keras")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_evaluate_their_annotations(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    # Postponed annotations would be strings, and the run-time check of shapes would check nothing.
    assert not any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in ast.walk(ast.parse(text))
    )


def test_the_package_exports_what_it_says():
    errors = {"CheckpointError", "ImageError", "LexiconError"}
    expected = errors | {"Lexicon", "Reader", "Reading", "__version__", "load", "load_lexicon"}
    assert sorted(crnn_jax.__all__) == crnn_jax.__all__ == sorted(expected)
    assert all(hasattr(crnn_jax, name) for name in crnn_jax.__all__)
