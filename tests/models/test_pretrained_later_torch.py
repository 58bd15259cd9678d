"""LightningDiT and JiT in PyTorch at their true sizes, with random weights, against ours (needs PyTorch)."""

import dataclasses
from functools import cache, lru_cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, solvers
from cfgjax.models import pretrained
from tests.models.test_pretrained_torch import _angles, _difference, _modulation, _two_layers, positions
from tests.support.published_by_hand import changed, swapped

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

pytestmark = pytest.mark.slow

MOST = 1e-4
"""Largest difference allowed, relative to the output's root mean square."""


class Scale(nn.Module):
    """Numbers over their root mean square, with a learned scale."""

    def __init__(self, length):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(length))

    def forward(self, numbers):
        return functional.rms_norm(numbers, self.weight.shape, self.weight, eps=1e-6)


class Rotation(nn.Module):
    """Turns pairs of a head's numbers by the angles of positions on a grid, but for the first tokens."""

    def __init__(self, side, head, num_first, is_stored):
        super().__init__()
        angles = _angles(torch.arange(side).double(), head // 4)
        both = [angles[:, None].expand(side, side, -1), angles[None].expand(side, side, -1)]
        angles = torch.cat(both, dim=2).flatten(0, 1).repeat_interleave(2, dim=1)
        angles = torch.cat([torch.zeros(num_first, head), angles])
        self.register_buffer("freqs_cos", angles.cos().float(), persistent=is_stored)
        self.register_buffer("freqs_sin", angles.sin().float(), persistent=is_stored)

    def forward(self, heads):
        turned = torch.stack([-heads[..., 1::2], heads[..., ::2]], dim=-1).flatten(-2)
        return heads * self.freqs_cos + turned * self.freqs_sin


class Attention(nn.Module):
    """Multi-head self-attention of turned, and in JiT normalised, queries and keys."""

    def __init__(self, width, num_heads, has_norms):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = (Scale(width // num_heads) if has_norms else nn.Identity() for _ in range(2))

    def forward(self, tokens, rotate):
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = rotate(self.q_norm(query)), rotate(self.k_norm(key))
        return self.proj(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One block: attention and a gated MLP, each normalised, shifted, scaled and gated by the condition."""

    def __init__(self, width, num_heads, has_norms):
        super().__init__()
        inner = int(4 * width * 2 / 3)
        self.norm1, self.norm2 = Scale(width), Scale(width)
        self.attn = Attention(width, num_heads, has_norms)
        self.mlp = nn.ModuleDict({"w12": nn.Linear(width, 2 * inner), "w3": nn.Linear(inner, width)})
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, tokens, condition, rotate):
        parts = self.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        tokens = tokens + parts[2] * self.attn(parts[0] + self.norm1(tokens) * (1 + parts[1]), rotate)
        gate, value = self.mlp["w12"](parts[3] + self.norm2(tokens) * (1 + parts[4])).chunk(2, dim=2)
        return tokens + parts[5] * self.mlp["w3"](functional.silu(gate) * value)


class Published(nn.Module):
    """The transformers of both papers under the names of their files; images are [n, C, H, W]."""

    def __init__(self, architecture):
        super().__init__()
        width, patch, self.architecture = architecture.width, architecture.patch, architecture
        channels, narrow, num_joining = architecture.channels, architecture.bottleneck, architecture.in_context_tokens
        side, head = architecture.side // patch, width // architecture.num_heads
        first = {"proj": nn.Conv2d(channels, width, patch, patch)}
        if narrow:
            first = {
                "proj1": nn.Conv2d(channels, narrow, patch, patch, bias=False),
                "proj2": nn.Conv2d(narrow, width, 1),
            }
        self.x_embedder = nn.ModuleDict(first)
        self.t_embedder = nn.ModuleDict({"mlp": _two_layers(256, width, width)})
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(architecture.num_classes + 1, width)})
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, width), requires_grad=False)
        if num_joining:
            self.in_context_posemb = nn.Parameter(torch.zeros(1, num_joining, width))
        self.feat_rope = Rotation(side, head, 0, architecture.rotary == "stored")
        self.rope_of_all = Rotation(side, head, num_joining, is_stored=False)
        self.blocks = nn.ModuleList(
            Block(width, architecture.num_heads, architecture.qk_norm) for _ in range(architecture.depth)
        )
        self.final_layer = nn.ModuleDict(
            {
                "norm_final": Scale(width),
                "linear": nn.Linear(width, patch**2 * channels),
                "adaLN_modulation": _modulation(width, 2),
            }
        )

    def forward(self, x, t, y):
        angles = _angles(t.double(), 128)
        label = self.y_embedder["embedding_table"](y)
        condition = label + self.t_embedder["mlp"](torch.cat([angles.cos(), angles.sin()], dim=1).float())
        for layer in self.x_embedder.values():
            x = layer(x)
        tokens, rotate = x.flatten(2).transpose(1, 2) + self.pos_embed, self.feat_rope
        for number, block in enumerate(self.blocks):
            if self.architecture.in_context_tokens and number == self.architecture.in_context_start:
                tokens, rotate = torch.cat([label[:, None] + self.in_context_posemb, tokens], 1), self.rope_of_all
            tokens = block(tokens, condition, rotate)
        tokens = tokens[:, self.architecture.in_context_tokens :]
        shift, scale = self.final_layer["adaLN_modulation"](condition)[:, None].chunk(2, dim=2)
        patches = self.final_layer["linear"](shift + self.final_layer["norm_final"](tokens) * (1 + scale))
        patch, count = self.architecture.patch, self.architecture.side // self.architecture.patch
        pixels = patches.view(-1, count, count, patch, patch, self.architecture.channels).permute(0, 5, 1, 3, 2, 4)
        return pixels.flatten(4, 5).flatten(2, 3)


GATED = {"feed_forward": "swiglu", "norm_scale": True}


def lightningdit(width, depth, num_heads):
    """An architecture with patches of 1 on latents of VA-VAE."""
    return pretrained.Architecture(width, depth, num_heads, 1, 32, 16, 1000, False, **GATED, rotary="stored")


def jit(width, depth, num_heads, narrow, start, patch=16):
    """An architecture on 16 x 16 patches of pixels."""
    size = width, depth, num_heads, patch, 3, 16 * patch, 1000, False
    options = {"qk_norm": True, "rotary": "computed", "bottleneck": narrow, "in_context_tokens": 32}
    return pretrained.Architecture(
        *size, **GATED, **options, in_context_start=start, noise_scale=pretrained.NOISE_SCALES[16 * patch]
    )


FULL = {
    "LightningDiT-B/1": ("lightningdit", lightningdit(768, 12, 12)),
    "JiT-B/16": ("jit", jit(768, 12, 12, 128, 4)),
}
SHALLOW = {
    "LightningDiT-XL/1, 2 blocks": ("lightningdit", lightningdit(1152, 2, 16)),
    "JiT-H/16, 3 blocks": ("jit", jit(1280, 3, 16, 256, 1)),
    "JiT-H/32, 3 blocks": ("jit", jit(1280, 3, 16, 256, 1, patch=32)),
}


@lru_cache(maxsize=1)
def _made(name):
    """A kind and an architecture, its network with no weight at zero, and the tensors."""
    kind, architecture = (FULL | SHALLOW)[name]
    torch.manual_seed(0)
    network = Published(architecture)
    for each, weight in network.named_parameters():
        if "norm" in each:
            weight.data.normal_(1, 0.3)
        elif each in ("in_context_posemb", "y_embedder.embedding_table.weight"):
            weight.data.normal_(0, 0.5)
        else:
            weight.data.normal_(0, 0.1 if each.endswith("bias") else weight[0].numel() ** -0.5)
    network.pos_embed.data.copy_(positions(architecture.side // architecture.patch, architecture.width))
    tensors = {each: tensor.numpy() for each, tensor in network.eval().state_dict().items()}
    return kind, architecture, network, tensors


TIMES, LABELS = np.float32([0.0, 0.3, 0.8125, 1.0]), np.int32([207, 1000, 0, 999])


def _inputs(architecture, count):
    shape = count, architecture.side, architecture.side, architecture.channels
    return np.random.default_rng(1).normal(size=shape).astype(np.float32), TIMES[:count], LABELS[:count]


def _theirs(network, x, t, y):
    """What the PyTorch network gives at noise_scale times our state, over it, in our order."""
    noise = network.architecture.noise_scale
    given = torch.from_numpy(np.ascontiguousarray(noise * x.transpose(0, 3, 1, 2)))
    with torch.inference_mode():
        found = network(given, torch.from_numpy(t), torch.from_numpy(y)) / noise
    return found.numpy().transpose(0, 2, 3, 1)


@cache
def _compiled(network):
    return jax.jit(jax.vmap(network.apply, in_axes=(None, 0, 0, 0)))


def _ours(kind, architecture, tensors, inputs, **changes):
    params = pretrained.parameters(tensors.__getitem__, architecture, kind)
    network = dataclasses.replace(pretrained.network(kind, architecture), **changes)
    return np.asarray(_compiled(network)(params, *map(jnp.asarray, inputs)))


@pytest.mark.parametrize("name", FULL | SHALLOW)
def test_ours_with_the_weights_of_theirs_is_theirs(name):
    kind, architecture, network, tensors = _made(name)
    shapes = {each: tensor.shape for each, tensor in tensors.items()}
    found = pretrained.architecture_of(shapes, kind=kind)
    assert found._replace(in_context_start=architecture.in_context_start) == architecture
    inputs = _inputs(architecture, 4 if name in FULL else 2)
    expected = _theirs(network, *inputs)
    difference = _difference(_ours(kind, architecture, tensors, inputs), expected)
    print(f"{name}: {difference:.1e}")
    assert difference < MOST
    apart = [_difference(expected[i], expected[j]) for i in range(len(expected)) for j in range(i)]
    assert min(apart) > 0.5, "the outputs depend on state, time and label"


LIGHTNING, JIT = list(SHALLOW)[:2]
MISTAKES = {
    "q and k": swapped("blocks.0.attn.qkv.weight", 3, (1, 0, 2)),
    "halves of SwiGLU": swapped("blocks.1.mlp.w12.weight", 2, (1, 0)),
    "scale of a norm left out": changed("blocks.1.norm1.weight", np.ones_like),
    "scale of the last norm left out": changed("final_layer.norm_final.weight", np.ones_like),
    "shift and scale": swapped("blocks.1.adaLN_modulation.1.weight", 6, (1, 0, 2, 3, 4, 5)),
}
OF_JIT = {
    "scale of queries left out": changed("blocks.0.attn.q_norm.weight", np.ones_like),
    "tokens in context without their learned part": changed("in_context_posemb", np.zeros_like),
}


@pytest.mark.parametrize(
    ("name", "mistake"), [(LIGHTNING, each) for each in MISTAKES] + [(JIT, each) for each in MISTAKES | OF_JIT]
)
def test_a_mistaken_map_is_noticed(name, mistake):
    kind, architecture, network, tensors = _made(name)
    inputs = _inputs(architecture, 1)
    found = _ours(kind, architecture, (MISTAKES | OF_JIT)[mistake](tensors), inputs)
    difference = _difference(found, _theirs(network, *inputs))
    print(f"{name}, {mistake}: {difference:.1e}")
    assert difference > 20 * MOST


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, changes) for name in (LIGHTNING, JIT) for changes in ({"rotary": False}, {"norm": "layer"})),
        (JIT, {"in_context_start": 2}),
        (JIT, {"num_heads": 20}),
    ],
    ids=str,
)
def test_another_structure_is_noticed(name, changes):
    kind, architecture, network, tensors = _made(name)
    if "num_heads" in changes:
        short = {each: tensors[each][:64] for each in tensors if "q_norm" in each or "k_norm" in each}
        tensors, architecture = tensors | short, architecture._replace(**changes)
    inputs = _inputs(architecture, 1)
    difference = _difference(_ours(kind, architecture, tensors, inputs, **changes), _theirs(network, *inputs))
    print(f"{name}, {changes}: {difference:.1e}")
    assert difference > 20 * MOST


@pytest.mark.parametrize("name", [LIGHTNING, JIT])
def test_rows_and_columns_of_rotary_positions_are_told_apart(name):
    """Theirs with the halves of a head exchanged, of which the first is turned by the row."""
    kind, architecture, network, tensors = _made(name)
    inputs, rotations = _inputs(architecture, 1), (network.feat_rope, network.rope_of_all)
    kept = [each.clone() for rotation in rotations for each in (rotation.freqs_cos, rotation.freqs_sin)]
    half, found = architecture.width // architecture.num_heads // 2, _ours(kind, architecture, tensors, inputs)
    try:
        for rotation in rotations:
            for waves in (rotation.freqs_cos, rotation.freqs_sin):
                waves.copy_(waves.roll(half, dims=1))
        difference = _difference(found, _theirs(network, *inputs))
    finally:
        for each, waves in zip(kept, (w for r in rotations for w in (r.freqs_cos, r.freqs_sin)), strict=True):
            waves.copy_(each)
    print(f"{name}, rows and columns: {difference:.1e}")
    assert difference > 20 * MOST


STEPS, SCALE, INTERVAL = np.float32([0, 0.06, 0.12, 0.3, 0.6, 0.9, 0.97, 1]), 2.9, (0.1, 1.0)


@cache
def _their_solve(name, label):
    """Euler with guidance at times after 0.1, of JiT's prediction of the data with its floor, or of a velocity."""
    kind, architecture, network, _ = _made(name)
    z = torch.from_numpy(np.ascontiguousarray(_inputs(architecture, 1)[0].transpose(0, 3, 1, 2)))
    for t, after in pairwise(torch.from_numpy(STEPS)):
        with torch.inference_mode():
            both = network(torch.cat([z, z]), t.repeat(2), torch.tensor([label, 1000]))
        if kind == "jit":
            both = (both - z) / (1 - t).clamp_min(0.05)
        labelled, null = both.split(1)
        z = z + (after - t) * (null + (SCALE if t > INTERVAL[0] else 1) * (labelled - null))
    return z[0].numpy().transpose(1, 2, 0)


@pytest.mark.parametrize(("name", "floor"), [(LIGHTNING, True), (JIT, True), (JIT, False)])
def test_a_guided_solve_ends_where_theirs_does(name, floor):
    """Direction of time, floor of 1 - t, interval and guidance together; without the floor JiT's end elsewhere."""
    kind, architecture, _, tensors = _made(name)
    params = pretrained.parameters(tensors.__getitem__, architecture, kind)
    x, expected = _inputs(architecture, 1)[0][0], _their_solve(name, 207)
    predict = pretrained.network(kind, architecture).apply

    def solve(params, x):
        def of_params(x, t, y):
            return predict(params, x, t, y)

        field = pretrained.field(kind, of_params)
        if not floor:
            field = lambda x, t, y: (of_params(x, t, y) - x) / (1 - t)  # noqa: E731
        scale = guidance.interval(SCALE, *INTERVAL)
        guided = guidance.given(guidance.classifier_free(field, scale, 1000), 207)
        return solvers.integrate(solvers.euler(guided), jax.random.key(0), x, jnp.asarray(STEPS))

    difference = _difference(np.asarray(jax.jit(solve)(params, jnp.asarray(x))), expected)
    print(f"{name}, guided solve{'' if floor else ' without the floor'}: {difference:.1e}")
    assert difference < MOST if floor else difference > 20 * MOST
