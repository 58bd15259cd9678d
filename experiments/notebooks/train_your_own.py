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
# # Train your own
#
# From 1,437 handwritten digits of $8\times8$ pixels to guided samples, with the library alone: no experiment module,
# no configuration. The digits ship inside scikit-learn; nothing is downloaded.
#
# A network $u_\theta(x,t,y)$ learns the labelled field and, by dropping labels, the null field:
# $$L(\theta)=E\,\bigl\|u_\theta(x_t,t,y')-(\dot\alpha_tz+\dot\beta_t\varepsilon)\bigr\|^2,\qquad
# x_t=\alpha_tz+\beta_t\varepsilon,\qquad y'=\varnothing\ \text{with probability}\ \eta,\ \text{else}\ y.$$
# All that follows is written for **one** example.

# %%
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.svm import SVC

from cfgjax import checkpoints, data, guidance, losses, metrics, models, paths, solvers, training

# %% [markdown]
# ## Data and network
#
# `data.prepare` writes a data set once, in the format of tensorflow-datasets; `data.load` reads it into memory,
# without TensorFlow. A network is a plain function `(params, x, t, y) -> like x`; this one is a residual MLP.

# %%
with tempfile.TemporaryDirectory() as folder:
    data.prepare("digits", folder)
    train, test = data.load("digits", "train", folder), data.load("digits", "test", folder)

NULL = train.num_classes
path = paths.linear()
network = models.MLP(NULL, width=256, depth=4, dropout=0.1)
params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((8, 8, 1)), jnp.float32(0), jnp.int32(0))
count = sum(leaf.size for leaf in jax.tree.leaves(params))
print(f"{len(train.label)} digits {train.pixels.shape[1:]}, {count:,} parameters")

# %% [markdown]
# ## The loss of one example
#
# The coin of each example, its time and its noise come from the example's own key.


# %%
def loss(params, key, example):
    pixels, y = example
    coin_key, dropout_key, loss_key = jax.random.split(key, 3)
    y = guidance.drop_condition(coin_key, y, rate=0.15, null=NULL)

    def field(x, t, y):
        return network.apply(params, x, t, y, False, rngs={"dropout": dropout_key})

    return losses.flow_matching(path, field, loss_key, data.normalize(pixels), y)


# %% [markdown]
# ## Training
#
# `training.make_step` makes of it the pure step `(state, batch, source) -> (state, metrics)`: mean over the batch,
# gradient, Optax update, moving average. The set lies on the device as the source; a batch is its indices, a function
# of seed and step. `jax.jit` compiles it for one device; `training.parallel(step)` is the same step on all of them.

# %%
NUM_STEPS, BATCH_SIZE = 1500, 128
optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 2e-3, 100, NUM_STEPS))
state = training.init_state(params, optimizer, jax.random.key(1))
step = jax.jit(training.make_step(loss, optimizer, training.ema_warmup(0.995)), donate_argnums=0)
source = jnp.asarray(train.pixels), jnp.asarray(train.label)

history = []
for index in range(NUM_STEPS):
    state, found = step(state, data.batch_indices(0, index, BATCH_SIZE, len(train.label)), source)
    history.append(found["loss"])

history = np.asarray(history)
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.plot(history, color="0.8")
axes.plot(np.arange(25, NUM_STEPS - 24), np.convolve(history, np.ones(50) / 50, "valid"), label="mean of 50 steps")
axes.set(xlabel="step", ylabel="flow matching loss", ylim=(0, None))
axes.legend()
plt.show()
assert np.all(np.isfinite(history))
assert history[-50:].mean() < 0.6 * history[:50].mean()

# %% [markdown]
# The loss does not go to 0: most of it is the spread of $\dot\alpha_tz+\dot\beta_t\varepsilon$ about its mean, the
# field.
#
# ## From a checkpoint to a field
#
# A checkpoint holds the whole state. `checkpoints.restore_params` reads the moving average alone out of it, in another
# process too: it needs neither the optimizer nor any shape, and compares every array with its checksum.

# %%
folder = f"{tempfile.mkdtemp()}/checkpoints"
with checkpoints.Writer(folder) as writer:
    writer.save(NUM_STEPS, state, {"data": "digits"})

ema = checkpoints.restore_params(folder).state
assert jax.tree.all(jax.tree.map(jnp.array_equal, ema, state.ema))

# %% [markdown]
# ## Samples
#
# The moving average is the network to sample with. One sample is one solve of $dx=u^w_t\,dt$ with
# $$u^w_t=u_\theta(x,t,\varnothing)+w\,\bigl(u_\theta(x,t,y)-u_\theta(x,t,\varnothing)\bigr),$$
# both sides in one call of the network. The scale is traced: one compilation serves every $w$.


# %%
def field(x, t, y):
    return network.apply(ema, x, t, y)


def draw(key, y, scale):
    noise = jax.random.normal(key, (8, 8, 1))
    guided = guidance.given(guidance.classifier_free(field, scale, null=NULL), y)
    ts = solvers.time_grids.uniform(32)
    return solvers.integrate(solvers.heun(guided), key, noise, ts, observe=lambda carry, t: carry.x)


draw_all = jax.jit(jax.vmap(draw, in_axes=(0, 0, None)))
PER_LABEL = 20
keys, labels = jax.random.split(jax.random.key(2), 10 * PER_LABEL), jnp.arange(10 * PER_LABEL) % 10
SCALES = (0.0, 1.0, 2.0, 4.0)
samples = {w: draw_all(keys, labels, w) for w in SCALES}  # (images [200, 8, 8, 1], ways [200, 33, 8, 8, 1])


def tile(images, rows):
    """Images [rows * columns, 8, 8, 1] as one picture with lines between them."""
    framed = np.pad(np.clip(np.asarray(images)[..., 0], -1, 1), ((0, 0), (1, 0), (1, 0)), constant_values=-0.5)
    return framed.reshape(rows, -1, 9, 9).swapaxes(1, 2).reshape(rows * 9, -1)


figure, panels = plt.subplots(1, 5, figsize=(11, 5), layout="constrained")
real = np.concatenate([train.image[train.label == y][:5] for y in range(10)])
panels[0].imshow(tile(real, 10), cmap="gray_r", vmin=-1, vmax=1)
panels[0].set_title("real")
for axes, w in zip(panels[1:], SCALES, strict=True):
    by_label = samples[w][0].reshape(PER_LABEL, 10, 8, 8, 1).swapaxes(0, 1)[:, :5].reshape(-1, 8, 8, 1)
    axes.imshow(tile(by_label, 10), cmap="gray_r", vmin=-1, vmax=1)
    axes.set_title(f"w = {w:g}")
for axes in panels:
    axes.set(xticks=[], yticks=np.arange(10) * 9 + 5, yticklabels=range(10))
plt.show()

# %% [markdown]
# Each row was asked for the digit at its left; at $w=0$ nobody listens. How one sample of each label comes out of its
# noise, at $w=2$, in steps of $t=1/8$:

# %%
ways = samples[2.0][1][:10, ::4]  # [10, 9, 8, 8, 1]
figure, axes = plt.subplots(figsize=(5, 5.2), layout="constrained")
axes.imshow(tile(ways.reshape(-1, 8, 8, 1), 10), cmap="gray_r", vmin=-1, vmax=1)
axes.set(
    xticks=np.arange(9) * 9 + 5, xticklabels=[f"{t:.3g}" for t in np.arange(9) / 8], xlabel="t",
    yticks=np.arange(10) * 9 + 5, yticklabels=range(10), ylabel="label",
)  # fmt: skip
plt.show()

# %% [markdown]
# ## Is it right?
#
# A support vector machine that learned the real training digits says how many samples show the digit that was asked
# for. And are they copies? The share of samples that lie nearer to a training digit than 99 % of the held-out digits
# do would be 1 % for new digits.


# %%
def rows(images):
    return np.clip(np.asarray(images, np.float64), -1, 1).reshape(len(images), -1)


feature_classifier = SVC().fit(rows(train.image), train.label)
print(f"class accuracy of held-out digits: {feature_classifier.score(rows(test.image), test.label):.1%}")
held_out = metrics.nearest_distances(rows(test.image), rows(train.image))
accuracy = {}
for w in SCALES:
    images = rows(samples[w][0])
    accuracy[w] = feature_classifier.score(images, np.asarray(labels))
    copied = metrics.memorization_rate(metrics.nearest_distances(images, rows(train.image)), held_out)
    print(f"w = {w:g}: class accuracy {accuracy[w]:.1%}, copies {copied:.1%}")

assert accuracy[0.0] < 0.25  # chance is 10 %
assert accuracy[1.0] > 0.85
assert accuracy[2.0] > 0.95

# %% [markdown]
# Next: your own network and pictures in [bring_your_own](bring_your_own.ipynb), the choice of $w$ in
# [sweep](sweep.ipynb). Checkpoints, resuming, presets and real data sets are what `python -m experiments.train` adds
# to these lines.
