"""Keys of a stored tree: whatever JAX takes is restored right, or refused by name before anything is written.

Orbax 0.12.8 stores a leaf under its keys joined by dots (``param_name_from_keypath`` of ``_src/tree/utils.py``), and
tensorstore ends that by a slash where none is. So {"a.b": x, "a": {"b": y}} are one place: of two arrays of one shape
Orbax keeps either, and says nothing. It stores no array without elements, and no array alone.
"""

import collections
from pathlib import Path
from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import checkpoints, training
from cfgjax.checkpoints import save as checkpoints_save
from tests.support.calls import examples


class Fields(NamedTuple):
    """A container whose children have names."""

    first: object
    second: object


class Unnamed:
    """A container whose children JAX numbers."""

    def __init__(self, *children):
        self.children = children


class Named(Unnamed):
    """A container whose children have names with dots and slashes."""


class Stray(Unnamed):
    """A container with keys of a type that JAX has not."""


class Both(Unnamed):
    """A container of one child with a name, and one with a number."""


KEYS = {
    Named: (jax.tree_util.GetAttrKey("a/b"), jax.tree_util.GetAttrKey("b.")),
    Stray: ("a", "b"),
    Both: (jax.tree_util.GetAttrKey("a"), jax.tree_util.SequenceKey(0)),
}
jax.tree_util.register_pytree_node(Unnamed, lambda node: (node.children, None), lambda _, children: Unnamed(*children))
for kind in KEYS:
    jax.tree_util.register_pytree_with_keys(
        kind,
        lambda node: (tuple(zip(KEYS[type(node)], node.children, strict=True)), None),
        lambda _, children, kind=kind: kind(*children),
    )

X, Y = jnp.arange(3.0), jnp.arange(3.0) + 10
TEXTS = ("linear/w", "mlp/~/linear_0", "/w", "w/", "//", "a.b", ".", "..", ".w", "w.", "", " ", "%41", "ü/本", "\n")
STRANGE = {text: {text: X + number} for number, text in enumerate(TEXTS)}
CONTAINERS = {
    "numbers": {1: X, -1: Y, 12: None},
    "ordered": collections.OrderedDict([("b", X), (0, (Y, [X + 2, ()], {}))]),
    "fields": Fields(X, Fields(None, Y)),
    "unnamed": Unnamed(X, [Y]),
    "named": Named(X, Named(Y, X + 3)),
    "key": [jax.random.key(3), jax.random.split(jax.random.key(4, impl="rbg"), 2)],
    "small": (3, 2.5, True, np.full(2, 7, np.int8), jnp.ones((2, 1), jnp.bfloat16)),
}


def _save(folder, tree):
    with checkpoints.Writer(folder) as writer:
        writer.save(1, tree, {})


def _is_key(leaf):
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _numbers(leaf):
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _assert_restored(folder, tree):
    like = jax.tree.map(lambda leaf: leaf if _is_key(leaf) else jnp.zeros_like(leaf), tree)
    found = checkpoints.restore(folder, like).state
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(_numbers(leaf), _numbers(expected))


@pytest.mark.parametrize("tree", [STRANGE, CONTAINERS, {"": X}, {"": X, "0": Y}], ids=["texts", "kinds", "root", "two"])
def test_every_key_is_restored_right(tree, tmp_path):
    _save(tmp_path, tree)
    _assert_restored(tmp_path, tree)


def test_a_state_of_haiku_is_restored(tmp_path):
    """dm-haiku names its modules by their ways, with slashes."""
    params = {"mlp/~/linear_0": {"w": X, "b": Y}, "mlp/~/linear_1": {"w": X + 1, "b": Y + 1}}
    state = training.init_state(params, optax.adam(1e-3), jax.random.key(0), num_averages=1)
    _save(tmp_path, state)
    _assert_restored(tmp_path, state)


def test_a_number_changed_on_its_way_is_seen_under_a_name_with_a_slash(tmp_path, monkeypatch):
    read_each = checkpoints_save.read_each
    monkeypatch.setattr(checkpoints_save, "read_each", lambda folder: [*read_each(folder), ("a.linear/w", X + 1)])
    with pytest.raises(checkpoints.CheckpointError, match="a/linear/w does not read back as it was given"):
        _save(tmp_path, {"a": {"linear/w": X}})


REFUSED = {
    "dots": ({"a.b": X, "a": {"b": Y}}, r"tree\['a.b'\] would have the place 'a.b' of tree\['a'\]\['b'\] in the "),
    "list": ({"a": [X], "a.0": Y}, r"tree\['a.0'\] would have the place 'a.0' of tree\['a'\]\[0\] in the checkpoint"),
    "slashes": ({"a/b": X, "a": {"b": Y}}, r"tree\['a/b'\] would have the name 'a/b' of tree\['a'\]\['b'\] in the"),
    "last slash": ({"a": X, "a/": Y}, r"tree\['a/'\] would have the place 'a' of tree\['a'\] in the checkpoint"),
    "number": (collections.OrderedDict([(1, X), ("1", Y)]), r"tree\['1'\] would have the name '1' of tree\[1\] in the"),
    "surrogate": ({"\ud800": X}, "tree must have as keys names in UTF-8, or else numbers"),
    "stray": (Stray(X, Y), "tree must have as keys names in UTF-8, or else numbers"),
    "both": ({"a": Both(None, Y)}, "tree must have as keys names in UTF-8, or else numbers"),
    "no elements": ({"a": [X, jnp.ones((0, 2))]}, r"tree\['a'\]\[1\] must have at least one element to be stored, got"),
    "alone": (X, "tree must be a container of at least one array, got "),
    "empty": ({"a": (), "b": None}, "tree must be a container of at least one array, got {'a': "),
}


@pytest.mark.parametrize(("tree", "message"), list(REFUSED.values()), ids=list(REFUSED))
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tree, message, tmp_path):
    with checkpoints.Writer(tmp_path) as writer:
        with pytest.raises(ValueError, match=message):
            writer.save(1, tree, {})
        assert not list(tmp_path.iterdir())
        writer.save(1, {"a": X}, {})
    with pytest.raises(ValueError, match=message.replace("tree", "like")):
        checkpoints.restore(tmp_path, tree)


LEAVES = st.sampled_from((None, 2.5, True, np.arange(3.0, dtype=np.float32), np.ones((1, 2), np.int8)))
ANY_TEXT = st.text("ab./0~ü", max_size=3) | st.text(st.characters(exclude_categories=("Cs",)), max_size=4)
NUMBERS = st.integers(-3, 12)


def _containers(children):
    pairs = st.tuples(children, children)
    return st.one_of(
        st.dictionaries(ANY_TEXT, children, max_size=3),
        st.dictionaries(NUMBERS, children, max_size=3),
        st.dictionaries(ANY_TEXT | NUMBERS | st.booleans(), children, max_size=3).map(collections.OrderedDict),
        st.lists(children, max_size=3) | st.lists(children, max_size=3).map(tuple),
        *(pairs.map(lambda pair, kind=kind: kind(*pair)) for kind in (Fields, Unnamed, Named)),
    )


def _is_storable(tree):
    """Whether the tree has leaves, and every leaf a name of its own by dots and by slashes."""
    paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
    names = [[jax.tree_util.keystr(path, simple=True, separator=mark) for path in paths] for mark in "./"]
    names[0] = [name.removesuffix("/") for name in names[0]]
    return bool(paths and paths[0]) and all(len(set(each)) == len(each) for each in names)


@examples(4)
@hypothesis.given(tree=st.recursive(LEAVES, _containers, max_leaves=12))
def test_any_tree_is_restored_right_or_refused(tree, tmp_path_factory):
    """Each leaf is given a number of its own, so that two in each other's place are seen."""
    count = iter(range(1, 100))
    tree = jax.tree.map(lambda leaf: leaf if isinstance(leaf, bool) else leaf + next(count), tree)
    folder: Path = tmp_path_factory.mktemp("checkpoints")
    if _is_storable(tree):
        _save(folder, tree)
        _assert_restored(folder, tree)
        return
    with pytest.raises(ValueError, match="tree"):
        _save(folder, tree)
    assert not list(folder.iterdir())
