"""Mutation testing: how many random one-token changes of the library's mathematics the fast tests notice.

A mutation is one of Cosmic Ray's: another sign, factor, comparison, constant or condition, in no annotation, check or
message. It is written into a copy of the checkout and meets the fast tests of its module's folder, on one path first;
one that survives them meets every other test file that names a function of its module.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build/mutants"
MATHEMATICS = ("paths.py", "conversions.py", "losses/*.py", "mixtures.py", "guidance/*.py", "solvers/*.py")
MATHEMATICS += ("models/[!pw]*.py", "training/*ema.py", "training/step.py", "metrics/*.py", "analysis/*.py")
MIRRORS = {"conversions": "paths", "metrics": "analysis"}
"""A module or folder of ``cfgjax`` -> its folder of ``tests``, where that has another name."""
BINARY = {"Add": ["Sub"], "Sub": ["Add"], "Mul": ["Div"], "Div": ["Mul"], "Pow": ["Mul"], "FloorDiv": ["Mul"]}
ORDERS = {"Lt": ["LtE", "Gt"], "LtE": ["Lt", "GtE"], "Gt": ["GtE", "Lt"], "GtE": ["Gt", "LtE"]}
ORDERS |= {"Eq": ["NotEq"], "NotEq": ["Eq"], "Is": ["IsNot"], "IsNot": ["Is"]}
OPERATORS = [
    *(f"ReplaceBinaryOperator_{old}_{new}" for old in BINARY for new in BINARY[old]),
    *(f"ReplaceComparisonOperator_{old}_{new}" for old in ORDERS for new in ORDERS[old]),
    *("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not", "AddNot", "NumberReplacer"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
]
EXPRESSIONS = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.IfExp, ast.Constant, ast.If, ast.While)
LEFT_OUT = (ast.Raise, ast.Assert, ast.JoinedStr)


class Mutation(NamedTuple):
    """The ``occurrence``-th place of an operator in a module."""

    module: str
    line: int
    operator: str
    occurrence: int

    def code(self):
        """The module with the mutation."""
        operator = get_operator(f"core/{self.operator}")()
        return mutate_code((ROOT / self.module).read_text(), operator, self.occurrence)


def _parts_left_out(node):
    """The parts of a node that are no mathematics: annotations, decorators, checks and messages."""
    is_check = isinstance(node, ast.Call) and re.match(r"(\w+\.)?(require_|between\b)", ast.unparse(node.func))
    is_guard = isinstance(node, ast.If) and all(isinstance(inner, ast.Raise) for inner in node.body)
    is_alias = isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Annotated", "Literal")
    if is_check or is_guard or is_alias or isinstance(node, LEFT_OUT):
        yield node
    yield from (part for field in ("annotation", "returns") if (part := getattr(node, field, None)))
    yield from getattr(node, "decorator_list", ())


def _spans(nodes):
    return [((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)) for node in nodes]


def _is_within(place, spans):
    return any(start <= place < stop for start, stop in spans)


def mutations_of(module):
    """Every mutation of a module's mathematics."""
    source = (ROOT / module).read_text()
    nodes = list(ast.walk(ast.parse(source)))
    expressions = _spans(node for node in nodes if isinstance(node, EXPRESSIONS))
    left_out = _spans(part for node in nodes for part in _parts_left_out(node))
    syntax = list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        places = [start for node in syntax for start, _ in operator.mutation_positions(node)]
        for occurrence, place in enumerate(places):
            if _is_within(place, expressions) and not _is_within(place, left_out):
                yield Mutation(module, place[0], name, occurrence)


def _count(names, text):
    return len(re.findall(rf"\b({'|'.join(names)})\b", text)) if names else 0


def tests_of(mutation):
    """(test files of the module's folder, those that name what is mutated first; others that name its functions)."""
    module = Path(mutation.module)
    body = ast.parse((ROOT / module).read_text()).body
    public = [node for node in body if getattr(node, "name", "_")[0] != "_"]
    mutated = [node.name for node in public if node.lineno <= mutation.line <= node.end_lineno]
    names = [node.name for node in public] or [module.stem]
    texts = {path.relative_to(ROOT): path.read_text() for path in sorted(ROOT.glob("tests/*/test_*.py"))}
    counts = {path: (_count(mutated, text), _count(names, text)) for path, text in texts.items()}
    folder = module.parts[1].removesuffix(".py")
    mirrored = [path for path in texts if path.parts[1] == MIRRORS.get(folder, folder)]
    mirrored += [path for path in texts if path.name == f"test_{module.name}" and path not in mirrored]
    own = sorted(mirrored, key=lambda path: counts[path], reverse=True)
    return [module, *own], [path for path in texts if counts[path][1] and path not in own]


STAGES = {
    "own tests on one path": lambda mutation: ["--quick", *tests_of(mutation)[0]],
    "own tests": lambda mutation: tests_of(mutation)[0],
    "other tests": lambda mutation: tests_of(mutation)[1],
}


class Tests(NamedTuple):
    """The fast tests in a copy of the checkout, by ``python``, with ``timeout`` seconds for a run."""

    checkout: Path
    python: str
    timeout: float

    def copy(self):
        """Copies what git tracks, or would."""
        listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
        for name in filter(lambda name: (ROOT / name).exists(), listed.splitlines()):
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.checkout / name)

    def failure(self, arguments):
        """The first failure's line, or "" where the tests pass."""
        cache = {
            "JAX_COMPILATION_CACHE_DIR": f"{BUILD}/compilations",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [self.python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *arguments]
        settings = {"cwd": self.checkout, "env": os.environ | cache | {"PYTHONPATH": "."}, "timeout": self.timeout}
        try:
            done = subprocess.run(command, capture_output=True, text=True, **settings)
        except subprocess.TimeoutExpired:
            return "timeout"
        if done.returncode in (0, 5):  # 5: no test collected
            return ""
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return (lines or [f"exit code {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}"])[0]

    def failure_of(self, mutation, arguments):
        """The first failure on a mutation."""
        (self.checkout / mutation.module).write_text(mutation.code())
        try:
            return self.failure(arguments)
        finally:
            shutil.copy2(ROOT / mutation.module, self.checkout / mutation.module)


def measure(tests, survivors, log):
    """Runs the stages, each on what survives those before it, and adds (mutation, stage, failure) to the log."""
    known = {(Mutation(*mutation), stage): failure for mutation, stage, failure in map(json.loads, log.open())}
    for stage, arguments_of in STAGES.items():
        for mutation in (each for each in survivors if (each, stage) not in known):
            known[mutation, stage] = failure = tests.failure_of(mutation, arguments_of(mutation))
            line = mutation.code().splitlines()[mutation.line - 1].strip()
            print(f"{mutation.module}:{mutation.line}: {line}\n    {stage}: {failure or 'NOT NOTICED'}", flush=True)
            with log.open("a") as file:
                file.write(json.dumps([mutation, stage, failure]) + "\n")
        drawn, survivors = survivors, [each for each in survivors if not known[each, stage]]
        print(f"{stage}: {len(drawn) - len(survivors)} of {len(drawn)} noticed", flush=True)


def main():
    """Draws mutations and measures; goes on where a run of the same commit was stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=f"{ROOT}/.venv/bin/python")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds for each run of tests")
    options = parser.parse_args()
    modules = sorted(str(path.relative_to(ROOT)) for glob in MATHEMATICS for path in ROOT.glob(f"cfgjax/{glob}"))
    every = [mutation for module in modules for mutation in mutations_of(module)]
    drawn = random.Random(options.seed).sample(every, options.number)
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    BUILD.mkdir(parents=True, exist_ok=True)
    log = BUILD / f"{commit}.jsonl"
    log.touch()
    with tempfile.TemporaryDirectory() as folder:
        tests = Tests(Path(folder), options.python, options.timeout)
        tests.copy()
        if failure := tests.failure(["--quick", *dict.fromkeys(path for each in drawn for path in tests_of(each)[0])]):
            raise SystemExit(f"the tests fail without a mutation: {failure}")
        measure(tests, drawn, log)


if __name__ == "__main__":
    main()
