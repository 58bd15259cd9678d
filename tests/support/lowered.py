"""The products of matrices of programs lowered for accelerators, whose compilers are not needed for it.

A TPU computes a float32 product in bfloat16, a GPU in TF32, unless the program asks for more: ``precision_config``.
"""

import contextlib
import importlib
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Lowered

ROOT = Path(__file__).parent.parent.parent
ACCELERATORS = ("tpu", "cuda")
PRODUCTS = ("stablehlo.dot_general", "stablehlo.dot", "stablehlo.convolution")
WIDE = {"f32", "f64"}


class Product(NamedTuple):
    """A product of matrices, or a convolution: its operands' types, the least precision asked for, its source line."""

    types: frozenset[str]
    precision: str
    place: str

    @property
    def is_narrowed(self):
        """Whether an accelerator may compute it in less than its operands' float32 or float64."""
        return bool(self.types & WIDE) and self.precision != "HIGHEST"


def _product(operation):
    asked = str(operation.attributes["precision_config"]) if "precision_config" in operation.attributes else ""
    words = re.findall(r"DEFAULT|HIGHEST|HIGH", asked) or ["DEFAULT"]
    types = frozenset(str(each.type.element_type) for each in operation.operands)
    return Product(types, min(words, key=("DEFAULT", "HIGH", "HIGHEST").index), _place(str(operation.location)))


def _place(location):
    """The innermost line of this repository that an operation comes from."""
    lines = re.findall(r'"([^"]+\.py)":(\d+)', location)
    own = [f"{Path(file).relative_to(ROOT)}:{line}" for file, line in lines if Path(file).is_relative_to(ROOT)]
    return next((line for line in own if line.startswith(("cfgjax/", "experiments/", "tests/"))), "?")


def products(lowered: Lowered):
    """All products of a lowered program, those in its loops, branches and inner functions among them."""
    found = []

    def visit(operation):
        for region in operation.regions:
            for block in region.blocks:
                for each in block.operations:
                    if each.operation.name in PRODUCTS:
                        found.append(_product(each.operation))
                    visit(each.operation)

    visit(lowered.compiler_ir("stablehlo").operation)
    return found


def lowered(function, *args):
    """The function lowered for all ACCELERATORS; what is no array among its values is left out."""

    def arrays(*args):
        return [leaf for leaf in jax.tree.leaves(function(*args)) if isinstance(leaf, jax.Array)]

    return jax.jit(arrays).trace(*args).lower(lowering_platforms=ACCELERATORS)


def narrowed(*programs: Lowered):
    """The source lines of the products that accelerators may compute in less than float32."""
    return sorted({each.place for program in programs for each in products(program) if each.is_narrowed})


class _Recording:
    """A compiled function that is lowered where it is called, and gives random numbers of the right shapes."""

    def __init__(self, compiled, programs, rng):
        self._compiled, self._programs, self._rng = compiled, programs, rng

    def __call__(self, *args, **kwargs):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return self._compiled(*args, **kwargs)
        traced = self._compiled.trace(*args, **kwargs)
        self._programs.append(traced.lower(lowering_platforms=ACCELERATORS))
        return jax.tree.map(self._drawn, traced.out_info)

    def _drawn(self, like):
        is_real = jnp.issubdtype(like.dtype, jnp.floating)
        draw = self._rng.normal(size=like.shape) if is_real else self._rng.integers(0, 3, like.shape)
        return jnp.asarray(draw, like.dtype)


@contextlib.contextmanager
def recorded(monkeypatch, package):
    """A list of the programs that a package's functions compile by ``jax.jit``: lowered where called, and not run."""
    programs, rng, compile_ = [], np.random.default_rng(0), jax.jit
    kind = type(compile_(lambda x: x))
    with monkeypatch.context() as patch:
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for name, value in list(vars(module).items()):
                if isinstance(value, kind):
                    patch.setattr(module, name, _Recording(value, programs, rng))
        patch.setattr(jax, "jit", lambda *args, **kwargs: _Recording(compile_(*args, **kwargs), programs, rng))
        yield programs
