"""How the site reads the sources: docstrings as they stand, signatures with the library's type names, pages' links.

Docstrings are written to be read in an editor: labelled lines, [*D] and p(x|y) as such. ``reading`` turns the
labelled and the indented paragraphs into blocks that keep their lines, and the rest into plain text. ``signature``
takes annotations from the source, where they are called Field and Scale, not what these abbreviate. ``linked`` leads
links to the Markdown files of the repository's root, which work on GitHub, to the pages that include them, and
``included`` does so for the links of these files.
"""

import ast
import copy
import dataclasses
import importlib
import inspect
import re
import textwrap
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, cast

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

from cfgjax import contracts, types

_LABEL = re.compile(r"\([A-Z]\d+\) ")
_LITERAL = re.compile(r"(``.+?``)")


def _escaped(line: str) -> str:
    parts = _LITERAL.split(re.sub(r"(: )([A-Z]\.)", r"\1\\\2", line))  # "K." alone would number a list
    return "".join(part if part.startswith("``") else re.sub(r"([*|])", r"\\\1", part) for part in parts)


def _paragraphs(lines: list[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def _read(paragraph: list[str]) -> list[str]:
    if paragraph[0].lstrip().startswith(">>>"):
        return paragraph
    if _LABEL.match(paragraph[0]) or paragraph[0].startswith("    "):
        block = textwrap.dedent("\n".join(paragraph)).replace("``", "").splitlines()
        return [".. code-block:: text", "", *("    " + line for line in block)]
    return [_escaped(line) for line in paragraph]


def reading(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The docstring's lines as reStructuredText, in place."""
    paragraphs = [_read(paragraph) for paragraph in _paragraphs(lines)]
    lines[:] = [line for paragraph in paragraphs for line in [*paragraph, ""]]


def _source(obj: Any) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    except (OSError, TypeError):
        return None


@cache
def _body(module: ModuleType) -> list[ast.stmt]:
    return ast.parse(inspect.getsource(module)).body


def _own_aliases(module: ModuleType) -> dict[str, ast.expr]:
    """The types that a module abbreviates, by name; none of types and contracts, to whose entries names link."""
    found = {}
    for node in _body(module):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = getattr(module, node.targets[0].id)
            if not isinstance(value, TypeVar | ParamSpec):
                found[node.targets[0].id] = node.value
    return {} if module in (types, contracts) else found


def _imported(module: ModuleType) -> dict[str, ModuleType]:
    """The library's modules from which a module takes names, by name."""
    nodes = [node for node in _body(module) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in nodes if str(node.module).startswith("cfgjax.")]
    return {alias.name: importlib.import_module(str(node.module)) for node in ours for alias in node.names}


def _alias(module: ModuleType, name: str) -> ast.expr | None:
    """What a name of the module abbreviates, through the packages that hand it on; None when it is no abbreviation."""
    own, source = _own_aliases(module), _imported(module).get(name, module)
    return own[name] if name in own else None if source is module else _alias(source, name)


def _aliases(module: ModuleType) -> dict[str, ast.expr]:
    """The module's own abbreviations, and those that it imports."""
    found = {name: _alias(module, name) for name in [*_own_aliases(module), *_imported(module)]}
    return {name: alias for name, alias in found.items() if alias is not None}


class _Written(ast.NodeTransformer):
    """Annotations with the module's own abbreviations written out, and without quotes."""

    def __init__(self, module: ModuleType) -> None:
        self.aliases = _aliases(module)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.visit(copy.deepcopy(self.aliases[node.id])) if node.id in self.aliases else node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return self.visit(ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        kind = node.value.id if isinstance(node.value, ast.Name) else ""
        if kind == "Annotated" and isinstance(node.slice, ast.Tuple):
            return self.visit(node.slice.elts[0])
        return node if kind == "Literal" else cast(ast.expr, self.generic_visit(node))

    def of(self, annotation: ast.expr | None) -> ast.expr | None:
        """The annotation, written out."""
        return None if annotation is None else self.visit(annotation)


def _of_fields(obj: type) -> tuple[str, None] | None:
    """The signature that the fields of a NamedTuple, a dataclass or a network make, its bases' first."""
    fields: dict[str, str] = {}
    for base in reversed(inspect.getmro(obj)):
        module, tree = inspect.getmodule(base), _source(base)
        if module is None or not module.__name__.startswith("cfgjax") or not isinstance(tree, ast.ClassDef):
            continue
        for field in (node for node in tree.body if isinstance(node, ast.AnnAssign)):
            field.annotation = cast(ast.expr, _Written(module).of(field.annotation))
            fields[ast.unparse(field.target)] = ast.unparse(field)
    shown = [field for field in fields.values() if "ClassVar" not in field]
    return (f"({', '.join(shown)})", None) if shown or dataclasses.is_dataclass(obj) else None


def signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, shown: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """(arguments, what is returned) as the source writes them; None leaves what Sphinx found."""
    obj = inspect.unwrap(obj)
    tree, module = _source(obj), inspect.getmodule(obj)
    if module is None or not module.__name__.startswith("cfgjax"):
        return None
    if isinstance(tree, ast.ClassDef):
        return _of_fields(obj)
    if not isinstance(tree, ast.FunctionDef):
        return None
    arguments, written = tree.args, _Written(module)
    if what == "method" and arguments.args and arguments.args[0].arg in {"self", "cls"}:
        arguments.args = arguments.args[1:]
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if argument is not None:
            argument.annotation = written.of(argument.annotation)
    returns = written.of(tree.returns)
    return f"({ast.unparse(arguments)})", None if returns is None else ast.unparse(returns)


def skipped(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """True for a NamedTuple's fields, which the signature shows already."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def resolved(app: Sphinx, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """The link of a type's bare name to where the library documents it; plain text for a type variable."""
    if node.get("refdomain") != "py":
        return None
    name, objects = node["reftarget"].split(".")[-1], env.domaindata["py"]["objects"]
    known = [f"cfgjax.types.{name}", *sorted(full for full in objects if full.endswith(f".{name}"))]
    full = next((each for each in known if each in objects), None)
    if full is None:
        return None
    target = objects[full]
    return make_refnode(app.builder, node["refdoc"], target.docname, target.node_id, contnode, full)


_ROOT_PAGES = {"README": "overview", "CONTRIBUTING": "contributing", "CHANGELOG": "changelog"}


def linked(app: Sphinx, docname: str, content: list[str]) -> None:
    """The page's source with links to files of the root led to their pages, in place."""
    names = "|".join(_ROOT_PAGES)
    content[0] = re.sub(rf"\]\(\.\./({names})\.md", lambda found: f"]({_ROOT_PAGES[found[1]]}.md", content[0])


def included(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    """The text of a file of the root, with its links led from the folder of the page that includes it, in place."""
    content[0] = re.sub(r"\]\((?!https?:|#|docs/)", "](../", content[0])
    linked(app, docname, content)


def setup(app: Sphinx) -> dict[str, bool]:
    """The extension's hooks; the docstrings' before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", reading, priority=400)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skipped)
    app.connect("missing-reference", resolved)
    app.connect("source-read", linked)
    app.connect("include-read", included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
