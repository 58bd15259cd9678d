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
# # Steer by measurements
#
# A label says which kind of sample is wanted; a **measurement** $m = A z + s\,n$ says what is known of it: some of its
# pixels, a blur, a sum. Then the law to draw from is the posterior $p(z \mid m)$, and with a label on top
# $p(z\mid y)^w\,p(z)^{1-w}\,p(m\mid z)$. Many methods steer a trained field there. On a mixture of Gaussians the
# posterior is known exactly, so here each of them is held against the truth.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from cfgjax import guidance, metrics, mixtures, paths, solvers, steering

path, NULL = paths.linear(), 2
angles = np.pi / 4 * np.arange(8) + 0.2
means = 2.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(4, 2, 2).swapaxes(0, 1)
mixture = mixtures.LabelledMixture(
    jnp.ones((2, 4)), jnp.asarray(means), jnp.broadcast_to(0.04 * jnp.eye(2), (2, 4, 2, 2))
)
field = mixture.vector_field(path)

A = steering.operators.matrix(jnp.array([[1.0, 0.3]]))
measurement = steering.Measurement(A, jnp.array([1.2]), 0.3)
exact = mixtures.posterior(mixture, measurement)

# %% [markdown]
# Eight modes, of two labels in turn, and one number measured: it leaves a line in the plane, as wide as its noise.
# `mixtures.posterior` is a mixture again, of which everything is known: samples, densities, fields.

# %%
axis = jnp.linspace(-3, 3, 121)
plane = jnp.stack(jnp.meshgrid(axis, axis), axis=-1)


def log_density(mixture, y):
    """Of a mixture's data, on the plane."""
    of_one = mixture.log_density(path)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(lambda z: of_one(z, jnp.ones(()), jnp.asarray(y)))))(plane))


def show(axes, log_values, title, points=None):
    """A density in gray, and points on it."""
    axes.contourf(axis, axis, np.exp(log_values - log_values.max()), levels=12, cmap="Greys")
    if points is not None:
        axes.scatter(*np.asarray(points).T, s=1.5, linewidths=0, color="C3", alpha=0.6)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[], title=title)


_, panels = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
for axes, law, y, title in zip(
    panels, (mixture, exact, exact), (NULL, NULL, 0), ("before", "given m", "given m and label 0"), strict=True
):
    show(axes, log_density(law, y), title)
    axes.plot(axis, (1.2 - axis) / 0.3, "C0", linewidth=1)
plt.show()

# %% [markdown]
# ## What steers a field
#
# At time $t$ a state $x$ is half noise, and what $m$ says of it is $\log p_t(m\mid x)$, an average over all data that
# $x$ may come from. The field of the posterior is the field plus $b_t\nabla_x\log p_t(m\mid x)$, with $b_t=(1-t)/t$ on
# the linear path. Of the mixture this gradient is known, so that the sum can be seen to be exact, label by label:

# %%
log_likelihood = mixtures.likelihood(path, mixture, measurement)


def corrected(x, t, y):
    """The field of the posterior, from the field and the gradient of the exact likelihood."""
    return field(x, t, y) + (1 - t) / t * jax.grad(log_likelihood)(x, t, y)


states, times = jax.random.normal(jax.random.key(0), (500, 2)), jnp.linspace(0.05, 0.95, 500)
for y in (0, 1, NULL):
    ours, truth = (jax.vmap(each, (0, 0, None))(states, times, y) for each in (corrected, exact.vector_field(path)))
    np.testing.assert_allclose(ours, truth, atol=2e-3)

# %% [markdown]
# A trained field has no such average: one evaluation gives $D = E[z\mid x]$ alone. The methods differ in what they put
# in its place. **DPS** takes $D$ for the data point itself, $p(m\mid D)$, as if $x$ left no doubt. **ΠGDM** gives every
# direction the same doubt. **MMPS** takes the covariance of $z$ given $x$ from the field's own derivative,
# $\mathrm{Cov}[z\mid x]=\frac{\beta^2}{\alpha}\nabla_x D$, which is all there is to know if $z$ given $x$ is normal.
# Each is a field in, a field out, of the same signature: any solver and any guidance goes with it.

# %%
METHODS = {"DPS": steering.dps, "ΠGDM": steering.pi_gdm, "MMPS": steering.mmps}
COUNT, TS = 1_000, jnp.linspace(0, 1, 65)
keys = jax.random.split(jax.random.key(1), COUNT)


def draw(method, key, y, w, known):
    """ONE sample of the label y at guidance scale w, given a measurement."""
    guided = guidance.given(guidance.classifier_free(field, w, NULL), y)
    solver = solvers.heun(method(path, guided, known))
    return solvers.integrate(solver, key, jax.random.normal(key, (2,)), TS)


def exact_draws(seed, y, w, law=exact):
    """Draws of p(z|y)^w p(z)^(1-w) p(m|z), [count, 2]: at w = 1 those of the posterior's own label."""
    each = jax.vmap(lambda key: mixtures.guided_sample(mixture, law, key, y, w))
    points, log_weights = each(jax.random.split(jax.random.key(seed), 20 * COUNT))
    return np.asarray(points[solvers.systematic_resampling(jax.random.key(seed), log_weights, COUNT)])


# %% [markdown]
# **Weighted particles** need no such guess. Whatever reward leads them, each carries a weight that makes up for what is
# wrong with it, and is copied or dropped by it. Here the reward is DPS's own, $t\log p(m\mid D)$, right at $t=1$ alone.


# %%
def particles(key, known):
    """A population of samples of the null label, given a measurement."""
    null = guidance.given(field, NULL)
    reward = steering.of_denoised(path, null, steering.log_likelihood(known), lambda t: t)
    solver = steering.tilted(path, null, reward, solvers.root_beta(path))
    noise_key, solver_key, draw_key = jax.random.split(key, 3)
    noise = jax.random.normal(noise_key, (4 * COUNT, 2))
    weighted, _ = solvers.solve(solver, solver_key, noise, jnp.linspace(0, 1, 129))
    return steering.draws(weighted, draw_key, COUNT)


# %% [markdown]
# First without a label ($w=0$). Exact draws are of the mixture `exact`; the largest distance between sets of them is
# the floor under which two laws look the same to so many samples.


# %%
def samples_of(method, y, scales, known=measurement):
    """Samples at each scale, [scales, count, 2], by one program."""
    each = jax.vmap(lambda key, w: draw(method, key, y, w, known), (0, None))
    return np.asarray(jax.jit(jax.vmap(each, (None, 0)))(keys, jnp.asarray(scales)))


drawn = {name: samples_of(method, NULL, (0.0,))[0] for name, method in METHODS.items()}
drawn["particles"] = np.asarray(jax.jit(particles)(jax.random.key(4), measurement))
truth, *others = (exact_draws(seed, NULL, 1.0) for seed in range(2, 8))
floor = max(abs(metrics.energy_distance(truth, other)) for other in others)
distances = {name: metrics.energy_distance(points, truth) for name, points in drawn.items()}

_, panels = plt.subplots(1, 5, figsize=(13, 3), layout="constrained")
for axes, (name, points) in zip(panels, ({"exact draws": truth} | drawn).items(), strict=True):
    show(axes, log_density(exact, NULL), name, points)
plt.show()

print(f"exact draws: floor {floor:.4f}, deviation of A z {np.std(truth @ [1.0, 0.3]):.3f}")
for name, points in drawn.items():
    print(f"{name:>11}: energy distance {distances[name]:7.4f}, deviation of A z {np.std(points @ [1.0, 0.3]):.3f}")
assert abs(distances["particles"]) < 2 * floor
assert all(distances[name] > 10 * floor for name in METHODS)

# %% [markdown]
# DPS finds the modes and is too sure of where in them: it takes an estimate for the data point. ΠGDM and MMPS have
# about the right width, and put too many samples where one estimate stands for several modes. The particles have the
# posterior.

# %% [markdown]
# ## By the noise of the measurement
#
# Noise, value and matrix are numbers of one traced record: no value of them compiles anything, and each sample could
# have a measurement of its own. Where the noise is large, a wrong covariance of $z$ hardly matters; where it is small,
# it is all there is.

# %%
NOISES = (0.1, 0.2, 0.4, 0.8, 1.6)
truths = [exact_draws(2, NULL, 1.0, mixtures.posterior(mixture, measurement._replace(noise_std=s))) for s in NOISES]
curves = {}
for name, method in METHODS.items():
    run = jax.jit(
        lambda noise_std, method=method: jax.vmap(draw, (None, 0, None, None, None))(
            method, keys, NULL, 0.0, measurement._replace(noise_std=noise_std)
        )
    )
    curves[name] = [metrics.energy_distance(np.asarray(run(s)), truth) for s, truth in zip(NOISES, truths, strict=True)]
    assert run._cache_size() == 1

_, axes = plt.subplots(figsize=(5.5, 3.3), layout="constrained")
for name, curve in curves.items():
    axes.loglog(NOISES, curve, "o-", label=name)
axes.axhline(floor, color="gray", linestyle=":", label="exact draws")
axes.set(xlabel="noise of the measurement", ylabel="energy distance to the posterior")
axes.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## A label on top
#
# Guidance comes first: the field that is corrected is $u_\varnothing + w\,(u_y-u_\varnothing)$. The truth is
# $p(z\mid y)^w\,p(z)^{1-w}\,p(m\mid z)$ (gray), at $w=1$ the label's own posterior. At $w=3$ guidance alone is
# biased, too ([what guidance does](what_guidance_does.ipynb)).

# %%
SCALES = (1.0, 3.0)
guided = {name: samples_of(method, 0, SCALES) for name, method in METHODS.items()}
truths = [exact_draws(5, 0, w) for w in SCALES]
null, labelled = log_density(exact, NULL), log_density(exact, 0)
_, panels = plt.subplots(2, 3, figsize=(8.5, 5.8), layout="constrained")
for column, (name, by_scale) in zip(panels.T, guided.items(), strict=True):
    for axes, w, points, truth in zip(column, SCALES, by_scale, truths, strict=True):
        show(axes, (1 - w) * null + w * labelled, f"{name}, w = {w:g}", points)
        axes.set_xlabel(f"energy distance {metrics.energy_distance(points, truth):.4f}")
plt.show()

for by_scale in guided.values():
    assert all(
        metrics.energy_distance(points, truth) > 10 * floor for points, truth in zip(by_scale, truths, strict=True)
    )

# %% [markdown]
# Which method reaches what on more laws and noises, and at which cost: `python -m experiments.ladder_posterior`. On
# pictures with a trained network: `python -m experiments.solve_inverse RUN --task inpaint --scale 1 2 3`.
