"""No source of the library or of the experiments can turn a file into code: read from their syntax, not their text."""

import ast
from pathlib import Path

import pytest

import cfgjax

ROOT = Path(cfgjax.__file__).parent.parent
SOURCES = sorted(
    path.relative_to(ROOT).as_posix() for folder in ("cfgjax", "experiments") for path in (ROOT / folder).rglob("*.py")
)

PACKAGES = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "joblib",
    "yaml",
    "runpy",
    "code",
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "torch.load",
    "np.load",
    "numpy.load",
    "os.system",
    "os.popen",
    "os.execv",
    "os.execvp",
    "os.spawnv",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "importlib.util.spec_from_file_location",
    "importlib.reload",
    *(f"builtins.{name}" for name in BUILTINS),
}
"""np.load among them: what it reads follows the file's first bytes, not its name."""
OF_THE_COMMAND_LINE = {
    ("experiments/cli/functions.py", "load_function"),
    ("experiments/ladder/user_rules.py", "load_rule"),
}
OF_A_CONSTANT = {("experiments/benchmark/memory.py", "most_of"), ("experiments/conformance/child.py", "main")}


def _dotted(node):
    """The name that a chain of attributes spells: os.system."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{_dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def _imports(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _found_in_call(node, where):
    name = _dotted(node.func)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    found = [name] if name in BUILTINS | CALLS else []
    for keyword in ("shell", "allow_pickle"):
        value = keywords.get(keyword)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            found.append(keyword)
    is_named_here = bool(node.args) and isinstance(node.args[0], ast.Constant)
    if (
        name.split(".")[-1] == "import_module"
        and not is_named_here
        and where not in OF_THE_COMMAND_LINE | OF_A_CONSTANT
    ):
        found.append("import_module")
    return found


def dangers(module, source):
    """What in a source could run what a file says."""
    found = []

    def visit(node, function):
        if isinstance(node, ast.FunctionDef):
            function = node.name
        found.extend(name for name in _imports(node) if name.split(".")[0] in PACKAGES or name in CALLS)
        if isinstance(node, ast.Call):
            found.extend(_found_in_call(node, (module, function)))
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            found.append(node.id)
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(source), "")
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_no_source_turns_a_file_into_code(module):
    assert dangers(module, (ROOT / module).read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import cloudpickle as c",
        "from joblib import load",
        "import yaml",
        "eval('1')",
        "run = exec",
        "compile(a, b, 'exec')",
        "__import__(name)",
        "from os import system",
        "import os\nos.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=wanted)",
        "np.load(file, allow_pickle=False)",
        "np.lib.format.read_array(file, allow_pickle=True)",
        "torch.load(file)",
        "from torch import load",
        "importlib.import_module(name)",
        "from importlib import import_module\nimport_module(settings['name'])",
    ],
)
def test_a_danger_is_found(source):
    assert dangers("experiments/sample/__main__.py", source)


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "re.compile('a')",
        "jitted.lower(x).compile()",
        "importlib.import_module('experiments.benchmark.in_torch')",
        '"""eval(pickle)"""',
        "subprocess.run(words, shell=False)",
    ],
)
def test_what_only_looks_like_one_passes(source):
    assert dangers("experiments/sample/__main__.py", source) == []


@pytest.mark.parametrize(("module", "function"), sorted(OF_THE_COMMAND_LINE | OF_A_CONSTANT))
def test_every_exception_is_still_needed(module, function):
    source = (ROOT / module).read_text()
    assert dangers("elsewhere.py", source) == ["import_module"]
    assert any(isinstance(node, ast.FunctionDef) and node.name == function for node in ast.walk(ast.parse(source)))
