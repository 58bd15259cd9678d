# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One evaluation
#
# Guidance evaluates a network twice in every step, and a solver takes tens of steps. A **flow map** with guidance
# inside is one evaluation from noise to data: $U(x,t,r,y,w)$, the average velocity of the guided ODE's trajectory
# through $x$ from $t$ to $r$. On a mixture the guided ODE is exact, and with it the map that a network should learn:
# here is the referee, a map that looks right and is wrong, and a small network that learns the right one.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from cfgjax import flow_maps, guidance, metrics, mixtures, models, paths, solvers, training, verify
from cfgjax.analysis import certificates, likelihood

path, mixture = paths.linear(), mixtures.ring(num_classes=8)
field, NULL = mixture.vector_field(path), mixture.num_classes


def guided(x, t, y, w):  # (1 - w) u_null + w u_y
    return guidance.classifier_free(field, w, NULL)(x, t, y)


# %% [markdown]
# ## The map of the guided field, and the guidance of maps
#
# `flow_maps.of_field` is the flow map of any field by a solver's steps; `flow_maps.exact` is a mixture's to a
# tolerance. `solvers.jump` is the solver whose step is one evaluation of a flow map, however long it is: from 0 to 1
# in one step it ends where 64 steps of Heun's rule end, since the map *is* these steps.

# %%
exact = flow_maps.of_field(solvers.heun, guided, num_steps=64)
COUNT, LABEL, SCALES = 2_000, 0, (1.0, 2.0, 3.0)


def one_jump(flow_map, key, y, w):
    """ONE sample by one evaluation."""
    solver = solvers.jump(flow_maps.given(flow_map, y, w))
    return solvers.integrate(solver, key, jax.random.normal(key, (2,)), jnp.array([0.0, 1.0]))


def samples_of(flow_map, seed, count=COUNT):
    """Samples of the label at each scale, [scales, count, 2]."""
    keys = jax.random.split(jax.random.key(seed), count)
    by_scale = jax.vmap(jax.vmap(partial(one_jump, flow_map), (0, None, None)), (None, None, 0))
    return np.asarray(jax.jit(by_scale)(keys, LABEL, jnp.array(SCALES)))


# %% [markdown]
# With two unguided maps at hand it is tempting to guide *them*, $U_\varnothing + w\,(U_y - U_\varnothing)$, as one
# guides fields. But averages along two trajectories that part are no average along a third one. At $w = 1$ both are
# the label's map; at larger $w$ the mean goes astray and the spread is another one:


# %%
def guided_maps(x, t, r, y, w):
    null, labelled = (exact(x, t, r, label, 1.0) for label in (jnp.full_like(y, NULL), y))
    return null + w * (labelled - null)


laws = {"map of the guided field": samples_of(exact, 0), "guidance of two maps": samples_of(guided_maps, 0)}


def scatter(laws):
    """The samples of each law, a row each, at each scale."""
    _, panels = plt.subplots(len(laws), 3, figsize=(7.5, 2.5 * len(laws)), layout="constrained", squeeze=False)
    for row, (name, law) in zip(panels, laws.items(), strict=True):
        for axes, w, points in zip(row, SCALES, law, strict=True):
            axes.scatter(*points.T, s=2, linewidths=0)
            axes.set(xlim=(-1, 5), ylim=(-3, 3), aspect="equal", title=f"w = {w:g}")
        row[0].set_ylabel(name)


scatter(laws)
plt.show()
for name, law in laws.items():
    print(f"{name}: mean of x {law[..., 0].mean(axis=1).round(2)}, deviation {law[..., 0].std(axis=1).round(2)}")
np.testing.assert_allclose(*(law[0] for law in laws.values()), atol=1e-3)  # at w = 1 nothing is guided

# %% [markdown]
# `verify.flow_map` holds a map against the exact one, and names what it finds:

# %%
report = verify.flow_map(guided_maps, path, mixture)
print(report)
assert not report.passed

# %% [markdown]
# ## A network
#
# Any network of cfgjax learns a flow map: what it is told beside $x$ and $t$ is a condition of three parts. The
# embeddings of $w$ and of the span $r - t$ start at zero.

# %%
parts = {
    "label": models.LabelEmbedding(NULL, 64),
    "guidance": models.GuidanceEmbedding(64),
    "span": models.SpanEmbedding(64),
}
network = models.MLP(width=128, depth=3, embedding_width=64, conditioning=models.Conditioning(parts))


def student(params, x, t, r, y, w):
    return network.apply(params, x, t, {"label": y, "guidance": w, "span": r - t})


# %% [markdown]
# ## A loss
#
# Of the losses in `cfgjax.flow_maps` the simplest is a regression: the student's jump on two jumps of a teacher,
# here the exact field by 8 steps of Heun's rule each. $w$ is drawn for every example, beyond the scales that are
# asked for later, since the ends of a range are learned worst. Four examples in ten are the whole way from 0 to 1
# (`whole_rate`): a density of $(t, r)$ never draws it, and it is all that one evaluation is. One in ten has the null
# in the label's place, which has no guidance: there $w = 1$.

# %%
teacher = flow_maps.of_field(solvers.heun, guided, num_steps=8)
times = flow_maps.ordered_times(equal_rate=0.1, whole_rate=0.4)


def loss(params, key, example):
    scale_key, coin_key, loss_key = jax.random.split(key, 3)
    z, y = example
    is_null = jax.random.bernoulli(coin_key, 0.1)
    y, w = jnp.where(is_null, NULL, y), jnp.where(is_null, 1.0, 4 * jax.random.uniform(scale_key))
    own, taught = flow_maps.given(partial(student, params), y, w), flow_maps.given(teacher, y, w)
    return flow_maps.progressive(path, own, taught, loss_key, z, times=times)


NUM_STEPS, BATCH = 3_000, 512
optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.warmup_cosine_decay_schedule(0.0, 3e-3, 300, NUM_STEPS))
)
params = network.init(
    jax.random.key(0), jnp.zeros(2), 0.0, {"label": jnp.int32(0), "guidance": jnp.float32(1), "span": jnp.float32(0)}
)
state = training.init_state(params, optimizer, jax.random.key(1))
step = training.make_step(loss, optimizer, training.ema_warmup(0.999))


@partial(jax.jit, donate_argnums=0)
def train(state, keys):
    """A step for each key, with a batch that is drawn of it."""

    def one(state, key):
        labels = jnp.arange(BATCH) % NULL
        return step(state, (jax.vmap(mixture.sample)(jax.random.split(key, BATCH), labels), labels))

    return jax.lax.scan(one, state, keys)


state, found = train(state, jax.random.split(jax.random.key(2), NUM_STEPS))
print(f"loss: {np.mean(found['loss'][:100]):.3f} in the first steps, {np.mean(found['loss'][-100:]):.5f} in the last")

# %% [markdown]
# ## What it learned
#
# One evaluation for each sample, at any $w$ of the range, which is an input and compiles nothing:

# %%
learned = partial(student, state.ema)
scatter({"exact": laws["map of the guided field"], "learned, one evaluation": samples_of(learned, 0)})
plt.show()

# %% [markdown]
# How far are the two laws apart? The energy distance of samples has a floor, that of two sets of exact samples. And
# since a map of noise has a density, $\log q(x_1) = \log N(x_0) - \log|\det\partial x_1/\partial x_0|$, and the guided
# ODE has one, the divergence of the learned law from the exact one is known in nats:

# %%
one, other, own = samples_of(exact, 1), samples_of(exact, 2), samples_of(learned, 3)


def log_ratio(key, w):
    """log q - log p of ONE sample by one evaluation."""
    student_of_noise = partial(
        certificates.jump_log_density, flow_maps.given(learned, LABEL, w), ts=jnp.linspace(0, 1, 2)
    )
    divergence = likelihood.exact_divergence(guidance.given(partial(guided, w=w), LABEL))
    noise, backwards = jax.random.normal(key, (2,)), jnp.linspace(1, 0, 65)
    return certificates.log_ratio(solvers.heun, divergence, student_of_noise, noise, backwards)


ratios = jax.jit(jax.vmap(log_ratio, (0, None)))
for index, w in enumerate(SCALES):
    floor = metrics.energy_distance(one[index], other[index])
    distance = metrics.energy_distance(one[index], own[index])
    kl = certificates.kl_divergence(ratios(jax.random.split(jax.random.key(4), COUNT), w))
    print(f"w = {w:g}: energy distance {distance:.5f}, of exact samples {floor:.5f}; ", end="")
    print(f"KL {kl.value:.4f} +- {kl.standard_error:.4f} nats")
    assert kl.value < 0.05

# %% [markdown]
# Under the floor the distance tells nothing, and KL is some hundredths of a nat at most. What it costs, counted before
# anything runs: one evaluation of the network against 128 by 32 steps of Heun's rule on both sides of guidance.


# %%
def sides(x, t, y):
    return network.apply(state.ema, x, t, {"label": y, "guidance": 1.0, "span": 0.0})


def heun_of(network_field):
    return solvers.heun(guidance.given(guidance.classifier_free(network_field, 2.0, NULL), LABEL))


def jump_of(flow_map):
    return solvers.jump(flow_maps.given(flow_map, LABEL, 2.0))


by_steps = solvers.num_function_evaluations(heun_of, sides, jnp.zeros(2), jnp.linspace(0, 1, 33)).sum()
by_jump = solvers.num_function_evaluations(jump_of, learned, jnp.zeros(2), jnp.linspace(0, 1, 2)).sum()
print(f"evaluations of the network: {by_steps} by steps, {by_jump} by a jump")
assert (by_steps, by_jump) == (128, 1)

# %% [markdown]
# The same by commands, on images, too: `python -m experiments.train mixture_flow_map`, and `digits_flow_map` with a
# trained run as its teacher.
