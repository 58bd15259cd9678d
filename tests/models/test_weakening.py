"""Weakened networks against smaller networks, zeroed layers and NumPy: skipped, alone, blurred."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import DiT, UNet, Weakening
from cfgjax.models.attention import plain_attention
from cfgjax.models.blocks import SelfAttention
from cfgjax.models.embeddings import grid_angles, rotate
from cfgjax.models.weakening import blur_of, blurred

SHAPE = (8, 8, 2)
DEPTH = 3
IN_CONTEXT = {"in_context_tokens": 2, "in_context_start": 1}
PLAIN = DiT(num_classes=3, width=16, depth=DEPTH, num_heads=2)
UNET = UNet(num_classes=3, width=8, multipliers=(1, 2), blocks_per_level=1, attention=(4,), head_width=4)
NETWORKS = {
    "DiT": PLAIN,
    "DiT with options": PLAIN.clone(qk_norm=True, rotary=True, in_context_tokens=2, in_context_start=1),
    "DiT remat": PLAIN.clone(rematerialise=True),
    "UNet": UNET,
    "UNet remat": UNET.clone(rematerialise=True),
}
SLOW_UNET = pytest.param("UNet", marks=pytest.mark.slow)
MIDDLE, ATTENDING = 2, (1, 2, 3, 4)
WEAKENINGS = [Weakening(skipped=(1,)), Weakening(alone=(1, 2)), Weakening(blurred=(2,)), Weakening((0,), (1,), (2,))]
T, Y = 0.3, 1


def _image(key=0):
    return jax.random.normal(jax.random.key(key), SHAPE)


def _random(shapes):
    """Parameters of which none is zero, so that every block does something."""
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


@cache
def _params(network):
    return _random(jax.eval_shape(network.init, jax.random.key(1), _image(), T, Y))


def _apply(network, params, **options):
    return np.asarray(network.apply(params, _image(), T, Y, **options))


def _zeroed(params, *paths):
    """The parameters, zero in the layers of some paths, which are names with slashes between them."""

    def zeroed(tree, names):
        if not names:
            return jax.tree.map(jnp.zeros_like, tree)
        return tree | {names[0]: zeroed(tree[names[0]], names[1:])}

    inner = params["params"]
    for path in paths:
        inner = zeroed(inner, path.split("/"))
    return {"params": inner}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_weakening_changes_a_name_or_a_number_of_the_parameters(name):
    network = NETWORKS[name]
    init = lambda **options: network.init(jax.random.key(1), _image(), T, Y, **options)  # noqa: E731
    expected = jax.eval_shape(init)
    for weakening in WEAKENINGS:
        assert jax.eval_shape(lambda: init(weakening=weakening)) == expected  # noqa: B023


@pytest.mark.parametrize("name", ["DiT with options", SLOW_UNET])
def test_a_blur_of_width_0_changes_nothing_and_each_weakening_something(name):
    network = NETWORKS[name]
    params = _params(network)
    plain = _apply(network, params)
    np.testing.assert_array_equal(_apply(network, params, weakening=Weakening(), blur_width=2.0), plain)
    np.testing.assert_array_equal(_apply(network, params, weakening=Weakening(blurred=(1, 2)), blur_width=0), plain)
    found = [_apply(network, params, weakening=each) for each in WEAKENINGS]
    for index, each in enumerate(found):
        assert all(np.abs(each - other).max() > 1e-4 for other in [plain, *found[:index]])


def _without_block(params, number):
    """The parameters of a transformer whose later blocks have moved up by one."""
    kept = {name: value for name, value in params["params"].items() if not name.startswith("DiTBlock_")}
    others = [each for each in range(DEPTH) if each != number]
    return {"params": kept | {f"DiTBlock_{new}": params["params"][f"DiTBlock_{old}"] for new, old in enumerate(others)}}


@pytest.mark.parametrize("number", range(DEPTH))
def test_a_skipped_block_of_a_transformer_is_not_there(number):
    network = PLAIN
    params = _params(network)
    smaller = _apply(network.clone(depth=DEPTH - 1), _without_block(params, number))
    np.testing.assert_array_equal(_apply(network, params, weakening=Weakening(skipped=(number,))), smaller)


def test_all_blocks_of_any_transformer_may_be_skipped():
    """Blocks whose gates are 0 are x exactly; tokens in context join before one of them."""
    network = NETWORKS["DiT with options"]
    params = _params(network)
    gated = _zeroed(params, "DiTBlock_0/Dense_0", "DiTBlock_1/Dense_0", "DiTBlock_2/Dense_0")
    found = _apply(network, params, weakening=Weakening(skipped=(0, 1, 2)))
    np.testing.assert_array_equal(found, _apply(network, gated))


def _unet_block(number):
    """The name of a U-Net's block among its parameters."""
    return "_Middle_0" if number == MIDDLE else f"_Stage_{number - (number > MIDDLE)}"


@pytest.mark.parametrize("number", [0, 2, 4, 6])
def test_a_skipped_block_of_a_unet_is_its_shortcut(number):
    """The last layers of what it adds are 0 in the place of skipping it."""
    network, name = UNET, _unet_block(number)
    params = _params(network)
    last = [f"{name}/ResidualBlock_{inner}/Conv_1" for inner in range(1 + (number == MIDDLE))]
    attention = [f"{name}/MapAttention_0/SelfAttention_0/Dense_1"] if number in ATTENDING else []
    found = _apply(network, params, weakening=Weakening(skipped=(number,)))
    expected = _apply(network, _zeroed(params, *last, *attention))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(found - _apply(network, params)).max() > 1e-2


def test_the_middle_is_after_the_blocks_on_the_way_down():
    assert UNET.middle_block == MIDDLE
    assert UNet(multipliers=(1, 2, 2), blocks_per_level=3).middle_block == 9


@pytest.mark.parametrize("name", ["DiT with options", SLOW_UNET])
@pytest.mark.parametrize("kind", ["alone", "blurred"])
def test_the_attention_of_the_block_that_is_named_is_weakened(name, kind):
    """A block whose attention's last layer is 0 is not changed by its map; the others are."""
    network = NETWORKS[name]
    params = _params(network)
    is_unet = isinstance(network, UNet)
    for number in (1, MIDDLE, 4) if is_unet else range(DEPTH):
        inner = f"{_unet_block(number)}/MapAttention_0" if is_unet else f"DiTBlock_{number}"
        zeroed = _zeroed(params, f"{inner}/SelfAttention_0/Dense_1")
        weakening = Weakening(**{kind: (number,)})
        np.testing.assert_array_equal(_apply(network, zeroed, weakening=weakening), _apply(network, zeroed))
        assert np.abs(_apply(network, params, weakening=weakening) - _apply(network, params)).max() > 1e-4


def _attention(is_alone=False, **options):
    module = SelfAttention(2, is_alone=is_alone, **options)
    tokens = jax.random.normal(jax.random.key(3), (14, 8))
    return module, _random(jax.eval_shape(SelfAttention(2, **options).init, jax.random.key(4), tokens)), tokens


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}])
def test_tokens_alone_are_their_own_values(options):
    """softmax(QK') V with the identity in the softmax's place, by NumPy."""
    module, params, tokens = _attention(is_alone=True, **options)
    first, last = (jax.tree.map(np.asarray, params["params"][name]) for name in ("Dense_0", "Dense_1"))
    value = np.asarray(tokens) @ first["kernel"][:, 16:] + first["bias"][16:]
    expected = value @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(module.apply(params, tokens), expected, rtol=1e-5, atol=1e-5)


def test_equal_tokens_lose_nothing_by_being_alone():
    module, params, tokens = _attention()
    equal = jnp.repeat(tokens[:1], 14, axis=0)
    alone = SelfAttention(2, is_alone=True).apply(params, equal)
    np.testing.assert_allclose(alone, module.apply(params, equal), rtol=1e-5, atol=1e-5)


def _by_loops(grid, width):
    """A map [rows, columns, ...] averaged by a Gaussian about each position, renormalised at the borders."""
    rows, columns = (np.arange(side) for side in grid.shape[:2])
    out = np.zeros_like(grid)
    for row in rows:
        for column in columns:
            squares = np.square(rows - row)[:, None] + np.square(columns - column)[None]
            weights = np.exp(-squares / (2 * width**2))
            out[row, column] = np.tensordot(weights / weights.sum(), grid, axes=2)
    return out


@pytest.mark.parametrize("width", [0.3, 0.8, 5.0])
def test_queries_on_the_grid_are_averaged_and_those_before_it_stay(width):
    query = np.asarray(jax.random.normal(jax.random.key(5), (2 + 3 * 4, 2, 3)))
    found = np.asarray(blurred(jnp.asarray(query), blur_of(3, 4, width)))
    np.testing.assert_array_equal(found[:2], query[:2])
    np.testing.assert_allclose(
        found[2:].reshape(3, 4, 2, 3), _by_loops(query[2:].reshape(3, 4, 2, 3), width), rtol=1e-4
    )


def test_a_map_that_is_linear_in_the_row_stays_in_its_middle():
    query = jnp.repeat(jnp.arange(5.0), 4)[:, None, None]
    found = np.asarray(blurred(query, blur_of(5, 4, 0.7))).reshape(5, 4)
    np.testing.assert_allclose(found[2], 2, rtol=1e-6)
    assert np.all(found[0] > 0.1)


def test_blurred_queries_blur_every_keys_scores_over_the_queries_positions():
    """G * (Q K') = (G * Q) K', which is why queries alone are blurred."""
    query, key = np.asarray(jax.random.normal(jax.random.key(6), (2, 12, 3)))
    scores = _by_loops((query @ key.T).reshape(3, 4, 12), 1.1).reshape(12, 12)
    found = np.asarray(blurred(jnp.asarray(query)[:, None], blur_of(3, 4, 1.1)))[:, 0] @ key.T
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-5)


def test_infinitely_blurred_queries_are_their_mean_at_every_position():
    module, params, tokens = _attention()
    found = np.asarray(module.apply(params, tokens, blur=blur_of(3, 4, jnp.inf)))
    np.testing.assert_allclose(found[2:], np.repeat(found[2:3], 12, axis=0), rtol=1e-5, atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-2
    np.testing.assert_array_equal(module.apply(params, tokens, blur=blur_of(3, 4, 0)), module.apply(params, tokens))


def test_queries_are_blurred_between_their_norm_and_their_turning():
    module, params, tokens = _attention(qk_norm=True)
    inner = params["params"]
    joint = (tokens @ inner["Dense_0"]["kernel"] + inner["Dense_0"]["bias"][None]).reshape(14, 3, 2, 4)
    query, key, value = (joint[:, index] for index in range(3))
    query, key = (
        each * jax.lax.rsqrt(jnp.mean(each**2, axis=-1, keepdims=True) + 1e-6) * inner[name]["scale"][None, None]
        for name, each in (("query_norm", query), ("key_norm", key))
    )
    angles = jnp.pad(grid_angles(3, 4, 4), ((2, 0), (0, 0)))
    query = blurred(query, blur_of(3, 4, 0.9))
    mixed = plain_attention(rotate(query, angles), rotate(key, angles), value).reshape(14, 8)
    expected = mixed @ inner["Dense_1"]["kernel"] + inner["Dense_1"]["bias"][None]
    found = module.apply(params, tokens, angles=angles, blur=blur_of(3, 4, 0.9))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["DiT remat", pytest.param("UNet remat", marks=pytest.mark.slow)])
def test_all_widths_of_a_blur_are_one_compilation(name):
    network, num_traces = NETWORKS[name], []
    params = _params(network)

    @jax.jit
    def at(width):
        num_traces.append(width)
        return network.apply(params, _image(), T, Y, weakening=Weakening(blurred=(1,)), blur_width=width)

    found = [np.asarray(at(width)) for width in (0.5, 2.0, np.inf)]
    assert len(num_traces) == 1
    assert np.abs(found[0] - found[1]).max() > 1e-5 < np.abs(found[1] - found[2]).max()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DiT", "UNet"])
def test_networks_under_remat_are_weakened_alike(kind):
    plain, again = NETWORKS[kind], NETWORKS[f"{kind} remat"]
    params, weakening = _params(plain), WEAKENINGS[-1]
    gradients = [
        jax.jit(jax.grad(lambda p: jnp.sum(network.apply(p, _image(), T, Y, weakening=weakening) ** 2)))(params)  # noqa: B023
        for network in (plain, again)
    ]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), *gradients)


WRONG = {
    "a block beyond": ("DiT", {"weakening": Weakening(skipped=(3,))}, r"skipped: a block must be in 0..2, got 3"),
    "a negative one": ("DiT", {"weakening": Weakening(alone=(-1,))}, r"alone: a block must be in 0..2, got -1"),
    "one for two things": ("DiT", {"weakening": Weakening((1,), (1,))}, r"got block 1 for several"),
    "a stage beyond": ("UNet", {"weakening": Weakening(skipped=(7,))}, r"skipped: a block must be in 0..6, got 7"),
    "no attention": (
        "UNet",
        {"weakening": Weakening(blurred=(0,))},
        r"blurred must be of blocks that attend, 1, 2, 3, 4",
    ),
    "a negative width": ("DiT", {"blur_width": -1.0}, r"blur_width must be at least 0, got -1"),
    "a width that is none": ("UNet", {"blur_width": jnp.nan}, r"blur_width must be at least 0, got nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_weakenings_are_one_line(name):
    network, options, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        _apply(NETWORKS[network], _params(NETWORKS[network]), **options)


def test_what_is_no_weakening_or_no_number_of_a_block_is_refused():
    network = PLAIN
    params = _params(network)
    with pytest.raises(TypeError, match=r"weakening must be Weakening\(skipped=\(3,\)\), got tuple"):
        _apply(network, params, weakening=(1,))
    with pytest.raises(TypeError, match=r"weakening.skipped: a block must be an integer"):
        _apply(network, params, weakening=Weakening(skipped=(1.0,)))
