"""What networks are told of guidance scale and span: by hand, and the start as the teacher's labelled field."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import MLP, Conditioning, DiT, GuidanceEmbedding, LabelEmbedding, SpanEmbedding, UNet
from cfgjax.types import Interval
from tests.models.test_networks_by_hand import dense, silu

NUM_CLASSES, WIDTH, SHAPE = 3, 12, (4, 4, 2)
TEACHERS = {
    "mlp": (MLP(NUM_CLASSES, width=16, embedding_width=WIDTH, depth=1), WIDTH),
    "dit": (DiT(num_classes=NUM_CLASSES, width=WIDTH, depth=1, num_heads=2, patch=2), WIDTH),
    "unet": (UNet(num_classes=NUM_CLASSES, width=3, multipliers=(1,), blocks_per_level=1, attention=()), 12),
}
X = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
KEY = jax.random.key(0, impl="unsafe_rbg")  # whose draws compile fast
NAMES = ["mlp", "dit", pytest.param("unet", marks=pytest.mark.slow)]
SCALES = [0.0, -1.5, 7.5, Interval(3.0, 0.25, 0.75)]


def _moved(params, seed=3):
    """The parameters away from their start."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + jnp.float32(0.3 * rng.normal(size=leaf.shape)), params)


def _by_hand(params, numbers, num_features, max_frequency):
    frequencies = np.geomspace(1, max_frequency, num_features // 2)
    waves = [wave(frequencies * number) for number in numbers for wave in (np.cos, np.sin)]
    return dense(params["Dense_1"], silu(dense(params["Dense_0"], np.concatenate(waves))))


@pytest.mark.parametrize("scale", [-2.0, 0.0, 3.0, 1e4])
def test_a_scale_and_its_interval_by_hand(scale):
    module = GuidanceEmbedding(WIDTH, max_frequency=9.0, num_features=6)
    params = _moved(module.init(KEY, 1.0))
    apply = jax.jit(module.apply)
    for y, edges in ((jnp.float32(scale), (0, 1)), (Interval(jnp.float32(scale), 0.25, 0.75), (0.25, 0.75))):
        expected = _by_hand(params["params"], (np.arcsinh(scale), *edges), 6, 9.0)
        np.testing.assert_allclose(apply(params, y), expected, rtol=1e-3, atol=1e-4)


def test_a_span_by_hand():
    module = SpanEmbedding(WIDTH, max_frequency=9.0, num_features=6)
    params = _moved(module.init(KEY, 1.0))
    expected = _by_hand(params["params"], [0.4], 6, 9.0)
    np.testing.assert_allclose(module.apply(params, 0.4), expected, rtol=1e-4, atol=1e-5)


def _told(label, scale, span):
    return {"condition": label, "guidance": jax.tree.map(jnp.float32, scale), "span": jnp.float32(span)}


def _random(tree):
    return _moved(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), tree))


@cache
def _teacher_and_student(name):
    """Both networks with their parameters: the student's are the teacher's, and its own at their start."""
    teacher, width = TEACHERS[name]
    parts = {"condition": LabelEmbedding(3, width), "guidance": GuidanceEmbedding(width), "span": SpanEmbedding(width)}
    student = dataclasses.replace(teacher, conditioning=Conditioning(parts))
    point = X, jnp.float32(0.5)
    params = _random(jax.eval_shape(teacher.init, KEY, *point, jnp.int32(0))["params"])
    own = {f"parts_{part}": jax.jit(parts[part].init)(KEY, 1.0)["params"] for part in ("guidance", "span")}
    taken = params | {"conditioning": own | {"parts_condition": params["LabelEmbedding_0"]}}
    del taken["LabelEmbedding_0"]
    shapes = jax.eval_shape(student.init, KEY, *point, _told(jnp.int32(0), 1.0, 0.0))["params"]
    assert jax.tree.map(jnp.shape, taken) == jax.tree.map(jnp.shape, shapes)
    return jax.jit(teacher.apply), {"params": params}, jax.jit(student.apply), {"params": taken}


@pytest.mark.parametrize("name", NAMES)
def test_a_student_starts_as_its_teachers_labelled_field(name):
    """Bitwise, at every scale, interval and span, and at the null label, too."""
    teacher, params, student, taken = _teacher_and_student(name)
    for label, t in ((jnp.int32(1), jnp.float32(0.3)), (jnp.int32(NUM_CLASSES), jnp.float32(0.7))):
        expected = teacher(params, X, t, label)
        assert np.any(expected)
        for scale in SCALES:
            for span in (0.0, 0.3):
                np.testing.assert_array_equal(student(taken, X, t, _told(label, scale, span)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_student_learns_of_scale_interval_and_span(name):
    """From the start gradients reach the last layers alone; moved away from it each of the four numbers is told."""
    _, _, student, taken = _teacher_and_student(name)
    y, t = _told(jnp.int32(1), Interval(3.0, 0.25, 0.75), 0.3), jnp.float32(0.3)
    slope = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(student(params, X, t, y)))))(taken)
    for part in ("parts_guidance", "parts_span"):
        first, last = (slope["params"]["conditioning"][part][layer]["kernel"] for layer in ("Dense_0", "Dense_1"))
        assert not np.any(first) and np.any(last)
    params = _moved(taken)
    expected = student(params, X, t, y)
    others = [Interval(4.0, 0.25, 0.75), Interval(3.0, 0.5, 0.75), Interval(3.0, 0.25, 1.0)]
    for other in [*(_told(jnp.int32(1), each, 0.3) for each in others), y | {"span": jnp.float32(0.6)}]:
        assert np.max(np.abs(student(params, X, t, other) - expected)) > 1e-4


def test_no_scale_interval_or_span_compiles_anything():
    _, _, student, taken = _teacher_and_student("mlp")
    traces = []

    @jax.jit
    def told(scale, start, stop, span):
        traces.append(scale)
        return student(taken, X, jnp.float32(0.3), _told(jnp.int32(1), Interval(scale, start, stop), span))

    for scale in (0.0, 1.0, 7.5):
        told(scale, 0.1 * scale, 1.0, 0.05 * scale)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("module", "y", "kind", "message"),
    [
        (GuidanceEmbedding(8), lambda t: t, TypeError, "y must be one real number"),
        (GuidanceEmbedding(8), Interval(lambda t: t, 0.0, 1.0), TypeError, r"y\.scale must be one real number"),
        (GuidanceEmbedding(8), Interval(2.0, -0.5, 1.0), ValueError, r"y\.start must be in \[0, 1\], got -0\.5"),
        (GuidanceEmbedding(8), Interval(2.0, 0.5, 1.5), ValueError, r"y\.stop must be in \[0, 1\], got 1\.5"),
        (SpanEmbedding(8), -0.1, ValueError, r"y must be in \[0, 1\], got -0\.1"),
    ],
)
def test_what_is_no_scale_or_span_is_named(module, y, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        module.init(KEY, y)
