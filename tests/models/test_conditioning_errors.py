"""Conditions and parts that do not fit: one line that names them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from cfgjax.conditions import Known, known
from cfgjax.models import Conditioning, Embedded, ImageEmbedding, LabelEmbedding, SequenceEmbedding, VectorEmbedding
from tests.models.test_conditioning import CLOUD, PICTURE, POINTS, TEXT, VECTOR, WORDS

NOBODY = np.zeros(5, bool)
MISTAKES = [
    (VectorEmbedding(4), np.ones((2, 3)), ValueError, r"y must be ONE vector \[k\], or one number, got the shape"),
    (VectorEmbedding(4), np.ones(0), ValueError, "y must be ONE vector"),
    (VectorEmbedding(4), known({"a": VECTOR}), TypeError, r"y\.value must be an array"),
    (VectorEmbedding(4), Known(VECTOR, np.ones(2, bool)), ValueError, r"y\.is_known must be ONE boolean"),
    (VectorEmbedding(4), Known(VECTOR, 1), ValueError, r"y\.is_known must be ONE boolean, got 1"),
    (VectorEmbedding(4, 3), VECTOR, ValueError, "num_features must be even"),
    (VectorEmbedding(0), VECTOR, ValueError, "width must be"),
    (TEXT, POINTS, TypeError, r"y\.values must be integers \[n\] under vocabulary_size 5"),
    (TEXT, WORDS._replace(values=np.ones((5, 1), int)), ValueError, r"y\.values must be integers \[n\]"),
    (TEXT, WORDS._replace(values=np.array([5, 0, 0, 0, 0])), ValueError, r"y\.values must be in 0\.\.4, got \[5 0 0\]"),
    (TEXT, WORDS._replace(values=np.array([-1, 0, 0, 0, 0])), ValueError, r"y\.values must be in 0\.\.4"),
    (TEXT, WORDS._replace(mask=NOBODY), ValueError, r"y\.mask must leave a token of what is known"),
    (TEXT, known(WORDS._replace(mask=NOBODY)), ValueError, r"y\.value\.mask must leave a token"),
    (TEXT, WORDS._replace(mask=np.ones(4, bool)), ValueError, r"y\.mask must be 5 booleans"),
    (TEXT, WORDS._replace(mask=np.ones(5, int)), ValueError, r"y\.mask must be 5 booleans"),
    (CLOUD, WORDS, TypeError, r"y\.values must be floating-point numbers \[n, d\]"),
    (CLOUD, POINTS.values[0], ValueError, r"y must be floating-point numbers \[n, d\], got the shape \(3,\)"),
    (CLOUD, "a word", TypeError, r"y must be floating-point numbers"),
    (SequenceEmbedding(8, depth=1, num_heads=3), POINTS, ValueError, "num_heads must divide the width 8, got 3"),
    (SequenceEmbedding(6), POINTS, ValueError, "width must be divisible by 4"),
    (ImageEmbedding(), PICTURE[0], ValueError, r"y must be ONE image"),
    (ImageEmbedding(), Known("a cat", True), TypeError, r"y\.value must be an array"),
    (Conditioning({}), {}, TypeError, "parts must be a dict of at least one Linen module"),
    (Conditioning({"size": abs}), {"size": VECTOR}, TypeError, r"parts\['size'\] must be a Linen module"),
]
PAIR = Conditioning({"label": LabelEmbedding(3, 4), "size": VectorEmbedding(4)})
MISTAKES += [
    (PAIR, 2, TypeError, "y must be a dict or a tuple of conditions here, got int 2"),
    (PAIR, {"label": 2}, ValueError, r"y must have the names of parts, \['label', 'size'\], got \['label'\]"),
    (PAIR, {"label": 2, "size": VECTOR, "text": 1}, ValueError, "y must have the names of parts"),
    (PAIR, {"label": 4, "size": VECTOR}, ValueError, r"y\['label'\] must be in \[0, 3\], got 4"),
    (PAIR, {"label": 2, "size": Known("big", True)}, TypeError, r"y\['size'\]\.value must be an array"),
    (Conditioning({"a": PAIR}), {"a": {"label": 4, "size": VECTOR}}, ValueError, r"y\['a'\]\['label'\] must be"),
]


@pytest.mark.parametrize(("module", "y", "kind", "message"), MISTAKES)
def test_a_mistake_is_named_in_one_line(module, y, kind, message):
    with pytest.raises(kind, match=f"^{message}") as caught:
        jax.eval_shape(lambda: module.init(jax.random.key(0), y))
    assert "\n" not in str(caught.value)


def _gives(**arrays):
    """A part that gives these arrays of ones, by their shapes."""

    class Part(linen.Module):
        def __call__(self, y):
            return Embedded(**{name: jnp.ones(shape) for name, shape in arrays.items()})

    return Part()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"vector": 4}, {"vector": 5}, r"parts must give vectors of one width or size, got \[\(4,\), \(5,\)\]"),
        ({"tokens": (2, 4)}, {"tokens": (3, 5)}, r"parts must give tokens of one width or size"),
        ({"image": (4, 4, 1)}, {"image": (4, 2, 1)}, r"parts must give images of one width or size"),
        ({"vector": (2, 3)}, {}, r"parts\['a'\]\.vector must have the shape \(2,\), got \(2, 3\)"),
        ({"tokens": 3}, {}, r"parts\['a'\]\.tokens must be \[n, d\]"),
        ({"tokens": (2, 3), "mask": 3}, {}, r"parts\['a'\]\.tokens must be \[n, d\] and the mask beside them \[n\]"),
        ({"image": (4, 4)}, {}, r"parts\['a'\]\.image must be ONE image"),
    ],
)
def test_parts_that_do_not_fit_are_named(first, second, message):
    module = Conditioning({"a": _gives(**first), "b": _gives(**second)})
    with pytest.raises(ValueError, match=f"^{message}"):
        jax.eval_shape(lambda: module.init(jax.random.key(0), {"a": 0, "b": 0}))
