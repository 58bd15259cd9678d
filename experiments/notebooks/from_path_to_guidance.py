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
# # From a path to guidance
#
# Lecture 4 of MIT 6.S184 (notes: [arXiv 2506.02070](https://arxiv.org/abs/2506.02070)) goes from a probability path to
# classifier-free guidance in a few steps. Here each step is taken in numbers. The data are a Gaussian mixture in the
# plane with one label for each component, so that every field, score and posterior is known exactly: nothing is
# trained, and a wrong sign has nowhere to hide.
#
# Time runs from noise, $t=0$, to data, $t=1$. "Conditional" means given a data point $z$; "labelled" means given a
# label $y$. The null label $\varnothing$ stands for "any label". In code a field is a function `(x, t, y) -> like x`
# of **one** point; `jax.vmap` makes it act on many.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from cfgjax import conversions, guidance, losses, mixtures, paths, solvers

path = paths.linear()
mixture = mixtures.ring(num_classes=5)  # p_data
NULL = mixture.num_classes  # the null label: 5
LIMIT = 4.0  # the pictures show [-LIMIT, LIMIT]^2


def panel(axes, title):
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=[], yticks=[], aspect="equal", title=title)


# %% [markdown]
# ## 1. The path
#
# A Gaussian path carries a data point to noise:
# $$x_t=\alpha_t z+\beta_t\varepsilon,\quad \varepsilon\sim N(0,I),\qquad\text{so}\qquad
# p_t(x\mid z)=N(x;\,\alpha_t z,\ \beta_t^2 I),$$
# with $\alpha_0=\beta_1=0$ and $\alpha_1=\beta_0=1$. Ours is the straight one, $\alpha_t=t$, $\beta_t=1-t$. The upper
# row is the **conditional path** of one data point, the lower row the **marginal path**
# $p_t(x)=\int p_t(x\mid z)\,p_{\text{data}}(z)\,dz$, coloured by the label of $z$.

# %%
keys = jax.random.split(jax.random.key(0), 1500)
labels = jnp.arange(1500) % NULL
z = mixture.means.reshape(-1, 2)[1]  # one data point


@jax.jit
def draw_path(t):
    conditional = jax.vmap(lambda key: paths.sample(path, key, z, t).x)(keys)
    marginal = jax.vmap(lambda key, y: mixture.sample(key, y, path, t))(keys, labels)
    return conditional, marginal


times = (0.0, 0.25, 0.5, 0.75, 1.0)
figure, rows = plt.subplots(2, len(times), figsize=(11, 4.8), layout="constrained")
for (upper, lower), t in zip(rows.T, times, strict=True):
    conditional, marginal = draw_path(t)
    upper.scatter(*conditional.T, s=2, color="C1", linewidths=0)
    upper.plot(*z, "k*")
    lower.scatter(*marginal.T, s=2, c=labels, cmap="tab10", vmax=9, linewidths=0)
    panel(upper, f"given z, t = {t:g}")
    panel(lower, f"marginal, t = {t:g}")
plt.show()

# %% [markdown]
# ## 2. The conditional and the marginal field
#
# Differentiate the path with $z$ and $\varepsilon$ held: $u_t(x\mid z)=\dot\alpha_t z+\dot\beta_t\varepsilon$ moves
# the conditional path. What moves the marginal path is its average over the data points that may have led to $x$:
# $$u_t(x)=\int u_t(x\mid z)\,p_t(z\mid x)\,dz,\qquad p_t(z\mid x)\propto p_t(x\mid z)\,p_{\text{data}}(z).$$
# Averaged over the data of one label it is the **labelled field** $u_t(x\mid y)$. The mixture knows both in closed
# form; as a check, the integral by brute force, over 20,000 data points.

# %%
field = mixture.vector_field(path)  # (x, t, y) -> u_t(x|y); y = NULL gives u_t(x)
t = 0.5
points = jax.vmap(lambda key: mixture.sample(key, NULL))(jax.random.split(jax.random.key(1), 20_000))
states = jax.vmap(lambda key: mixture.sample(key, NULL, path, t))(jax.random.split(jax.random.key(2), 200))


@jax.jit
def by_brute_force(x):
    c = paths.coefficients(path, t)
    log_likelihood = -jnp.sum((x - c.alpha * points) ** 2, axis=-1) / (2 * c.beta**2)
    posterior = jax.nn.softmax(log_likelihood)  # p_t(z_i | x)
    return posterior @ jax.vmap(lambda z: paths.conditional_field(path, x, z, t))(points)


averaged = jax.lax.map(by_brute_force, states)
exact = jax.vmap(lambda x: field(x, t, NULL))(states)
error = float(jnp.sqrt(jnp.mean((averaged - exact) ** 2) / jnp.mean(exact**2)))
print(f"relative error of the brute-force average: {error:.4f}")
assert error < 0.03

# %% [markdown]
# The three fields at $t=1/2$, over the density that each of them moves. The conditional field leads to its one point;
# the labelled field to one component; the marginal field, here $y=\varnothing$, to the nearest.

# %%
ticks = jnp.linspace(-3.6, 3.6, 15)
grid = jnp.stack(jnp.meshgrid(ticks, ticks), axis=-1)  # [15, 15, 2]
fine = jnp.linspace(-LIMIT, LIMIT, 121)
fine_grid = jnp.stack(jnp.meshgrid(fine, fine), axis=-1)
log_density = mixture.log_density(path)


def over(points, function):
    """The function's values at a grid of points [a, b, 2]."""
    return np.asarray(jax.jit(jax.vmap(jax.vmap(function)))(points))


def background(axes, values, colours):
    axes.contourf(fine, fine, values / values.max(), levels=np.linspace(0, 1, 11), cmap=colours, alpha=0.7)


def arrows(axes, values, **style):
    axes.quiver(*np.moveaxis(np.asarray(grid), -1, 0), *np.moveaxis(values, -1, 0), angles="xy", **style)


figure, panels = plt.subplots(1, 3, figsize=(11, 3.9), layout="constrained")
for axes, name, density, function in (
    (panels[0], "conditional $u_t(x|z)$", lambda x: -jnp.sum((x - t * z) ** 2) / (2 * (1 - t) ** 2),
     lambda x: paths.conditional_field(path, x, z, t)),
    (panels[1], "labelled $u_t(x|y=1)$", lambda x: log_density(x, t, 1), lambda x: field(x, t, 1)),
    (panels[2], r"marginal $u_t(x)=u_t(x|\varnothing)$", lambda x: log_density(x, t, NULL),
     lambda x: field(x, t, NULL)),
):  # fmt: skip
    background(axes, np.exp(over(fine_grid, density)), "Blues")
    arrows(axes, over(grid, function), scale=80)
    panel(axes, name)
plt.show()

# %% [markdown]
# ## 3. The score
#
# The score $s_t(x\mid y)=\nabla_x\log p_t(x\mid y)$ holds the same knowledge. On a Gaussian path the two are affine in
# each other, whatever the label:
# $$u_t=\frac{\dot\alpha_t}{\alpha_t}\,x+b_t\,s_t,\qquad
# b_t=\frac{\beta_t(\dot\alpha_t\beta_t-\alpha_t\dot\beta_t)}{\alpha_t}.$$
# Three ways to the score: in closed form, by differentiating the log-density, and from the field.

# %%
closed, from_field = mixture.score(path), conversions.score_of(path, field)


@jax.jit
@jax.vmap
def three_scores(x, t, y):
    return closed(x, t, y), jax.grad(log_density)(x, t, y), from_field(x, t, y)


some_times = jnp.linspace(0.02, 0.9, 1500)
some_labels = jnp.arange(1500) % (NULL + 1)
some_states = jax.vmap(lambda key, y, t: mixture.sample(key, y, path, t))(keys, some_labels, some_times)
scores = three_scores(some_states, some_times, some_labels)
for name, other in (("gradient of the log-density", scores[1]), ("from the field", scores[2])):
    gap = float(jnp.max(jnp.abs(other - scores[0])))
    print(f"largest difference to the closed form, {name}: {gap:.1e}")
    assert gap < 1e-3  # scores are of size 1 to 30 here

# %% [markdown]
# ## 4. Classifier guidance
#
# By Bayes' rule $p_t(x\mid y)\propto p_t(x)\,p_t(y\mid x)$, so $s_t(x\mid y)=s_t(x)+\nabla_x\log p_t(y\mid x)$, and
# with the line above
# $$u_t(x\mid y)=u_t(x)+b_t\,\nabla_x\log p_t(y\mid x).$$
# The last term pulls to where the label is likely. **Classifier guidance** multiplies it by a scale $w$:
# $$u^w_t(x\mid y)=u_t(x)+w\,b_t\,\nabla_x\log p_t(y\mid x).$$
# Below, $p_t(y=1\mid x)$ and the term $b_t\nabla\log p_t(y=1\mid x)$. Early on no state is sure of its label and the
# pull is gentle everywhere; later it is strong where the label is wrong and vanishes where it is right.

# %%
log_classifier = mixture.label_log_probs(path)  # (x, t) -> log p_t(y|x) of all labels

figure, panels = plt.subplots(1, 3, figsize=(11.6, 3.9), layout="constrained")
for axes, t in zip(panels, (0.1, 0.4, 0.7), strict=True):
    b = path.beta(t) / path.alpha(t)  # on the straight path
    probability = over(fine_grid, lambda x, t=t: jnp.exp(log_classifier(x, t)[1]))
    shown = axes.contourf(fine, fine, probability, levels=np.linspace(0, 1, 11), cmap="Oranges", alpha=0.8)
    arrows(axes, b * over(grid, lambda x, t=t: jax.grad(lambda x: log_classifier(x, t)[1])(x)), scale=80)
    panel(axes, f"t = {t:g}")
figure.colorbar(shown, ax=panels, label="$p_t(y=1|x)$", shrink=0.8)
plt.show()

# %% [markdown]
# ## 5. Classifier-free guidance
#
# Bayes' rule read backwards needs no classifier: $b_t\nabla_x\log p_t(y\mid x)=u_t(x\mid y)-u_t(x)$. Put in,
# $$u^w_t(x\mid y)=u_t(x\mid\varnothing)+w\,\bigl(u_t(x\mid y)-u_t(x\mid\varnothing)\bigr).$$
# The two are **one** field. Both are written out by the library; here they are compared at 20,000 states: draws of the
# path at any time, moved off it at random, with every label.

# %%
SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
COUNT = 20_000
null_field = guidance.given(field, NULL)
state_key, move_key, time_key = jax.random.split(jax.random.key(3), 3)
any_time = jax.random.uniform(time_key, (COUNT,), minval=0.01, maxval=0.99)
any_label = jnp.arange(COUNT) % NULL
any_state = jax.vmap(lambda key, t: mixture.sample(key, NULL, path, t))(jax.random.split(state_key, COUNT), any_time)
any_state = any_state + 0.5 * jax.random.normal(move_key, (COUNT, 2))


@jax.jit
def both_guidances(scale):
    by_classifier = guidance.classifier(path, null_field, log_classifier, scale)
    classifier_free = guidance.classifier_free(field, scale, null=NULL)
    return tuple(jax.vmap(guided)(any_state, any_time, any_label) for guided in (by_classifier, classifier_free))


gaps = {}
for scale in SCALES:
    by_classifier, classifier_free = both_guidances(scale)
    distance = jnp.linalg.norm(by_classifier - classifier_free, axis=-1)
    gaps[scale] = np.asarray(distance / (1 + jnp.linalg.norm(classifier_free, axis=-1)))
    print(f"w = {scale:3g}: largest difference {gaps[scale].max():.1e}, relative to 1 + the field's length")
    assert gaps[scale].max() < 1e-4

# %% [markdown]
# What is left is rounding of float32. (Before $t=0.01$, where $b_t$ grows without bound, `guidance.classifier` holds
# its term: a learned classifier needs that, and the ways below differ by it.) In the picture both guide at $w=4$: on
# the left the two fields on top of each other (wide orange arrows by classifier, thin black ones classifier-free), in
# the middle the ways of twelve samples under either (orange bands, black lines). On the right, for $w\ge1$, every
# tenth difference of above against time.

# %%
w, t, y = 4.0, 0.5, 1
ways = {
    "by classifier": guidance.classifier(path, null_field, log_classifier, w),
    "classifier-free": guidance.classifier_free(field, w, null=NULL),
}
noises = jax.random.normal(jax.random.key(4), (12, 2))


def follow(guided):
    """The ways of all noises by the ODE, [12, 65, 2]."""
    solver = solvers.heun(guidance.given(guided, y))

    def one(noise):
        ts = solvers.time_grids.uniform(64)
        return solvers.integrate(solver, jax.random.key(0), noise, ts, observe=lambda carry, t: carry.x)[1]

    return np.asarray(jax.jit(jax.vmap(one))(noises))


figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained")
styles = {"by classifier": ("C1", 0.011, 5.0), "classifier-free": ("k", 0.003, 1.0)}
ends = {}
for name, guided in ways.items():
    colour, width, thickness = styles[name]
    arrows(left, over(grid, lambda x, guided=guided: guided(x, t, y)), scale=300, width=width, color=colour)
    followed = follow(guided)
    ends[name] = followed[:, -1]
    for way in followed:
        middle.plot(*way.T, color=colour, linewidth=thickness)
panel(left, f"the two fields, t = {t:g}, w = {w:g}, y = {y}")
panel(middle, "twelve ways from noise to data")
for scale in SCALES[2:]:
    right.semilogy(any_time[::10], gaps[scale][::10], ".", markersize=2, label=f"w = {scale:g}")
right.set(xlabel="t", ylabel="relative difference", ylim=(1e-9, 1e-3), title="at 20,000 states")
right.legend(markerscale=5, fontsize="small", ncols=2)
plt.show()

apart = np.abs(ends["by classifier"] - ends["classifier-free"]).max()
print(f"largest distance between the ends of the ways: {apart:.1e}")
assert apart < 1e-3

# %% [markdown]
# ## 6. One network for both
#
# A network learns $u_t(x\mid z)$, which is simple, and by that $u_t(x\mid y)$: the loss
# $$L(u)=E\,\bigl\|u_t(x\mid y)-(\dot\alpha_t z+\dot\beta_t\varepsilon)\bigr\|^2$$
# is least for the labelled field. If $y$ is replaced by $\varnothing$ with a probability $\eta$, by a draw for each
# example, the same network learns the null field as well: that is all of **classifier-free training**. Here the exact
# field stands in for a trained network, multiplied by a factor; its loss is least at the factor 1, for the labelled
# half and for the dropped half.

# %%
factors = jnp.linspace(0.7, 1.3, 13)
loss_keys = jax.random.split(jax.random.key(5), COUNT)


@jax.jit
def loss_of(factor):
    def one(key, y):
        z_key, coin_key, loss_key = jax.random.split(key, 3)
        z = mixture.sample(z_key, y)
        dropped = guidance.drop_condition(coin_key, y, rate=0.5, null=NULL)
        loss = losses.flow_matching(path, lambda x, t, y: factor * field(x, t, y), loss_key, z, dropped)
        return loss, dropped == NULL

    loss, is_null = jax.vmap(one)(loss_keys, any_label)
    return jnp.stack([jnp.mean(loss, where=~is_null), jnp.mean(loss, where=is_null)])


curves = np.asarray(jax.lax.map(loss_of, factors))
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for curve, name in zip(curves.T, ("labelled", "null"), strict=True):
    axes.plot(factors, curve - curve.min(), ".-", label=name)
    assert abs(factors[np.argmin(curve)] - 1) < 0.06
axes.set(xlabel="factor of the exact field", ylabel="loss above the least")
axes.legend()
plt.show()

# %% [markdown]
# ## 7. Sampling: ODE and SDE
#
# Start at noise and follow the guided field, by the ODE $dX=u^w_t\,dt$, or by the SDE
# $$dX=\bigl[u^w_t+\tfrac12\sigma_t^2\,s^w_t\bigr]dt+\sigma_t\,dW,\qquad
# s^w_t=s_t(\cdot\mid\varnothing)+w\,\bigl(s_t(\cdot\mid y)-s_t(\cdot\mid\varnothing)\bigr),$$
# with any $\sigma_t\ge0$; here $\sigma_t^2=2\beta_t$. The solver makes $s^w$ of $u^w$ by section 3.

# %%
NUM_STEPS = 64


def draw(key, y, scale, is_stochastic):
    noise_key, solver_key = jax.random.split(key)
    guided = guidance.given(guidance.classifier_free(field, scale, null=NULL), y)
    sde = solvers.euler_maruyama(path, guided, solvers.root_beta(path))
    solver = sde if is_stochastic else solvers.heun(guided)
    noise = jax.random.normal(noise_key, (2,))
    return solvers.integrate(solver, solver_key, noise, solvers.time_grids.uniform(NUM_STEPS), lambda carry, t: carry.x)


draw_all = jax.jit(jax.vmap(draw, in_axes=(0, 0, None, None)), static_argnums=3)
many_keys = jax.random.split(jax.random.key(6), 4000)
many_labels = jnp.arange(4000) % NULL
draws = {(s, w): draw_all(many_keys, many_labels, w, s) for s in (False, True) for w in (0.0, 1.0, 2.0, 4.0)}

figure, rows = plt.subplots(2, 4, figsize=(11, 5.7), layout="constrained")
for axes, ((is_stochastic, w), (samples, _)) in zip(rows.ravel(), draws.items(), strict=True):
    axes.scatter(*samples.T, s=2, c=many_labels, cmap="tab10", vmax=9, linewidths=0)
    panel(axes, f"{'SDE' if is_stochastic else 'ODE'}, w = {w:g}")
plt.show()

# %% [markdown]
# At $w=0$ labels are ignored, at $w=1$ each label has its own component, and above 1 samples leave their neighbours,
# ODE and SDE not alike. The same noise takes these ways (label 1, $w=4$):

# %%
figure, panels = plt.subplots(1, 2, figsize=(7.4, 3.8), layout="constrained")
for axes, is_stochastic in zip(panels, (False, True), strict=True):
    ways = draws[is_stochastic, 4.0][1][1::NULL][:40]  # of label 1
    for way in ways:
        axes.plot(*way.T, color="0.5", linewidth=0.6)
    axes.scatter(*ways[:, 0].T, s=9, color="k", zorder=3, label="noise")
    axes.scatter(*ways[:, -1].T, s=9, color="C1", zorder=3, label="sample")
    panel(axes, "SDE" if is_stochastic else "ODE")
panels[0].legend(loc="lower left")
plt.show()

# %% [markdown]
# Are they right where the answer is known? At $w=1$ both must sample $p_{\text{data}}(x\mid y)$: mean, and variance
# $0.16$ along each axis, within four standard errors of the draws and the error of 64 steps. Above 1 there is no such
# check, because the guided field's law is **not** $p(x)^{1-w}p(x\mid y)^w$: what it is instead is shown in
# [what_guidance_does](what_guidance_does.ipynb).

# %%
for is_stochastic in (False, True):
    samples = np.asarray(draws[is_stochastic, 1.0][0])
    centred = samples - np.asarray(mixture.means.reshape(-1, 2)[many_labels])
    spread = centred.var()
    name = "SDE" if is_stochastic else "ODE"
    print(f"{name}, w = 1: mean about the label's {np.abs(centred.mean(axis=0)).max():.3f}, variance {spread:.3f}")
    assert np.abs(centred.mean(axis=0)).max() < 4 * 0.4 / np.sqrt(4000)
    assert abs(spread - 0.16) < 4 * 0.16 * np.sqrt(2 / 8000) + 0.005
