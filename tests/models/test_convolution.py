"""(C1), (C2), (C3) against JAX's own convolution, to second order, in both modes, and under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cfgjax.models import UNet
from cfgjax.models.convolution import convolve

ORDER = ("NHWC", "HWIO", "NHWC")
SETTINGS = [
    ((1, 1), "SAME", None, None),
    ((2, 2), "SAME", None, None),
    ((2, 1), "VALID", None, None),
    ((3, 2), ((1, 0), (2, 2)), None, None),
    ((1, 2), ((2, 1), (0, 3)), (2, 1), None),
    ((2, 2), "SAME", None, (2, 2)),
]


def _own(x, kernel, *settings):
    return lax.conv_general_dilated(x, kernel, *settings, dimension_numbers=ORDER)


def _inputs():
    keys = jax.random.split(jax.random.key(0), 4)
    x, kernel = jax.random.normal(keys[0], (2, 8, 7, 3)), jax.random.normal(keys[1], (3, 2, 3, 4))
    return x, kernel, jax.random.normal(keys[2], x.shape), jax.random.normal(keys[3], kernel.shape)


def _ours(x, kernel, *settings):
    return convolve(x, kernel, *settings, dimension_numbers=ORDER)


def _close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4), found, expected)


@pytest.mark.parametrize(("function", "name"), [(_ours, "convolution"), (_own, "conv_general_dilated")])
def test_flax_s_order_is_this_module_s(function, name):
    x, kernel, *_ = _inputs()
    traced = jax.make_jaxpr(lambda x, kernel: function(x, kernel, (1, 1), "SAME"))(x, kernel)
    assert [str(each.primitive) for each in traced.eqns] == [name]


@pytest.mark.parametrize("settings", SETTINGS)
def test_values_and_gradients_are_those_of_jax(settings):
    x, kernel, dx, dkernel = _inputs()

    def results(function):
        def energy(x, kernel):
            return jnp.sum(jnp.sin(function(x, kernel, *settings)))

        slope = jax.grad(energy, (0, 1))
        return (
            function(x, kernel, *settings),
            slope(x, kernel),
            jax.jvp(energy, (x, kernel), (dx, dkernel)),
            jax.jvp(slope, (x, kernel), (dx, dkernel)),
            jax.grad(lambda *args: sum(jnp.vdot(*pair) for pair in zip(slope(*args), (dx, dkernel), strict=True)))(
                x, kernel
            ),
        )

    _close(jax.jit(lambda: results(_ours))(), jax.jit(lambda: results(_own))())


@pytest.mark.parametrize("axes", [(0, None), (1, None), (None, 0), (0, 0)])
def test_it_is_mapped_as_jax_s_own(axes):
    x, kernel, *_ = _inputs()
    xs = x if axes[0] is None else jnp.stack([x, 2 * x, x[::-1]], axes[0])
    kernels = kernel if axes[1] is None else jnp.stack([kernel, -kernel, kernel[::-1]])

    def each(function):
        return jax.vmap(lambda x, kernel: function(x, kernel, (2, 1), "SAME"), axes)(xs, kernels)

    _close(each(_ours), each(_own))


def test_gradients_of_one_example_each():
    x, kernel, *_ = _inputs()

    def slopes(function):
        return jax.vmap(jax.grad(lambda k, x: jnp.sum(function(x[None], k, (1, 1), "SAME") ** 2)), (None, 0))(kernel, x)

    _close(slopes(_ours), slopes(_own))


def test_groups_are_jax_s_own():
    x, kernel, *_ = _inputs()
    settings = {"dimension_numbers": ORDER, "feature_group_count": 3}
    found, expected = (
        function(x, kernel[:, :, :1, :3], (1, 1), "SAME", **settings)
        for function in (convolve, lax.conv_general_dilated)
    )
    np.testing.assert_array_equal(found, expected)


def test_other_orders_of_axes_are_jax_s_own():
    x, kernel, *_ = _inputs()
    x, kernel = jnp.moveaxis(x, 3, 1), jnp.transpose(kernel, (3, 2, 0, 1))
    _close(convolve(x, kernel, (1, 1), "SAME"), lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))


@pytest.mark.slow
def test_no_convolution_in_a_loop_is_left_to_the_slow_kernel():
    """Every convolution of a U-Net's gradient inside a scan has the one order of axes that the compiler has."""
    network = UNet(4, (1, 2), 1, (), num_classes=2)
    x, t, y = jnp.zeros((8, 8, 1)), jnp.zeros(()), jnp.zeros((), jnp.int32)
    weights = network.init(jax.random.key(0), x, t, y)

    def loss(weights, x):
        return jnp.sum(jax.vmap(lambda x: network.apply(weights, x, t, y))(x) ** 2)

    def descend(weights, x):
        def step(carry, _):
            return jax.tree.map(lambda a, b: a - 0.1 * b, carry, jax.grad(loss, (0, 1))(*carry)), None

        return lax.scan(step, (weights, x), None, length=3)[0]

    text = jax.jit(descend).lower(weights, jnp.zeros((2, 8, 8, 1))).compile().as_text()
    found = {part.split()[0].rstrip(",") for part in text.split("dim_labels=")[1:]}
    assert found == {"b01f_01io->b01f"}


@pytest.mark.parametrize("checks", [True, False])
def test_under_shard_map_it_is_jax_s_own(checks):
    """A kernel that all devices share has the gradient of all devices' examples, where shard_map checks that."""
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    x, kernel, *_ = _inputs()

    def slope(convolution):
        def local(kernel, x):
            gradient = jax.grad(lambda kernel: jnp.sum(jnp.sin(convolution(x, kernel, (1, 1), "SAME"))))(kernel)
            return gradient if checks else jax.lax.psum(gradient, "devices")

        specs = {"in_specs": (PartitionSpec(), PartitionSpec("devices")), "out_specs": PartitionSpec()}
        return jax.jit(jax.shard_map(local, mesh=mesh, **specs, check_vma=checks))(kernel, x)

    whole = jax.grad(lambda kernel: jnp.sum(jnp.sin(_own(x, kernel, (1, 1), "SAME"))))(kernel)
    _close(slope(_own), whole)
    _close(slope(_ours), whole)


def test_explicit_shardings_are_kept():
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    x, kernel, *_ = _inputs()
    spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("devices")))
    kernel = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
    found, expected = (
        jax.eval_shape(lambda x, one=one: one(x, kernel, (1, 1), "SAME"), spread) for one in (_ours, _own)
    )
    assert expected.sharding.spec[0] == "devices"
    assert found.sharding == expected.sharding
