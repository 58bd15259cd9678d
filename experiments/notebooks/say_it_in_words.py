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
# # Say it in words
#
# A condition $y$ that is no label: a sentence. "A thin seven leaning left" is a few tokens, of which any may be
# missing; the network reads them, and guidance is what it was:
# $$u^w_t(x|y)=u_t(x|\varnothing)+w\,\bigl(u_t(x|y)-u_t(x|\varnothing)\bigr).$$
# What takes the place of $y$ on the null side is made **once**, and serves training and sampling. The handwritten
# digits ship inside scikit-learn; nothing is downloaded.

# %%
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.svm import SVC

from cfgjax import conditions, data, guidance, losses, models, paths, solvers, training, verify
from cfgjax.data import described, measured, sentences

# %% [markdown]
# ## What can be said of a digit
#
# `measured.properties` gives stroke weight, width, height and slant of an image. A digit has a word of a property, low
# or high, where it lies in the lower or the upper third of the training images of its class.

# %%
with tempfile.TemporaryDirectory() as folder:
    data.prepare("digits", folder)
    train, test = data.load("digits", "train", folder), data.load("digits", "test", folder)

properties_of = jax.jit(jax.vmap(measured.properties))
properties = np.asarray(properties_of(train.image))
thresholds = described.thresholds_of(properties, train.label)
describe = jax.jit(jax.vmap(lambda y, found: described.describe(y, found, thresholds)))
descriptions = describe(train.label, properties)


def show(axes, image, title):
    axes.imshow(np.clip(np.asarray(image)[..., 0], -1, 1), cmap="gray_r", vmin=-1, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=7)


figure, panels = plt.subplots(2, 5, figsize=(10, 4), layout="constrained")
for axes, row in zip(panels.flat, range(10), strict=True):
    one = jax.tree.map(lambda leaf, row=row: leaf[row], descriptions)
    show(axes, train.image[row], sentences.sentence(one))
plt.show()

# %% [markdown]
# Ten combinations of a class and two words, one of each class, are kept from training: `sentences.HELD_OUT`. The images
# that have one are left out altogether.

# %%
is_held_out = np.asarray(jax.jit(jax.vmap(sentences.is_held_out))(descriptions))
learned = np.flatnonzero(~is_held_out)
print(f"{len(learned)} images are learned; {is_held_out.sum()} have one of: {', '.join(sentences.HELD_OUT)}")

# %% [markdown]
# ## One null
#
# `conditions.Tokens` are a sequence with a mask; `conditions.Known` says beside them whether there is a sentence at
# all. In training every word is said with probability 0.8, the class with 0.9, drawn anew each time, and one sentence
# in ten is dropped. `verify.dropping` finds out whether what is dropped is what sampling will use.

# %%
LENGTH = sentences.MOST_TOKENS
null = conditions.unknown(conditions.Tokens(jnp.zeros(LENGTH, jnp.int32), jnp.zeros(LENGTH, bool)))
source = jnp.asarray(train.pixels)[learned], jax.tree.map(lambda leaf: leaf[learned], descriptions)


def said(key, description):
    part = described.mention(key, description, rate_of_words=0.8, rate_of_class=0.9)
    return conditions.known(conditions.Tokens(*sentences.tokens(part, LENGTH)))


def drop(key, y):
    return guidance.drop_condition(key, y, 0.1, null)


def any_sentence(key):
    row = jax.random.randint(key, (), 0, len(learned))
    return said(key, jax.tree.map(lambda leaf: leaf[row], source[1]))


verify.dropping(drop, null, 0.1, any_sentence).require()

# %% [markdown]
# ## A network that reads
#
# `models.SequenceEmbedding` makes of the tokens a vector, added to the embedding of the time, and tokens to attend to
# (`models.DiT` and `models.UNet` do). This MLP takes the vector alone. `positions="none"` reads a sentence as a set.

# %%
path = paths.linear()
reader = models.SequenceEmbedding(64, vocabulary_size=len(sentences.VOCABULARY), positions="none")
network = models.MLP(10, width=384, depth=4, dropout=0.2, conditioning=reader)


def loss(params, key, example):
    pixels, description = example
    said_key, drop_key, dropout_key, loss_key = jax.random.split(key, 4)
    y = drop(drop_key, said(said_key, description))

    def field(x, t, y):
        return network.apply(params, x, t, y, False, rngs={"dropout": dropout_key})

    return losses.flow_matching(path, field, loss_key, data.normalize(pixels), y)


NUM_STEPS, BATCH_SIZE = 2500, 128
params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((8, 8, 1)), jnp.float32(0), null)
optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 2e-3, 100, NUM_STEPS))
state = training.init_state(params, optimizer, jax.random.key(1))
step = jax.jit(training.make_step(loss, optimizer, training.ema_warmup(0.998)), donate_argnums=0)
for index in range(NUM_STEPS):
    state, now = step(state, data.batch_indices(0, index, BATCH_SIZE, len(learned)), source)
print(f"loss {now['loss']:.3f}")


def field(x, t, y):
    return network.apply(state.ema, x, t, y)


# %% [markdown]
# ## Prompts
#
# One compiled function draws any prompt at any scale. The last two rows are combinations that no training image has.


# %%
def tokens(prompt):
    return conditions.known(conditions.Tokens(*sentences.encode(prompt, LENGTH)))


def draw(key, y, scale, away_from=null):
    noise_key, solver_key = jax.random.split(key)
    guided = guidance.given(guidance.extrapolate(guidance.pair(field, away_from), scale), y)
    noise = jax.random.normal(noise_key, (8, 8, 1))
    return solvers.integrate(solvers.heun(guided), solver_key, noise, solvers.time_grids.uniform(32))


draw_some = jax.jit(jax.vmap(draw, in_axes=(0, None, None, None)))
PROMPTS = ("a seven", "a thin seven", "a bold seven", "a wide tall zero", *sentences.HELD_OUT[3:5])
SCALES = (0.0, 1.0, 2.0, 3.0)
keys = jax.random.split(jax.random.key(2), 4)
figure, panels = plt.subplots(len(PROMPTS), 16, figsize=(11, 5), layout="constrained")
for number, (row, prompt) in enumerate(zip(panels, PROMPTS, strict=True)):
    for column, scale in enumerate(SCALES):
        for place, image in enumerate(draw_some(keys, tokens(prompt), scale, null)):
            show(row[4 * column + place], image, f"w = {scale:g}" if number == 0 else "")
    row[0].set_ylabel(prompt, rotation=0, ha="right", va="center", fontsize=8)
plt.show()

# %% [markdown]
# ## Are the words met?
#
# What was asked in words is measured on the samples: the class by a support vector machine that learned the real
# digits, each word by the same thresholds. Three kinds of prompts: a class and one word, all 80; a class and two words
# that were learned together; the ten combinations that never were.

# %%
feature_classifier = SVC().fit(train.image.reshape(len(train.label), -1), train.label)
draw_each = jax.jit(jax.vmap(draw, in_axes=(0, 0, None, None)))


def prompts_of(num_words):
    words = [word for pair in described.WORDS for word in pair]
    every = [f"{name} {' '.join(words[i] for i in chosen)}" for name in described.CLASSES for chosen in num_words]
    return [prompt for prompt in every if not bool(sentences.is_held_out(sentences.parse(prompt)))]


one_word = [(i,) for i in range(8)]
two_words = [(i, j) for i in range(8) for j in range(i + 1, 8) if i // 2 != j // 2]
KINDS = {"one word": prompts_of(one_word), "two words": prompts_of(two_words), "held out": sentences.HELD_OUT * 20}


def measure(prompts, scale):
    """The shares of right classes and of words met."""
    asked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(sentences.parse, prompts))
    ys = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(tokens, prompts))
    samples = draw_each(jax.random.split(jax.random.key(3), len(prompts)), ys, scale, null)
    is_right = feature_classifier.predict(np.clip(samples, -1, 1).reshape(len(prompts), -1)) == asked.label
    is_met = describe(asked.label, properties_of(samples)).words == asked.words
    return float(np.mean(is_right)), float(np.mean(is_met[asked.words != 0]))


found = {kind: np.array([measure(prompts, scale) for scale in SCALES]) for kind, prompts in KINDS.items()}
figure, panels = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained", sharey=True)
for kind, values in found.items():
    for axes, column in zip(panels, values.T, strict=True):
        axes.plot(SCALES, column, "o-", label=kind)
    (_, of_one), (right, of_three) = values[1], values[3]
    print(f"{kind}: words met {of_one:.1%} at w = 1, {of_three:.1%} at w = 3; class there {right:.1%}")
for axes, title in zip(panels, ("right class", "words met"), strict=True):
    axes.set(title=title, xlabel="w", ylim=(0, 1.02))
panels[0].legend()
plt.show()
assert found["one word"][0, 0] < 0.25  # w = 0: nobody listens
assert all(values[2, 0] > 0.95 for values in found.values())
assert found["one word"][3, 1] > 0.9
assert found["held out"][3, 1] > 0.7
assert all(values[1, 1] < values[3, 1] for values in found.values())

# %% [markdown]
# At $w=1$ a word is met as often as the field has learned it. Guidance makes it certain, at the price of variety; of
# the held-out combinations, too, as the network reads a sentence for the set of its words.
#
# ## Away from a prompt
#
# Any condition can take the null's place: leading away from "a thin seven" makes sevens bolder than leading away from
# nothing in particular. The same noise on both sides; the stroke weight in pixels.

# %%
many = jax.random.split(jax.random.key(4), 200)
weights = {
    name: properties_of(draw_some(many, tokens("a seven"), 2.0, away_from))[:, 0]
    for name, away_from in {"the null": null, "a thin seven": tokens("a thin seven")}.items()
}
for name, values in weights.items():
    print(f"away from {name}: stroke weight {np.mean(values):.2f}")
assert np.mean(weights["a thin seven"] - weights["the null"]) > 0.05

# %% [markdown]
# The same as a preset, `experiments.train described_digits`, with its figures: the page "Digits in words". Vectors,
# pictures and several conditions at once, each with its own scale: the page "Any condition".
