"""LightningDiT's and JiT's weights without PyTorch: against their papers in NumPy, and what is refused."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import paths
from cfgjax.models import pretrained
from cfgjax.models.pretrained import Architecture
from tests.support.published_by_hand import changed, predict, rotations, swapped

GATED = {"feed_forward": "swiglu", "norm_scale": True}
ARCHITECTURES = {
    "lightningdit": Architecture(24, 2, 2, 1, 5, 3, 4, False, **GATED, rotary="stored"),
    "jit": Architecture(
        *(24, 3, 2, 2, 3, 6, 4, False),
        **GATED,
        qk_norm=True,
        rotary="computed",
        bottleneck=7,
        in_context_tokens=2,
        in_context_start=1,
        noise_scale=2.0,
    ),
}
QK_NORM = ARCHITECTURES["lightningdit"]._replace(qk_norm=True)
KINDS = list(ARCHITECTURES)
SHIFT, HEAD = 1.0, 12


@cache
def _tensors(kind, architecture=None):
    """Random tensors of every name, none of them zero; scales of norms are about 1."""
    architecture, rng = architecture or ARCHITECTURES[kind], np.random.default_rng(0)

    def tensor(name, shape):
        size = 1.0 if "table" in name or "pos" in name else np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.3
        return np.float32(size * rng.normal(size=shape) + SHIFT * ("norm" in name))

    found = {name: tensor(name, shape) for name, shape in pretrained.shapes_of(architecture).items()}
    stored = zip(("feat_rope.freqs_cos", "feat_rope.freqs_sin"), rotations(3, HEAD), strict=True)
    return found | {name: np.float32(waves) for name, waves in stored if name in found}


def _parameters(kind, tensors, architecture=None):
    return pretrained.parameters(tensors.__getitem__, architecture or ARCHITECTURES[kind], kind)


def _inputs(kind, t=0.3):
    side, channels = ARCHITECTURES[kind].side, ARCHITECTURES[kind].channels
    return np.random.default_rng(1).normal(size=(side, side, channels)), t, 4


@cache
def _ours(kind, architecture=None, t=0.3):
    """What our network predicts with the tensors' parameters."""
    network = pretrained.network(kind, architecture or ARCHITECTURES[kind])
    x, t, y = _inputs(kind, t)
    params = _parameters(kind, _tensors(kind, architecture), architecture)
    return np.asarray(jax.jit(network.apply)(params, jnp.float32(x), jnp.float32(t), jnp.int32(y)))


def _theirs(kind, tensors, t=0.3, **mistakes):
    """What theirs predicts at noise_scale times our state, over it."""
    architecture, (x, t, y) = ARCHITECTURES[kind], _inputs(kind, t)
    start, noise = architecture.in_context_start if kind == "jit" else None, architecture.noise_scale
    return predict(tensors, noise * x, t, y, 2, start, **mistakes) / noise


def _difference(found, expected):
    return np.max(np.abs(found - expected)) / np.sqrt(np.mean(np.square(expected)))


@pytest.mark.parametrize("kind", KINDS)
def test_ours_with_the_weights_of_theirs_is_theirs(kind):
    assert _difference(_ours(kind), _theirs(kind, _tensors(kind))) < 2e-5


def test_queries_and_keys_may_be_normed_in_lightningdit():
    assert (
        _difference(_ours("lightningdit", QK_NORM), _theirs("lightningdit", _tensors("lightningdit", QK_NORM))) < 2e-5
    )


MISTAKES = {
    "q and k": swapped("blocks.0.attn.qkv.weight", 3, (1, 0, 2)),
    "halves of SwiGLU": swapped("blocks.1.mlp.w12.weight", 2, (1, 0)),
    "scale of a norm": changed("blocks.1.norm2.weight", np.ones_like),
    "scale of the last norm": changed("final_layer.norm_final.weight", np.ones_like),
    "shift and scale": swapped("final_layer.adaLN_modulation.1.weight", 2, (1, 0)),
}
OF_JIT = {
    "scales of q and k": lambda tensors: (
        tensors
        | {
            "blocks.0.attn.q_norm.weight": tensors["blocks.0.attn.k_norm.weight"],
            "blocks.0.attn.k_norm.weight": np.roll(tensors["blocks.0.attn.q_norm.weight"], 1),
        }
    ),
    "learned part of the tokens in context": changed("in_context_posemb", lambda a: 0 * a),
}


@pytest.mark.parametrize(
    ("kind", "mistake"), [(kind, each) for kind in KINDS for each in (MISTAKES | (OF_JIT if kind == "jit" else {}))]
)
def test_a_mistaken_tensor_is_noticed(kind, mistake):
    change = (MISTAKES | OF_JIT)[mistake]
    assert _difference(_ours(kind), _theirs(kind, change(_tensors(kind)))) > 1e-2


@pytest.mark.parametrize(
    ("kind", "mistakes"),
    [
        ("lightningdit", {"columns_first": True}),
        ("jit", {"columns_first": True}),
        ("jit", {"cut": slice(0, 9)}),
    ],
)
def test_a_mistaken_structure_is_noticed(kind, mistakes):
    """Rows and columns of the rotary positions exchanged; the tokens in context taken for those after the others."""
    assert _difference(_ours(kind), _theirs(kind, _tensors(kind), **mistakes)) > 1e-2


def test_another_block_of_the_tokens_in_context_is_noticed():
    later = ARCHITECTURES["jit"]._replace(in_context_start=2)
    network, (x, t, y) = pretrained.network("jit", later), _inputs("jit")
    params = _parameters("jit", _tensors("jit"), later)
    found = jax.jit(network.apply)(params, jnp.float32(x), jnp.float32(t), jnp.int32(y))
    assert _difference(found, _ours("jit")) > 1e-2


@pytest.mark.parametrize("t", [0.0, 0.5, 0.94, 0.97, 1.0])
def test_the_field_of_jit_is_theirs_over_the_scale_of_its_noise(t):
    """(x_pred - z) / max(1 - t, 0.05) at z = 2 x, over 2: exact at the end, where without the bound it is infinite."""
    (x, _, y), tensors = _inputs("jit"), _tensors("jit")
    data = predict(tensors, 2 * x, t, y, 2, 1)
    expected = (data - 2 * x) / max(1 - t, 0.05) / 2
    apply, params = pretrained.network("jit", ARCHITECTURES["jit"]).apply, _parameters("jit", tensors)
    field = pretrained.field("jit", lambda x, t, y: apply(params, x, t, y))
    found = jax.jit(field)(jnp.float32(x), jnp.float32(t), jnp.int32(y))
    assert _difference(found, expected) < 1e-4


def test_the_field_of_lightningdit_is_its_prediction_in_our_time(skewed):
    """Velocity on t data + (1 - t) noise, as SiT's."""
    field = skewed.vector_field(paths.linear())
    assert pretrained.field("lightningdit", field) is field
    assert pretrained.TIME_RANGE["lightningdit"] == (0.0, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_goes_to_one_place(kind):
    architecture = ARCHITECTURES[kind]._replace(noise_scale=1.0)
    tensors = _tensors(kind)
    placed = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(_parameters(kind, tensors, architecture))])
    kept = np.concatenate([np.ravel(each) for name, each in tensors.items() if "feat_rope" not in name])
    np.testing.assert_array_equal(np.sort(placed), np.sort(kept))


@pytest.mark.parametrize("kind", KINDS)
def test_the_architecture_is_read_from_the_shapes(kind):
    """The heads, too: of the norms of queries, or of the rotary positions."""
    wanted = ARCHITECTURES[kind]
    shapes = pretrained.shapes_of(wanted)
    noise_scale = 2.0 if kind == "jit" else None
    assert pretrained.architecture_of(shapes, kind=kind, noise_scale=noise_scale) == wanted
    network, (x, t, y) = pretrained.network(kind, wanted), _inputs(kind)
    made = jax.eval_shape(network.init, jax.random.key(0), jnp.float32(x), jnp.float32(t), jnp.int32(y))
    found = _parameters(kind, _tensors(kind))
    assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, made)


PUBLISHED = {
    "LightningDiT-XL/1": (1152, 28, 16, 1, 32, 16, 1000),
    "JiT-B/16": (768, 12, 12, 16, 3, 256, 1000),
    "JiT-L/32": (1024, 24, 16, 32, 3, 512, 1000),
    "JiT-H/16": (1280, 32, 16, 16, 3, 256, 1000),
}
MILLIONS = {"LightningDiT-XL/1": 675, "JiT-B/16": 131, "JiT-L/32": 462, "JiT-H/16": 953}
JIT = {"B": (128, 4), "L": (128, 8), "H": (256, 10)}
"""Units of the bottleneck, and the first block with tokens in context."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes(name):
    """Heads, first block in context and scale of the noise follow from the shapes; the papers tell the millions."""
    if name.startswith("L"):
        wanted, kind = Architecture(*PUBLISHED[name], False, **GATED, rotary="stored"), "lightningdit"
    else:
        narrow, start = JIT[name[4]]
        more = {"qk_norm": True, "rotary": "computed", "bottleneck": narrow, "in_context_tokens": 32}
        noise = {256: 1.0, 512: 2.0}[PUBLISHED[name][5]]
        wanted = Architecture(*PUBLISHED[name], False, **GATED, **more, in_context_start=start, noise_scale=noise)
        kind = "jit"
    shapes = pretrained.shapes_of(wanted)
    assert pretrained.architecture_of(shapes, kind=kind) == wanted
    count = sum(np.prod(shape) for each, shape in shapes.items() if each != "pos_embed" and "feat" not in each)
    assert round(count / 1e6) == MILLIONS[name]


def _without(name):
    return lambda shapes: {each: shape for each, shape in shapes.items() if each != name}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("lightningdit", _without("feat_rope.freqs_cos"), r"tensor feat_rope\.freqs_cos is missing"),
        ("lightningdit", _without("feat_rope.freqs_sin"), r"tensor feat_rope\.freqs_sin is missing"),
        ("lightningdit", _without("blocks.1.norm2.weight"), r"tensor blocks\.1\.norm2\.weight is missing"),
        ("lightningdit", lambda s: s | {"blocks.0.attn.q_norm.bias": (12,)}, r"q_norm\.bias is unexpected"),
        (
            "lightningdit",
            lambda s: s | {"blocks.0.adaLN_modulation.1.weight": (96, 24)},
            r"adaLN_modulation\.1\.weight must have shape \(144, 24\), got \(96, 24\)",
        ),
        ("jit", _without("in_context_posemb"), "tensor in_context_posemb is missing"),
        ("jit", _without("blocks.2.attn.k_norm.weight"), r"tensor blocks\.2\.attn\.k_norm\.weight is missing"),
        ("jit", lambda s: s | {"x_embedder.proj1.bias": (7,)}, r"tensor x_embedder\.proj1\.bias is unexpected"),
        ("jit", lambda s: {f"net.{name}": each for name, each in s.items()}, r"its names begin with 'net\.'"),
        ("jit", lambda s: s, "noise_scale must be given for images of side 6, which no paper has"),
    ],
)
def test_tensors_that_are_not_as_they_should_be_are_named(kind, change, message):
    with pytest.raises(ValueError, match=message):
        pretrained.architecture_of(change(pretrained.shapes_of(ARCHITECTURES[kind])), kind=kind)


@pytest.mark.parametrize(("kind", "other"), [("sit", "jit"), ("dit", "lightningdit"), ("lightningdit", "jit")])
def test_weights_of_another_kind_are_called_what_they_are(kind, other):
    with pytest.raises(ValueError, match=f"is that of the kind {other}, not of {kind}"):
        pretrained.architecture_of(pretrained.shapes_of(ARCHITECTURES[other]), 2, kind)
    with pytest.raises(ValueError, match=f"noise_scale must be left out but for the kind jit, got 2.0 for {kind}"):
        pretrained.architecture_of(pretrained.shapes_of(ARCHITECTURES[other]), 2, kind, 2.0)


def test_stored_positions_that_are_not_ours_are_refused():
    tensors = _tensors("lightningdit")
    cosines = np.float32(rotations(3, HEAD, columns_first=True)[0])
    with pytest.raises(ValueError, match="freqs_cos must hold the rotary positions of rows, then of columns"):
        _parameters("lightningdit", tensors | {"feat_rope.freqs_cos": cosines})
    halves = {name: np.asarray(each, jnp.bfloat16) for name, each in tensors.items()}
    assert _parameters("lightningdit", halves)["params"]["positions"].dtype == np.float32
