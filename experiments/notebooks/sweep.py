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
# # A sweep, and the choice of $w$
#
# What $w$ is best cannot be read off an equation: it depends on the network, the solver and on what you want. So one
# sweeps. Scales, interval ends, diffusions, labels and keys are **numbers**, and numbers are traced: a whole sweep is
# one compiled call, and the next one of the same sizes compiles nothing.

# %%
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.decomposition import PCA
from sklearn.svm import SVC

from cfgjax import data, guidance, losses, metrics, models, paths, solvers, training
from cfgjax.analysis.sweep import sweep

# %% [markdown]
# ## A network
#
# The digits of [train_your_own](train_your_own.ipynb), where these lines are explained.

# %%
with tempfile.TemporaryDirectory() as folder:
    data.prepare("digits", folder)
    splits = ("train[:80%]", "train[80%:]", "test")
    train, unseen, test = (data.load("digits", split, folder) for split in splits)

NULL, NUM_STEPS = train.num_classes, 400
path = paths.linear()
network = models.MLP(NULL, width=128, depth=3, dropout=0.1)


def loss(params, key, example):
    pixels, y = example
    coin_key, dropout_key, loss_key = jax.random.split(key, 3)
    y = guidance.drop_condition(coin_key, y, rate=0.15, null=NULL)

    def field(x, t, y):
        return network.apply(params, x, t, y, False, rngs={"dropout": dropout_key})

    return losses.flow_matching(path, field, loss_key, data.normalize(pixels), y)


optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 2e-3, 100, NUM_STEPS))
params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((8, 8, 1)), jnp.float32(0), jnp.int32(0))
state = training.init_state(params, optimizer, jax.random.key(1))
step = jax.jit(training.make_step(loss, optimizer, training.ema_warmup(0.99)), donate_argnums=0)
source = jnp.asarray(train.pixels), jnp.asarray(train.label)
for index in range(NUM_STEPS):
    state, found = step(state, data.batch_indices(0, index, 128, len(train.label)), source)
print(f"loss of the last step: {found['loss']:.2f}")

# %% [markdown]
# ## The sweep
#
# `draw` makes **one** sample at one point of the sweep. The solver is Euler–Maruyama with
# $\sigma_t^2=2\kappa^2\beta_t$: with $\kappa=0$ it is Euler's rule for the ODE, so that ODE and SDE are two values of
# one number. The interval says at which times $w$ acts; outside, the scale is 1. `sweep.sweep` takes `draw` and one
# array (or tuple of arrays) for each axis: 10 scales, 2 intervals, 2 values of $\kappa$, and 200 samples with a key
# and a label each.

# %%
SCALES = jnp.array([0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0])
INTERVALS = jnp.array([0.0, 0.3]), jnp.array([1.0, 0.8])  # starts and stops
STRENGTHS = jnp.array([0.0, 1.0])
PER_LABEL = 20
keys, labels = jax.random.split(jax.random.key(2), 10 * PER_LABEL), jnp.arange(10 * PER_LABEL) % 10
traces = []


def draw(scale, interval, strength, sample):
    traces.append("traced")  # Python runs this line when JAX traces the function, and not when it computes
    (start, stop), (key, y) = interval, sample
    field = guidance.classifier_free(
        lambda x, t, y: network.apply(state.ema, x, t, y), guidance.interval(scale, start, stop), null=NULL
    )
    noise_key, solver_key = jax.random.split(key)
    solver = solvers.euler_maruyama(path, guidance.given(field, y), solvers.root_beta(path, strength))
    return solvers.integrate(
        solver, solver_key, jax.random.normal(noise_key, (8, 8, 1)), solvers.time_grids.uniform(24)
    )


run = jax.jit(lambda *axes: sweep(draw, *axes, chunk=1024))
samples = np.asarray(run(SCALES, INTERVALS, STRENGTHS, (keys, labels)))
print(f"{samples.shape}: scale, interval, strength, sample, and the picture; traced {len(traces)} time")
assert samples.shape == (10, 2, 2, 200, 8, 8, 1)
assert len(traces) == 1

# %% [markdown]
# Other numbers in arrays of the same sizes compile nothing; here, all scales doubled. And a point of the sweep is what
# `draw` gives alone.

# %%
run(2 * SCALES, INTERVALS, 0.5 * STRENGTHS, (jax.random.split(jax.random.key(3), 10 * PER_LABEL), labels))
assert len(traces) == 1

alone = jax.jit(draw)(SCALES[4], (INTERVALS[0][1], INTERVALS[1][1]), STRENGTHS[1], (keys[7], labels[7]))
np.testing.assert_allclose(samples[4, 1, 1, 7], alone, atol=1e-3)

# %% [markdown]
# Two samples of each label along $w$, by the ODE and at all times:

# %%
pictures = np.pad(np.clip(samples[:, 0, 0, :20, ..., 0], -1, 1), ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=-0.5)
by_label = pictures.reshape(10, 2, 10, 9, 9)  # scale, which of the two, label, and the picture with its frame
figure, panels = plt.subplots(1, 2, figsize=(8.5, 4.8), layout="constrained")
for which, axes in enumerate(panels):
    axes.imshow(by_label[:, which].transpose(1, 2, 0, 3).reshape(90, 90), cmap="gray_r", vmin=-1, vmax=1)
    axes.set(
        xticks=np.arange(10) * 9 + 5, xticklabels=[f"{w:g}" for w in SCALES], xlabel="w",
        yticks=np.arange(10) * 9 + 5, yticklabels=range(10),
    )  # fmt: skip
plt.show()

# %% [markdown]
# ## The curves
#
# Three numbers for each point. **Class accuracy**: the share with the asked digit, by a support vector machine that
# learned the real ones. **Fréchet distance**: how far mean and covariance of the samples' features lie from those of
# held-out digits; the features are 20 principal components of the real training digits. **Coverage**: the share of
# held-out digits that have a sample nearby. Dashed: 200 real digits that network and feature classifier have not seen.


# %%
def rows(images):
    return np.clip(np.asarray(images, np.float64), -1, 1).reshape(len(images), -1)


feature_classifier = SVC().fit(rows(train.image), train.label)
components = PCA(20).fit(rows(train.image))
reference = components.transform(rows(test.image))
NAMES = ("class accuracy", "Fréchet distance", "coverage of held-out digits")


def measure(images, asked):
    features = components.transform(rows(images))
    covered = metrics.precision_recall(features, reference).coverage
    return feature_classifier.score(rows(images), asked), metrics.frechet_distance(features, reference), covered


measured = np.array([measure(each, labels) for each in samples.reshape(-1, *samples.shape[3:])]).reshape(10, 2, 2, 3)
real = measure(unseen.image[:200], unseen.label[:200])

figure, panels = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
for index, axes in enumerate(panels):
    for column, line in ((0, "-"), (1, ":")):
        for kind, (solver, colour) in enumerate((("ODE", "C0"), ("SDE", "C1"))):
            name = f"{solver}, t in [{INTERVALS[0][column]:g}, {INTERVALS[1][column]:g}]"
            axes.plot(SCALES, measured[:, column, kind, index], line, marker=".", color=colour, label=name)
    axes.axhline(real[index], color="k", linestyle="--", linewidth=1, label="real digits")
    axes.set(xlabel="w", title=NAMES[index])
panels[1].set(ylim=(0, None))
panels[0].legend(fontsize="small")
plt.show()

# %% [markdown]
# ## The choice
#
# At $w=0$ nobody asks for a digit. Up to 1.25 or 1.5 everything improves: more samples show the digit that was asked
# for, and they come nearer to the real ones. Beyond, fidelity has nothing left to gain, and the rest is the price:
# samples become alike, held-out digits lose their neighbours, the distance grows; guided in the interval alone, it
# grows more slowly. So choose the least $w$ that gives the fidelity you need. In numbers, the least Fréchet distance
# of each solver and interval:

# %%
for kind, solver in enumerate(("ODE", "SDE")):
    for column in range(2):
        best = int(np.argmin(measured[:, column, kind, 1]))
        accuracy, distance, covered = measured[best, column, kind]
        print(
            f"{solver}, t in [{INTERVALS[0][column]:g}, {INTERVALS[1][column]:g}]: w = {SCALES[best]:g}, "
            f"class accuracy {accuracy:.1%}, distance {distance:.2f}, coverage {covered:.2f}"
        )

accuracy, distance, covered = np.moveaxis(measured[:, 0], -1, 0)  # guided at all times: each [scale, solver]
assert np.all(accuracy[0] < 0.3)  # w = 0 does not listen
assert np.all(accuracy[4] >= accuracy[2])  # at w = 1.5 the class accuracy is no less than at 1
assert np.all(distance[-1] > 2 * distance.min(axis=0))  # w = 8 is far
assert np.all(covered[-1] < covered[4] / 2)  # and covers little
np.testing.assert_array_equal(samples[2, 0], samples[2, 1])  # at w = 1 the interval changes nothing

# %% [markdown]
# The same on a trained run, with pictures and a csv of the curves, is one command:
# `python -m experiments.evaluate RUN --scales 0 1 1.5 2 3 4`.
