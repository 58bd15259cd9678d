"""Guidance distilled into one small network, and certified at every scale of its range against the exact guided law."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import guidance, losses, mixtures, models, paths, solvers
from cfgjax.analysis import certificates, likelihood

NUM_CLASSES, NUM_STEPS, BATCH, BANK = 3, 1500, 256, 4096
PATH, RING = paths.linear(), mixtures.ring(NUM_CLASSES)
EXACT = RING.vector_field(PATH)
SCALES = losses.uniform_scale(-0.2, 3.2)
PARTS = {"condition": models.LabelEmbedding(NUM_CLASSES, 32), "guidance": models.GuidanceEmbedding(32)}
NETWORK = models.MLP(width=96, depth=2, embedding_width=32, max_frequency=20.0, conditioning=models.Conditioning(PARTS))


def _student(params, x, t, y, w):
    return NETWORK.apply(params, x, t, {"condition": y, "guidance": w})


def _teacher(y, w):
    return guidance.given(guidance.classifier_free(EXACT, w, NUM_CLASSES), y)


def _guided_sample(key):
    """A label, a scale and the teacher's sample of both."""
    label_key, scale_key, noise_key = jax.random.split(key, 3)
    y, w = RING.sample_label(label_key), SCALES(scale_key)
    noise = jax.random.normal(noise_key, (2,))
    return y, w, solvers.integrate(solvers.heun(_teacher(y, w)), key, noise, jnp.linspace(0, 1, 17))


def _trained():
    """The parameters after some steps on states of the teacher's samples and of all labels' data, half and half."""
    bank = jax.jit(jax.vmap(_guided_sample))(jax.random.split(jax.random.key(0), BANK))
    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, NUM_STEPS))

    def loss(params, key):
        index_key, own_key, data_key, loss_key = jax.random.split(key, 4)
        y, w, z = jax.tree.map(lambda leaf: leaf[jax.random.randint(index_key, (), 0, BANK)], bank)
        z = jnp.where(jax.random.bernoulli(own_key), z, RING.sample(data_key, NUM_CLASSES))
        return losses.distilled_guidance(PATH, lambda x, t: _student(params, x, t, y, w), _teacher(y, w), loss_key, z)

    def step(carry, key):
        params, state = carry
        mean = lambda params: jnp.mean(jax.vmap(partial(loss, params))(jax.random.split(key, BATCH)))  # noqa: E731
        updates, state = optimizer.update(jax.grad(mean)(params), state)
        return (optax.apply_updates(params, updates), state), None

    params = NETWORK.init(jax.random.key(1), jnp.zeros(2), 0.5, {"condition": 0, "guidance": 1.0})
    start = params, optimizer.init(params)
    return jax.jit(lambda keys: jax.lax.scan(step, start, keys)[0][0])(jax.random.split(jax.random.key(2), NUM_STEPS))


@pytest.mark.slow
def test_a_student_has_the_exact_guided_law_at_every_scale_of_its_range():
    """Within 0.03 nats, by one evaluation of the network for each time; the labelled law is another one."""
    student = guidance.within(partial(_student, _trained()), 0.0, 3.0)
    forth, back = np.linspace(0, 1, 33, dtype=np.float32), np.linspace(1, 0, 65, dtype=np.float32)

    def ratio(of, w, key):
        y = RING.sample_label(key)
        divergence = likelihood.exact_divergence(guidance.given(guidance.at_scale(student, of), y))
        draw = partial(likelihood.sample_log_density, solvers.heun, divergence, ts=forth)
        exact = likelihood.exact_divergence(_teacher(y, w))
        return certificates.log_ratio(solvers.heun, exact, draw, jax.random.normal(key, (2,)), back)

    each = jax.jit(jax.vmap(ratio, (None, None, 0)))
    keys = jax.random.split(jax.random.key(3), 1000)
    for w in (0.0, 0.5, 1.0, 2.0, 3.0):
        value, error = certificates.kl_divergence(each(w, w, keys))
        assert value < 0.03, (w, value, error)
    value, error = certificates.kl_divergence(each(1.0, 3.0, keys))
    assert value > 0.3 + 4 * error
