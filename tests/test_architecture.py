"""What must hold of the source itself: nothing unsafe is called, every module says what it is, the house stands."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "ov3d").rglob("*.py"))
EVERYTHING = sorted(
    path for folder in ("ov3d", "tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
)


FORBIDDEN = {
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
    "eval",
    "exec",
    "builtins.eval",
    "builtins.exec",
}


def _keyword(call: ast.Call, name: str) -> object:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else ast.unparse(keyword.value)
    return None


def unsafe_calls(source: str) -> Iterator[str]:
    """Calls that could run code from a data file, or write outside a folder."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rsplit(".", 1)[-1]
        if re.fullmatch(r"(c?[pP]ickle|dill|joblib|marshal|shelve)\.(loads?|open|Unpickler)", name):
            yield f"{node.lineno}: {name}"
        elif name == "torch.load" and _keyword(node, "weights_only") is not True:
            yield f"{node.lineno}: torch.load without weights_only=True"
        elif name in FORBIDDEN:
            yield f"{node.lineno}: {name}"
        elif last == "extractall" and _keyword(node, "filter") not in {"data", "tar"}:
            yield f"{node.lineno}: extractall without a filter"
        elif last == "load" and _keyword(node, "allow_pickle") not in {None, False}:
            yield f"{node.lineno}: {name}(allow_pickle=...)"
        elif (last == "cuda" and "." in name) or (
            last == "to" and any(ast.unparse(arg).startswith("'cuda") for arg in node.args)
        ):
            yield f"{node.lineno}: a hard-coded CUDA device"


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unsafe_is_called(path: Path) -> None:
    assert list(unsafe_calls(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle; pickle.load(f)",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "yaml.load(f, Loader=yaml.Loader)",
        "eval('1')",
        "exec('1')",
        "archive.extractall(path)",
        "np.load('x', allow_pickle=True)",
        "model.cuda()",
        "model.to('cuda')",
    ],
)
def test_the_ban_bites(source: str) -> None:
    assert list(unsafe_calls(source))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "no module docstring"
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if public:
            assert ast.get_docstring(node), f"{node.name} has no docstring"


MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 350, 60, 8
"""A function's lines include its signature and docstring; `self` is not counted as a parameter."""

LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
MANY_PARAMETERS = {"ov3d/api.py: train", "ov3d/api.py: predict"}
"""What may be over a limit: these two functions mirror the options of a command, each a keyword of its own."""


@functools.cache
def _functions() -> list[tuple[str, ast.FunctionDef]]:
    trees = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    nodes = [(name, node) for name, tree in trees.items() for node in ast.walk(tree)]
    return [(f"{name}: {node.name}", node) for name, node in nodes if isinstance(node, ast.FunctionDef)]


def num_lines(function: ast.FunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def num_parameters(function: ast.FunctionDef) -> int:
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args)]
    own = len(names) - (names[:1] in (["self"], ["cls"]))
    return own + len(given.kwonlyargs) + (given.vararg is not None) + (given.kwarg is not None)


def test_files_hold_one_idea() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path.relative_to(ROOT).as_posix() for path in lines if lines[path] > MAX_FILE_LINES} == LONG_FILES


def test_functions_fit_on_a_screen() -> None:
    assert {name for name, one in _functions() if num_lines(one) > MAX_FUNCTION_LINES} == LONG_FUNCTIONS


def test_functions_take_few_parameters() -> None:
    """A command has an option for everything a user may set; other functions take objects."""
    outside = [(name, one) for name, one in _functions() if not name.startswith("ov3d/cli/")]
    assert {name for name, one in outside if num_parameters(one) > MAX_PARAMETERS} == MANY_PARAMETERS


def test_lines_and_parameters_are_counted() -> None:
    source = "class A:\n  @x\n  def f(self, a, /, b, *c, d=1, **e):\n    '''One.\n\n    More.'''\n    return 1"
    (function,) = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    assert (num_lines(function), num_parameters(function)) == (5, 5)


TEST_FOLDERS_OF_THEIR_OWN = {"weights", "benchmarks"}
"""Folders of tests without a counterpart in ov3d: what only runs where weights were downloaded, and tests of benchmarks/."""


def _test_modules() -> list[Path]:
    modules = sorted((ROOT / "tests").rglob("test_*.py"))
    return [
        path
        for path in modules
        if len(_in_tests(path).parts) > 1 and _in_tests(path).parts[0] not in TEST_FOLDERS_OF_THEIR_OWN
    ]


def _in_tests(path: Path) -> Path:
    return path.relative_to(ROOT / "tests")


def test_every_folder_of_tests_has_its_counterpart() -> None:
    folders = {_in_tests(path).parent for path in _test_modules()}
    assert len(folders) > 10
    assert [str(folder) for folder in sorted(folders) if not (ROOT / "ov3d" / folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("path", _test_modules(), ids=lambda path: _in_tests(path).as_posix())
def test_test_modules_say_what_they_test(path: Path) -> None:
    """`tests/X/test_NAME.py` is named after `ov3d/X/NAME`, or on a topic: then it imports from `ov3d.X` or runs commands."""
    source = path.read_text(encoding="utf-8")
    counterpart = ROOT / "ov3d" / _in_tests(path).parent
    subject = counterpart / path.stem.removeprefix("test_")
    named = subject.is_dir() or subject.with_suffix(".py").is_file()
    package = re.escape(".".join(counterpart.relative_to(ROOT).parts))
    imports = re.search(rf"^ *(from|import) {package}[. ]", source, re.MULTILINE) is not None
    runs_commands = "ov3d: Ov3d" in source
    assert named or imports or runs_commands
    if not named:
        assert ast.get_docstring(ast.parse(source)), "the name is a topic: a docstring says which"


def _run(code: str) -> list[str]:
    # As a user runs it: without the shape checks of the test run, which import NumPy.
    env = {name: value for name, value in os.environ.items() if name != "OV3D_CHECK_SHAPES"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return done.stdout.split()


@pytest.mark.parametrize(
    "module", ["ov3d", "ov3d.cli.app", "ov3d.common.asking.index", "ov3d.common.language.text_cache"]
)
def test_light_modules_stay_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'scipy', 'pydantic', 'PIL'}} & set(sys.modules)))"
    assert _run(code) == []


def test_the_command_line_starts_without_numpy() -> None:
    code = "import sys, ov3d.cli.app; print(*sorted({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    assert _run(code) == []


def test_every_module_loads_without_the_tests_shape_checks() -> None:
    """Users have no jaxtyping: names of `base.shapes` evaluated outside a signature fail with them alone."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES if path.stem != "__main__"]
    assert _run(f"import importlib, sys; [importlib.import_module(n) for n in {modules!r}]; print(len(sys.modules))")


def test_nothing_generated_is_committed() -> None:
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    allowed = re.compile(r"^(docs/images/.*\.(png|jpg)|tests/.*\.(png|npz|safetensors))$")
    heavy = re.compile(r"\.(png|jpe?g|npy|npz|ply|pth?|safetensors|onnx|bin|h5|whl)$")
    assert [name for name in done.stdout.splitlines() if heavy.search(name) and not allowed.match(name)] == []
