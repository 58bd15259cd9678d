"""Published architectures in PyTorch, with random weights, against ours by the map of names (needs PyTorch)."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers
from cfgjax.models import SIZES, pretrained
from tests.support.published_by_hand import swapped

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

pytestmark = pytest.mark.slow

MOST = 1e-4
"""Largest difference allowed, relative to the output's root mean square."""


def _two_layers(first, width, last):
    return nn.Sequential(nn.Linear(first, width), nn.SiLU(), nn.Linear(width, last))


def _modulation(width, count):
    return nn.Sequential(nn.SiLU(), nn.Linear(width, count * width))


def _norm(tokens):
    return functional.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


def _angles(numbers, count, divisor=None):
    return torch.outer(numbers, 10000.0 ** (-torch.arange(count, dtype=torch.float64) / (divisor or count)))


def _waves(numbers, count):
    """Sines, then cosines, [n, 2 * count]."""
    angles = _angles(numbers.double(), count)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def positions(side, width):
    """[1, side^2, width]: the column's waves, then the row's, for tokens that follow one another along rows."""
    row, column = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
    return torch.cat([_waves(column, width // 4), _waves(row, width // 4)], dim=1).float()[None]


class Attention(nn.Module):
    """Multi-head self-attention by one projection to queries, keys and values."""

    def __init__(self, width, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens):
        batch, count, width = tokens.shape
        split = self.qkv(tokens).view(batch, count, 3, self.num_heads, width // self.num_heads)
        query, key, value = (part.transpose(1, 2) for part in split.unbind(2))
        return self.proj(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One block: attention and MLP, each shifted, scaled and gated by the condition."""

    def __init__(self, width, num_heads):
        super().__init__()
        self.attn = Attention(width, num_heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, tokens, condition):
        parts = self.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        tokens = tokens + parts[2] * self.attn(parts[0] + _norm(tokens) * (1 + parts[1]))
        inner = self.mlp["fc1"](parts[3] + _norm(tokens) * (1 + parts[4]))
        return tokens + parts[5] * self.mlp["fc2"](functional.gelu(inner, approximate="tanh"))


class Published(nn.Module):
    """The transformer of both papers under the names of their files; images are [n, C, H, W], t is what it embeds.

    Its frequencies of time are 10000^(-k/divisor), k = 0..127.
    """

    divisor = 128

    def __init__(self, architecture):
        super().__init__()
        width, patch = architecture.width, architecture.patch
        self.architecture = architecture
        self.num_outputs = architecture.channels * (1 + architecture.has_variance)
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(architecture.channels, width, patch, patch)})
        self.t_embedder = nn.ModuleDict({"mlp": _two_layers(256, width, width)})
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(architecture.num_classes + 1, width)})
        self.pos_embed = nn.Parameter(positions(architecture.side // patch, width), requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, architecture.num_heads) for _ in range(architecture.depth))
        self.final_layer = nn.ModuleDict(
            {"linear": nn.Linear(width, patch**2 * self.num_outputs), "adaLN_modulation": _modulation(width, 2)}
        )

    def forward(self, x, t, y):
        angles = _angles(t.double(), 128, self.divisor)
        time = self.t_embedder["mlp"](torch.cat([angles.cos(), angles.sin()], dim=1).float())
        condition = time + self.y_embedder["embedding_table"](y)
        tokens = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.final_layer["adaLN_modulation"](condition)[:, None].chunk(2, dim=2)
        patches = self.final_layer["linear"](shift + _norm(tokens) * (1 + scale))
        patch, count = self.architecture.patch, self.architecture.side // self.architecture.patch
        pixels = patches.view(-1, count, count, patch, patch, self.num_outputs).permute(0, 5, 1, 3, 2, 4)
        return pixels.flatten(4, 5).flatten(2, 3)[:, : self.architecture.channels]


def _architecture(size, depth=None, has_variance=True):
    width, own_depth, num_heads = SIZES[size]
    return pretrained.Architecture(width, depth or own_depth, num_heads, 2, 4, 32, 1000, has_variance)


def _random(architecture, seed=0):
    """The network with no weight at zero, as large as trained ones' are: every gate is open."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        network = Published(architecture)
    network = network.to_empty(device="cpu")
    for name, weight in network.named_parameters():
        spread = 0.5 if name.endswith("table.weight") else 0.1 if name.endswith("bias") else weight[0].numel() ** -0.5
        weight.data.normal_(0, spread)
    network.pos_embed.data.copy_(positions(architecture.side // architecture.patch, architecture.width))
    return network.eval()


def _tensors(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


class Convention(NamedTuple):
    """What a kind's network embeds at our times, and what its prediction is multiplied with to be ours."""

    times: tuple[float, ...]
    embedded: Callable[[np.ndarray], np.ndarray]
    sign: float = 1.0
    divisor: int = 128


def _of_steps(t):
    return 999 * (1 - t.astype(np.float64))


FLOW_TIMES, STEP_TIMES = (0.0, 0.3, 0.8125, 1.0), (0.0, 0.25, 0.8125, 1.0)
CONVENTIONS = {
    "sit": Convention(FLOW_TIMES, lambda t: t),
    "repa": Convention(FLOW_TIMES, lambda t: 1 - t.astype(np.float64), sign=-1.0),
    "dit": Convention(STEP_TIMES, _of_steps),
    "diffusers_dit": Convention(STEP_TIMES, _of_steps, divisor=127),
}
LABELS = [207, 1000, 0, 999]


def _inputs(architecture, kind, count):
    x = np.random.default_rng(1).normal(size=(count, architecture.side, architecture.side, architecture.channels))
    return x.astype(np.float32), np.float32(CONVENTIONS[kind].times[:count]), np.int32(LABELS[:count])


def _theirs(network, kind, x, t, y):
    """What the PyTorch network gives at our state, time and label, in our order."""
    convention = CONVENTIONS[kind]
    given = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    with torch.inference_mode():
        network.divisor = convention.divisor
        found = network(given, torch.from_numpy(convention.embedded(t)), torch.from_numpy(y))
    return convention.sign * found.numpy().transpose(0, 2, 3, 1)


@cache
def _compiled(network):
    return jax.jit(jax.vmap(network.apply, in_axes=(None, 0, 0, 0)))


def _ours(kind, architecture, params, inputs, **changes):
    network = dataclasses.replace(pretrained.network(kind, architecture), **changes)
    return np.asarray(_compiled(network)(params, *map(jnp.asarray, inputs)))


def _difference(found, expected):
    return float(np.max(np.abs(found - expected)) / np.sqrt(np.mean(np.square(expected))))


def _made(architecture):
    """A network, its tensors, and our parameters of them by kind."""
    network = _random(architecture)
    tensors = _tensors(network)
    return architecture, network, tensors, lambda kind: pretrained.parameters(tensors.__getitem__, architecture, kind)


@pytest.fixture(scope="module")
def small():
    """A whole S/2."""
    return _made(_architecture("S"))


@pytest.fixture(scope="module")
def shallow():
    """The first two blocks of it."""
    return _made(_architecture("S", depth=2))


@pytest.mark.parametrize("kind", CONVENTIONS)
def test_ours_with_the_weights_of_theirs_is_theirs(kind, small):
    architecture, network, tensors, params_of = small
    assert pretrained.architecture_of({name: tensor.shape for name, tensor in tensors.items()}) == architecture
    inputs = _inputs(architecture, kind, 4)
    expected = _theirs(network, kind, *inputs)
    difference = _difference(_ours(kind, architecture, params_of(kind), inputs), expected)
    print(f"{kind} S/2: {difference:.1e}")
    assert difference < MOST
    apart = [_difference(expected[i], expected[j]) for i in range(4) for j in range(i)]
    assert min(apart) > 1, "the outputs depend on state, time and label"


@pytest.mark.parametrize(("size", "has_variance"), [("B", False), ("L", True), ("XL", False)])
def test_the_other_widths(size, has_variance):
    architecture, network, _, params_of = _made(_architecture(size, depth=2, has_variance=has_variance))
    inputs = _inputs(architecture, "sit", 2)
    difference = _difference(_ours("sit", architecture, params_of("sit"), inputs), _theirs(network, "sit", *inputs))
    print(f"sit {size}/2, 2 blocks: {difference:.1e}")
    assert difference < MOST


def test_the_largest_in_full():
    """XL/2 with 28 blocks, 675 million parameters, on 32 x 32 x 4 latents, as SiT and as DiT."""
    architecture, network, _, params_of = _made(_architecture("XL"))
    inputs = {kind: _inputs(architecture, kind, 2) for kind in ("sit", "dit")}
    expected = {kind: _theirs(network, kind, *inputs[kind]) for kind in inputs}
    del network
    params = params_of("sit")  # those of "dit", too
    for kind in inputs:
        difference = _difference(_ours(kind, architecture, params, inputs[kind]), expected[kind])
        print(f"{kind} XL/2: {difference:.1e}")
        assert difference < MOST


STEPS = [999, 750, 400, 100, 0]
SCALE = 1.5


def _guided(network, x, number, label):
    """What the PyTorch network predicts with all channels guided, at the number that it embeds."""
    with torch.inference_mode():
        numbers = torch.full((2,), number, dtype=torch.float64)
        null, labelled = network(torch.cat([x, x]), numbers, torch.tensor([1000, label])).split(1)
    return null + SCALE * (labelled - null)


def _their_solve(kind, network, x, label):
    """DiT's DDIM over whole steps down to the data, SiT's Euler from 0 to 1, or REPA's from 1 to 0."""
    network.divisor = CONVENTIONS[kind].divisor
    if kind in ("sit", "repa"):
        for i in range(4):
            x = x + 0.25 * CONVENTIONS[kind].sign * _guided(network, x, abs((kind == "repa") - i / 4), label)
        return x
    signals = np.append(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[STEPS], 1.0)
    for step, signal, after in zip(STEPS, signals, signals[1:], strict=False):
        noise = _guided(network, x, float(step), label)
        data = (x - (1 - signal) ** 0.5 * noise) / signal**0.5
        x = after**0.5 * data + (1 - after) ** 0.5 * noise
    return x


@pytest.mark.parametrize("kind", CONVENTIONS)
def test_a_guided_solve_ends_where_theirs_does(kind, shallow):
    """Direction of time, sign, schedule and guidance together; a state of DDPM is alpha + beta times ours."""
    architecture, network, _, params_of = shallow
    ts, x_scale = np.linspace(0, 1, 5), 1.0
    if kind in ("dit", "diffusers_dit"):
        signals = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[STEPS]
        alphas, betas = np.sqrt(signals), np.sqrt(1 - signals)
        ts = np.append(alphas / (alphas + betas), 1.0)
        x_scale = alphas[0] + betas[0]
    x = np.random.default_rng(2).normal(size=(32, 32, 4)).astype(np.float32)
    given = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None]
    expected = _their_solve(kind, network, given, 207)[0].numpy().transpose(1, 2, 0)
    predict = pretrained.network(kind, architecture).apply

    def solve(params, x):
        field = pretrained.field(kind, lambda x, t, y: predict(params, x, t, y))
        guided = guidance.given(guidance.classifier_free(field, SCALE, 1000), 207)
        solver = solvers.euler(guided) if kind in ("sit", "repa") else solvers.ddim(paths.linear(), guided)
        return solvers.integrate(solver, jax.random.key(0), x, jnp.asarray(ts, jnp.float32))

    difference = _difference(
        np.asarray(jax.jit(solve)(params_of(kind), jnp.asarray(x / x_scale, jnp.float32))), expected
    )
    print(f"{kind} solve: {difference:.1e}")
    assert difference < MOST


def _cosines_last(tensors):
    halves = np.split(tensors["t_embedder.mlp.0.weight"], 2, axis=1)
    return tensors | {"t_embedder.mlp.0.weight": np.concatenate(halves[::-1], axis=1)}


def _transposed_positions(tensors):
    table = tensors["pos_embed"]
    side = int(table.shape[1] ** 0.5)
    return tensors | {"pos_embed": table.reshape(1, side, side, -1).swapaxes(1, 2).reshape(table.shape)}


def _transposed_patches(tensors):
    return tensors | {"x_embedder.proj.weight": tensors["x_embedder.proj.weight"].swapaxes(2, 3)}


def _variance_first(tensors):
    rows = tensors["final_layer.linear.weight"]
    swapped = rows.reshape(4, 2, 4, -1)[:, ::-1].reshape(rows.shape)
    return tensors | {"final_layer.linear.weight": swapped}


@pytest.mark.parametrize(
    "mutate",
    [
        swapped("blocks.0.attn.qkv.weight", 3, (1, 0, 2)),
        swapped("blocks.1.attn.qkv.weight", 3, (0, 2, 1)),
        swapped("blocks.1.adaLN_modulation.1.weight", 6, (1, 0, 2, 3, 4, 5)),
        swapped("final_layer.adaLN_modulation.1.bias", 2, (1, 0)),
        _cosines_last,
        _transposed_positions,
        _transposed_patches,
        _variance_first,
    ],
    ids=["q and k", "k and v", "shift and scale", "last shift", "cosines", "positions", "patches", "variance"],
)
def test_a_mistaken_map_is_noticed(mutate, shallow):
    architecture, network, tensors, _ = shallow
    inputs = _inputs(architecture, "sit", 1)
    params = pretrained.parameters(mutate(tensors).__getitem__, architecture)
    difference = _difference(_ours("sit", architecture, params, inputs), _theirs(network, "sit", *inputs))
    print(f"{difference:.1e}")
    assert difference > 20 * MOST


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "sine"},
        {"max_frequency": 1e-4},
        {"max_frequency": 100.0},
        {"time_range": (1.0, 0.0)},
        {"norm": "rms"},
        {"num_heads": 12},
    ],
    ids=str,
)
def test_another_structure_is_noticed(changes, shallow):
    architecture, network, _, params_of = shallow
    inputs = _inputs(architecture, "sit", 2)
    difference = _difference(
        _ours("sit", architecture, params_of("sit"), inputs, **changes), _theirs(network, "sit", *inputs)
    )
    print(f"{difference:.1e}")
    assert difference > 3 * MOST
