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
# # What guidance does
#
# Classifier-free guidance follows the field
# $u^w_t=u_t(\cdot\mid\varnothing)+w\,\bigl(u_t(\cdot\mid y)-u_t(\cdot\mid\varnothing)\bigr)$, and its score is
# $s^w_t=(1-w)\,s_t(\cdot\mid\varnothing)+w\,s_t(\cdot\mid y)$: that of
# $$q^w_t(x)\propto p_t(x)^{1-w}\,p_t(x\mid y)^w\quad\text{at each time,}$$
# so one is led to think that samples come from $q^w_1$, the **tilted law**. They do not: the laws $q^w_t$ are not
# joined by the field $u^w_t$ (unless $w$ is 0 or 1). Here the laws of the guided ODE and SDE and the tilted law are
# held against each other, first where all three are known in closed form, then in the plane.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from cfgjax import conversions, guidance, metrics, mixtures, paths, solvers
from cfgjax.analysis import likelihood
from cfgjax.mixtures import LabelledMixture

path = paths.linear()

# %% [markdown]
# ## 1. Two Gaussians
#
# Let $p(x)=N(0,2)$ and $p(x\mid y)=N(1,1)$. On any Gaussian path $p_t=N(\alpha_t m,\,C_t)$ with
# $C_t=\alpha_t^2s^2+\beta_t^2$, and its field is affine in $x$ with slope $\dot C_t/2C_t$. The guided ODE is affine,
# too: its standard deviation grows at the rate $(1-w)\,\dot C^\varnothing_t/2C^\varnothing_t+w\,\dot C^y_t/2C^y_t$,
# which integrates to
# $$\text{variance of the guided ODE}=(s_\varnothing^2)^{1-w}(s_y^2)^{w}=2^{1-w}.$$
# The tilted law is Gaussian with precision $w/s_y^2+(1-w)/s_\varnothing^2=(1+w)/2$ and mean $w$ over that. At $w=3$
# these are variance $1/4$ and variance $1/2$.
#
# `likelihood.log_density` gives the guided ODE's own density: from $x$ back to noise, with
# $\frac{d}{dt}\log p_t(x_t)=-\operatorname{div}u^w_t(x_t)$ solved along.


# %%
def gaussian(mean, variance):
    one = LabelledMixture(jnp.ones(1), jnp.array([[mean]]), jnp.array([[[variance]]]))
    return one.vector_field(path)


pair = guidance.autoguidance_pair(gaussian(1.0, 1.0), gaussian(0.0, 2.0))  # labelled against null
line = jnp.linspace(-7, 7, 281)


def guided_by(scale):
    return guidance.given(guidance.extrapolate(pair, scale), 0)


@jax.jit
def ode_density(scale):
    divergence = likelihood.exact_divergence(guided_by(scale))
    ts = jnp.linspace(1, 0, 101)
    return jax.vmap(lambda x: jnp.exp(likelihood.log_density(solvers.heun, divergence, x.reshape(1), ts)[0]))(line)


def tilted_density(scale):
    variance, mean = 2 / (1 + scale), 2 * scale / (1 + scale)
    return np.exp(-((np.asarray(line) - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


for w in (0.0, 1.0, 2.0, 3.0, 5.0):
    density = np.asarray(ode_density(w), np.float64)
    mass = np.trapezoid(density, line)
    mean = np.trapezoid(density * line, line)
    variance = np.trapezoid(density * (line - mean) ** 2, line)
    print(
        f"w = {w:g}: ODE mass {mass:.3f}, mean {mean:.3f}, variance {variance:.4f} (closed form {2 ** (1 - w):.4f}); "
        f"tilted mean {2 * w / (1 + w):.3f}, variance {2 / (1 + w):.4f}"
    )
    assert abs(mass - 1) < 2e-3
    assert abs(variance / 2 ** (1 - w) - 1) < 1e-2

# %% [markdown]
# ## 2. The SDE, for any $\sigma$
#
# $dX=[u^w_t+\tfrac12\sigma_t^2s^w_t]\,dt+\sigma_t\,dW$. At $w=0$ and $w=1$ every $\sigma_t$ gives the same law; above
# 1 each gives its own. The drift is affine, $a_tx+b_t$, so mean and variance obey $\dot m=a_tm+b_t$ and
# $\dot V=2a_tV+\sigma_t^2$: two numbers that the library's ODE solvers solve as they do any state.

# %%
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 5.0)  # constant sigma; 0 is the ODE
SCALES = jnp.linspace(0, 5, 21)


def moments(scale, strength):
    """Mean and variance [2] of the guided SDE at t = 1."""
    guided = guided_by(scale)
    score = conversions.score_of(path, guided)

    def change(state, t):
        at_zero, at_one = (guided(x, t) + strength**2 / 2 * score(x, t) for x in (jnp.zeros(1), jnp.ones(1)))
        b, a = at_zero[0], at_one[0] - at_zero[0]
        return jnp.stack([a * state[0] + b, 2 * a * state[1] + strength**2])

    ts = solvers.time_grids.uniform(1000)
    return solvers.integrate(solvers.heun(change), jax.random.key(0), jnp.array([0.0, 1.0]), ts)


by_strength = jax.vmap(moments, in_axes=(None, 0))
curves = np.asarray(jax.jit(jax.vmap(by_strength, in_axes=(0, None)))(SCALES, jnp.array(STRENGTHS)))  # [w, sigma, 2]

figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained")
for index, name in enumerate(("mean", "variance")):
    for column, strength in enumerate(STRENGTHS):
        label = f"SDE, $\\sigma={strength:g}$" if strength else "ODE"
        panels[index].plot(SCALES, curves[:, column, index], color=plt.cm.viridis(column / 5), label=label)
    exact = 2 * SCALES / (1 + SCALES) if name == "mean" else 2 / (1 + SCALES)
    panels[index].plot(SCALES, exact, "k--", label="tilted law")
    panels[index].set(xlabel="w", ylabel=name)
panels[1].set(yscale="log")
panels[0].legend(fontsize="small")
plt.show()

np.testing.assert_allclose(curves[:, 0, 1], 2.0 ** (1 - SCALES), rtol=1e-3)  # the ODE's closed form
np.testing.assert_allclose(curves[4], [[1, 1]] * 5, rtol=1e-3)  # w = 1: every sigma the same

# %% [markdown]
# All curves meet at $w=0$ and $w=1$. Above, the ODE contracts most and goes furthest. Noise and the term
# $\tfrac12\sigma_t^2s^w_t$ together leave $q^w_t$ as it is; the larger $\sigma$, the more they outweigh the field, and
# the SDE comes to the tilted law. The same by samples of the SDE, beside the densities of section 1:

# %%
NUM_SAMPLES = 20_000


@jax.jit
def sde_samples(scale, strength):
    solver = solvers.euler_maruyama(path, guided_by(scale), solvers.constant(strength))

    def draw(key):
        noise_key, solver_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (1,))
        return solvers.integrate(solver, solver_key, noise, solvers.time_grids.uniform(400))[0]

    return jax.vmap(draw)(jax.random.split(jax.random.key(1), NUM_SAMPLES))


figure, panels = plt.subplots(1, 4, figsize=(12, 3), layout="constrained", sharex=True)
for axes, w in zip(panels, (1.0, 2.0, 3.0, 5.0), strict=True):
    samples = np.asarray(sde_samples(w, 1.0), np.float64)
    axes.hist(samples, bins=60, density=True, color="0.8", label="SDE, $\\sigma=1$, samples")
    axes.plot(line, ode_density(w), color="C0", label="ODE, exact")
    axes.plot(line, tilted_density(w), "k--", label="tilted law")
    axes.set(xlim=(-2.5, 4.5), yticks=[], title=f"w = {w:g}")
    mean, variance = np.asarray(moments(w, 1.0))
    assert abs(samples.mean() - mean) < 4 * np.sqrt(variance / NUM_SAMPLES) + 5e-3  # 5e-3: of 400 steps
    assert abs(samples.var() / variance - 1) < 4 * np.sqrt(2 / NUM_SAMPLES) + 1e-2
panels[0].legend(fontsize="x-small", loc="upper left")
plt.show()

# %% [markdown]
# ## 3. In the plane
#
# A ring of eight Gaussians, label 1 asked for. Upper row: the exact density of the guided ODE. Middle: samples of the
# SDE with $\sigma_t^2=2\beta_t$. Lower: the tilted law, normalised on the grid. Circles are one and two standard
# deviations of $p_{\text{data}}(x\mid y=1)$; the cross is the mean of each law.

# %%
ring = mixtures.ring(num_classes=8)
NULL, LABEL = 8, 1
field = ring.vector_field(path)
data_density = ring.log_density(path)
side = jnp.linspace(-0.5, 4.5, 101)
cell = float(side[1] - side[0]) ** 2
square = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)


def ring_guided(scale):
    return guidance.given(guidance.classifier_free(field, scale, NULL), LABEL)


@jax.jit
def ring_ode_density(scale):
    divergence, ts = likelihood.exact_divergence(ring_guided(scale)), jnp.linspace(1, 0, 65)
    return jnp.exp(jax.vmap(lambda x: likelihood.log_density(solvers.heun, divergence, x, ts)[0])(square))


@jax.jit
def ring_tilted_log_density(scale, x):
    """(1 - w) log p(x) + w log p(x|y), not normalised."""
    return (1 - scale) * data_density(x, 1.0, NULL) + scale * data_density(x, 1.0, LABEL)


@jax.jit
def ring_sde(scale, strength):
    solver = solvers.euler_maruyama(path, ring_guided(scale), solvers.root_beta(path, strength))

    def draw(key):
        noise_key, solver_key = jax.random.split(key)
        return solvers.integrate(
            solver, solver_key, jax.random.normal(noise_key, (2,)), solvers.time_grids.uniform(200)
        )

    return jax.vmap(draw)(jax.random.split(jax.random.key(2), 4000))


def normalised_tilted(scale):
    log_values = jax.vmap(ring_tilted_log_density, in_axes=(None, 0))(scale, square)
    values = np.exp(np.asarray(log_values - log_values.max(), np.float64))
    return values / (values.sum() * cell)


def show(axes, values, title):
    axes.contourf(side, side, values.reshape(101, 101), levels=np.linspace(0.02, 1, 9) * values.max(), cmap="Blues")
    x, y = (values.reshape(-1, 1) * np.asarray(square)).sum(axis=0) / values.sum()
    dress(axes, x, y, title)


def dress(axes, x, y, title):
    turn = np.linspace(0, 2 * np.pi, 60)
    for radius in (0.4, 0.8):
        axes.plot(2**0.5 + radius * np.cos(turn), 2**0.5 + radius * np.sin(turn), color="C1", linewidth=0.8)
    axes.plot(x, y, "rx")
    axes.set(xlim=(-0.5, 4.5), ylim=(-0.5, 4.5), xticks=[], yticks=[], aspect="equal", title=title)


figure, rows = plt.subplots(3, 4, figsize=(9.6, 7.6), layout="constrained")
for (upper, middle, lower), w in zip(rows.T, (1.0, 2.0, 4.0, 8.0), strict=True):
    by_ode = np.asarray(ring_ode_density(w), np.float64)
    samples = np.asarray(ring_sde(w, 1.0))
    show(upper, by_ode, f"ODE, w = {w:g}")
    middle.scatter(*samples.T, s=1.5, linewidths=0)
    dress(middle, *samples.mean(axis=0), f"SDE, w = {w:g}")
    show(lower, normalised_tilted(w), f"tilted, w = {w:g}")
    print(f"w = {w:g}: mass of the ODE's density on the grid {by_ode.sum() * cell:.3f}")
    assert abs(by_ode.sum() * cell - 1) < 0.03
plt.show()

# %% [markdown]
# The tilted law hardly changes: where label 1 is by far the likeliest, $p(x)\approx p(x\mid y)/8$, and the tilted law
# is $p(x\mid y)$ itself. The ODE's law leaves the data and shrinks. How far apart are they? Both densities are known,
# so their divergence
# $$\mathrm{KL}(\text{ODE}\,\|\,\text{tilted})=E_{\text{ODE}}\bigl[\log p^w(x)-\log q^w(x)\bigr]$$
# is a mean over samples of the ODE, each with its own log-density from the same solve
# (`likelihood.sample_log_density`).


# %%
@jax.jit
def divergence_from_tilted(scale):
    divergence, ts = likelihood.exact_divergence(ring_guided(scale)), solvers.time_grids.uniform(64)

    def log_ratio(noise):
        log_density, x = likelihood.sample_log_density(solvers.heun, divergence, noise, ts)
        return log_density - ring_tilted_log_density(scale, x)

    wide = jnp.linspace(-8, 8, 321)
    plane = jnp.stack(jnp.meshgrid(wide, wide), axis=-1).reshape(-1, 2)
    log_values = jax.vmap(ring_tilted_log_density, in_axes=(None, 0))(scale, plane)
    log_normaliser = jax.nn.logsumexp(log_values) + 2 * jnp.log(wide[1] - wide[0])
    return jnp.mean(jax.vmap(log_ratio)(jax.random.normal(jax.random.key(3), (4000, 2)))) + log_normaliser


scales = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0])
nats = np.array([float(divergence_from_tilted(w)) for w in scales])
for w, value in zip(scales, nats, strict=True):
    print(f"w = {w:g}: {value:.3f} nats")
assert abs(nats[0]) < 0.01 and abs(nats[4]) < 0.01  # w = 0 and 1: one law
assert nats[-1] > 1

figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(scales, nats, "o-")
axes.set(xlabel="w", ylabel="KL(ODE | tilted), nats")
plt.show()

# %% [markdown]
# ## 4. The tilted law, if that is what you want
#
# `solvers.feynman_kac` moves a population of particles by the guided SDE and gives each a weight,
# $dA=w(w-1)\,b_t\,\|s_t(x\mid y)-s_t(x\mid\varnothing)\|^2\,dt$, with which the population has the law $q^w_t$ at
# every $t$ ([arXiv 2503.02819](https://arxiv.org/abs/2503.02819)). Below, the energy distance to exact draws of the
# tilted law: of weighted particles (drawn by their weights at the end), of the guided ODE, and of the guided SDE with
# $\sigma_t^2=2\beta_t$ and $8\beta_t$. The floor is the distance between two sets of exact draws.

# %%
ring_pair = guidance.pair(field, NULL)


@jax.jit
def particles(scale):
    solver = solvers.feynman_kac(path, ring_pair, LABEL, scale, solvers.root_beta(path, 2.0))
    noise = jax.random.normal(jax.random.key(4), (4000, 2))
    population, _ = solvers.solve(solver, jax.random.key(5), noise, solvers.time_grids.uniform(200))
    return population.x[solvers.systematic_resampling(jax.random.key(6), population.log_weights)]


@jax.jit
def ring_ode(scale):
    noise = jax.random.normal(jax.random.key(7), (4000, 2))
    ts = solvers.time_grids.uniform(64)
    return jax.vmap(lambda x: solvers.integrate(solvers.heun(ring_guided(scale)), jax.random.key(0), x, ts))(noise)


def exact_draws(scale, seed, count=4000):
    """Draws of the tilted law, from the grid and uniform within its cells."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(square), count, p=normalised_tilted(scale) * cell)
    return np.asarray(square)[chosen] + rng.uniform(-0.5, 0.5, (count, 2)) * np.sqrt(cell)


print("  w    floor   particles      ODE   SDE 2b   SDE 8b")
for w in (2.0, 4.0):
    exact, other = exact_draws(w, 0), exact_draws(w, 1)
    sets = [other, particles(w), ring_ode(w), ring_sde(w, 1.0), ring_sde(w, 2.0)]
    floor, *distances = (metrics.energy_distance(np.asarray(each), exact) for each in sets)
    print(f"{w:3g} {floor:8.4f} {distances[0]:11.4f} " + " ".join(f"{each:8.4f}" for each in distances[1:]))
    assert distances[0] < 0.02 < distances[1]

# %% [markdown]
# So $w$ is no exponent of plain guidance. It is a strength: what it does depends on the solver, on $\sigma_t$ and on
# the data, and it is chosen by looking at samples ([sweep](sweep.ipynb)).
