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
# # Bring your own network and pictures
#
# The library asks two things of you. A **network** is a plain function of one example,
# $$(\theta,\,x,\,t,\,y)\mapsto u_\theta(x,t,y),$$
# with $\theta$ any pytree of arrays and $u$ of the shape of $x$; where it comes from is no matter. **Pictures** are a
# folder with one folder for each class. Here a folder of pictures, a network of Flax NNX and one of bare JAX go
# through the same training step.

# %%
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from cfgjax import data, guidance, losses, paths, solvers, training, verify

# %% [markdown]
# ## Pictures
#
# For want of yours, some are made: handwritten digits as PNG files of $32\times32$ pixels, `pictures/three/0007.png`
# and so on. `data.prepare` reads the folder once, cuts every picture to its middle square, resizes it, and keeps every
# tenth of a class as the split `test`. A picture that does not read is refused by name, or skipped with
# `on_corrupt="skip"`.

# %%
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

with tempfile.TemporaryDirectory() as folder:
    pictures = Path(folder, "pictures")
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = pictures / NAMES[label] / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((32, 32), Image.Resampling.NEAREST).save(file)

    data.prepare("my_pictures", folder, source=pictures, image_size=8)
    train, test = (data.load("my_pictures", split, folder) for split in ("train", "test"))

names = sorted(NAMES)  # labels are the class folders in the order of their names
NULL = train.num_classes
print(f"{len(train.label)} pictures to learn, {len(test.label)} held out, each {train.pixels.shape[1:]}, {NULL} labels")

figure, panels = plt.subplots(1, 10, figsize=(9, 1.3), layout="constrained")
for label, axes in enumerate(panels):
    axes.imshow(train.image[train.label == label][0, ..., 0], cmap="gray_r")
    axes.set(title=names[label], xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## A network of Flax NNX
#
# A module for **one** example: no batch axis, $t$ and $y$ scalars, and one more row of the embedding for the null
# label.

# %%
FREQUENCIES = jnp.geomspace(1.0, 50.0, 16)


class Network(nnx.Module):
    def __init__(self, shape, num_classes, width, rngs):
        size = int(np.prod(shape))
        self.label = nnx.Embed(num_classes + 1, 32, rngs=rngs)
        self.first = nnx.Linear(size + 64, width, rngs=rngs)
        self.hidden = nnx.List([nnx.Linear(width + 64, width, rngs=rngs) for _ in range(3)])
        self.last = nnx.Linear(width, size, rngs=rngs)

    def __call__(self, x, t, y):
        condition = jnp.concatenate([jnp.cos(FREQUENCIES * t), jnp.sin(FREQUENCIES * t), self.label(y)])
        h = nnx.silu(self.first(jnp.concatenate([x.reshape(-1), condition])))
        for layer in self.hidden:
            h = h + nnx.silu(layer(jnp.concatenate([h, condition])))
        return self.last(h).reshape(x.shape)


module = Network((8, 8, 1), NULL, width=256, rngs=nnx.Rngs(0))

# %% [markdown]
# `nnx.split` takes it apart into its structure and its parameters, and `nnx.merge` puts it together again: that makes
# the plain function.

# %%
structure, nnx_params = nnx.split(module, nnx.Param)


def of_nnx(params, x, t, y):
    return nnx.merge(structure, params)(x, t, y)


# %% [markdown]
# ## A network of bare JAX
#
# Here the parameters are a dictionary and the network is written out. (A module of Equinox is of this kind:
# `params, static = eqx.partition(module, eqx.is_array)`, and the function is `eqx.combine(params, static)(x, t, y)`. A
# module of Flax Linen needs nothing at all: its function is `network.apply`.)


# %%
def of_jax(params, x, t, y):
    condition = jnp.concatenate([jnp.cos(FREQUENCIES * t), jnp.sin(FREQUENCIES * t), params["label"][y]])
    h = jax.nn.silu(dense(params["first"], jnp.concatenate([x.reshape(-1), condition])))
    for layer in params["hidden"]:
        h = h + jax.nn.silu(dense(layer, jnp.concatenate([h, condition])))
    return dense(params["last"], h).reshape(x.shape)


def dense(layer, h):
    return h @ layer["kernel"] + layer["bias"]


def initialise(key, size, num_classes, width):
    keys = iter(jax.random.split(key, 6))

    def layer(num_in, num_out):
        kernel = jax.random.normal(next(keys), (num_in, num_out)) / num_in**0.5
        return {"kernel": kernel, "bias": jnp.zeros(num_out)}

    return {
        "label": jax.random.normal(next(keys), (num_classes + 1, 32)) / 32**0.5,
        "first": layer(size + 64, width),
        "hidden": [layer(width + 64, width) for _ in range(3)],
        "last": layer(width, size),
    }


jax_params = initialise(jax.random.key(0), 64, NULL, 256)

# %% [markdown]
# ## One step for both
#
# The loss takes the function. `training.init_state` and `training.make_step` take the parameters as they are, a state
# of NNX or a dictionary: Optax, the moving average and `jax.pmap` see a pytree.

# %%
path = paths.linear()
NUM_STEPS = 1200
optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 2e-3, 100, NUM_STEPS))
source = jnp.asarray(train.pixels), jnp.asarray(train.label)


def make_step(network):
    def loss(params, key, example):
        pixels, y = example
        coin_key, loss_key = jax.random.split(key)
        y = guidance.drop_condition(coin_key, y, rate=0.15, null=NULL)
        return losses.flow_matching(path, lambda x, t, y: network(params, x, t, y), loss_key, data.normalize(pixels), y)

    return jax.jit(training.make_step(loss, optimizer, training.ema_warmup(0.99)))


STEPS = {network: make_step(network) for network in (of_nnx, of_jax)}


def fit(network, params):
    """The moving average of the parameters, and the losses [NUM_STEPS]."""
    step, state, history = STEPS[network], training.init_state(params, optimizer, jax.random.key(1)), []
    for index in range(NUM_STEPS):
        state, found = step(state, data.batch_indices(0, index, 128, len(train.label)), source)
        history.append(found["loss"])
    return state.ema, np.asarray(history)


# %% [markdown]
# The two networks are written differently and are the same function: with the module's parameters in the dictionary
# the values agree, and so do the loss and the gradient's norm of a step.

# %%
as_dictionary = nnx.to_pure_dict(nnx_params)
as_dictionary["label"] = as_dictionary["label"]["embedding"]
as_dictionary["hidden"] = [as_dictionary["hidden"][index] for index in range(3)]

x = jax.random.normal(jax.random.key(2), (100, 8, 8, 1))
t, y = jnp.linspace(0, 1, 100), jnp.arange(100) % (NULL + 1)
values = [
    jax.jit(jax.vmap(network, in_axes=(None, 0, 0, 0)))(params, x, t, y)
    for network, params in ((of_nnx, nnx_params), (of_jax, as_dictionary))
]
print(f"largest difference of the values: {jnp.max(jnp.abs(values[0] - values[1])):.1e}")
np.testing.assert_allclose(values[0], values[1], atol=1e-5)

batch = data.batch_indices(0, 0, 128, len(train.label))
steps = [
    STEPS[network](training.init_state(params, optimizer, jax.random.key(1)), batch, source)[1]
    for network, params in ((of_nnx, nnx_params), (of_jax, as_dictionary))
]
for name in ("loss", "grad_norm"):
    print(f"{name}: {steps[0][name]:.5f} by NNX, {steps[1][name]:.5f} by JAX")
    np.testing.assert_allclose(steps[0][name], steps[1][name], rtol=1e-4)

# %% [markdown]
# Trained each from its own start:

# %%
fitted = {"Flax NNX": (of_nnx, *fit(of_nnx, nnx_params)), "bare JAX": (of_jax, *fit(of_jax, jax_params))}

figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
for name, (_, _, history) in fitted.items():
    axes.plot(np.arange(25, NUM_STEPS - 24), np.convolve(history, np.ones(50) / 50, "valid"), label=name)
axes.set(xlabel="step", ylabel="loss, mean of 50 steps", ylim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# ## Samples
#
# Both at $w=2$, from the same noise, beside real pictures. For a module again, and not a function:
# `nnx.merge(structure, ema)`.


# %%
def sample(network, params, scale, per_label=8):
    def field(x, t, y):
        return network(params, x, t, y)

    def draw(key, y):
        guided = guidance.given(guidance.classifier_free(field, scale, null=NULL), y)
        noise = jax.random.normal(key, (8, 8, 1))
        return solvers.integrate(solvers.heun(guided), key, noise, solvers.time_grids.uniform(24))

    labels = jnp.repeat(jnp.arange(10), per_label)
    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), len(labels)), labels))


def rows(images):
    return np.clip(np.asarray(images, np.float64), -1, 1).reshape(len(images), -1)


feature_classifier = SVC().fit(rows(train.image), train.label)
shown = {"real": np.concatenate([test.image[test.label == label][:8] for label in range(10)])}
shown |= {name: sample(network, ema, 2.0) for name, (network, ema, _) in fitted.items()}

figure, panels = plt.subplots(1, 3, figsize=(10.5, 4.4), layout="constrained")
for axes, (name, images) in zip(panels, shown.items(), strict=True):
    accuracy = feature_classifier.score(rows(images), np.repeat(np.arange(10), 8))
    print(f"{name}: class accuracy {accuracy:.1%}")
    assert accuracy > 0.85
    framed = np.pad(np.clip(images[..., 0], -1, 1), ((0, 0), (1, 0), (1, 0)), constant_values=-0.5)
    axes.imshow(framed.reshape(10, 8, 9, 9).swapaxes(1, 2).reshape(90, 72), cmap="gray_r", vmin=-1, vmax=1)
    axes.set(title=name, xticks=[], yticks=np.arange(10) * 9 + 5, yticklabels=names)
plt.show()

# %% [markdown]
# ## And your own rule of guidance
#
# `verify` runs what you wrote where the answer is known. A rule as some papers have it, with $1+w$ in the place of
# $w$, is not the library's, and the table says so:


# %%
def my_rule(field, scale, null):
    return lambda x, t, y: field(x, t, y) + scale * (field(x, t, y) - field(x, t, null))


report = verify.guidance(my_rule)
print(report)
assert not report.passed
assert verify.guidance(lambda field, scale, null: my_rule(field, scale - 1, null)).passed
