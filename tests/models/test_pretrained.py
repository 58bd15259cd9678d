"""Published weights without PyTorch: the file's names and shapes, where every number goes, and both conventions."""

import json
import pickle
import re
import struct
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from cfgjax import guidance, paths
from cfgjax.models import DiT, TimeEmbedding, pretrained
from cfgjax.models.pretrained import Architecture

SMALL = Architecture(width=16, depth=2, num_heads=2, patch=2, channels=3, side=8, num_classes=5, has_variance=True)
SIGNAL = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
"""alpha^2 at each step of DDPM."""


def _tensors(architecture=SMALL, dtype=np.float32):
    """Tensors of every name, no two numbers alike."""
    shapes = pretrained.shapes_of(architecture)
    numbers = np.random.default_rng(0).permutation(sum(map(np.prod, shapes.values()))).astype(dtype)
    pieces = np.split(numbers, np.cumsum([np.prod(shape) for shape in shapes.values()])[:-1])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


safetensors = pytest.importorskip("safetensors.numpy")

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def _write(file, tensors):
    """A safetensors file by its definition: the header's length, the header, the bytes."""
    header, start = {}, 0
    for name, tensor in tensors.items():
        offsets = [start, start := start + tensor.nbytes]
        header[name] = {"dtype": DTYPES[tensor.dtype.name], "shape": tensor.shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensor.tobytes() for tensor in tensors.values()))
    return file


def test_every_number_goes_to_one_place():
    tensors = _tensors()
    placed = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(_parameters(tensors))])
    last = "final_layer.linear."
    kept = [tensor.reshape(4, 6, -1)[:, :3] if name.startswith(last) else tensor for name, tensor in tensors.items()]
    np.testing.assert_array_equal(np.sort(placed), np.sort(np.concatenate([np.ravel(each) for each in kept])))


def _parameters(tensors, architecture=SMALL):
    return pretrained.parameters(tensors.__getitem__, architecture)


def test_layers_go_where_they_belong():
    """One number of each form of layer, by hand."""
    tensors, params = _tensors(), _parameters(_tensors())["params"]
    block = params["DiTBlock_1"]
    assert block["SelfAttention_0"]["Dense_0"]["kernel"][3, 20] == tensors["blocks.1.attn.qkv.weight"][20, 3]
    assert params["Dense_0"]["kernel"][(1 * 2 + 0) * 3 + 2, 7] == tensors["x_embedder.proj.weight"][7, 2, 1, 0]
    assert params["Dense_2"]["kernel"][5, 2 * 3 + 1] == tensors["final_layer.linear.weight"][2 * 6 + 1, 5]
    shift, scale, gate = np.split(tensors["blocks.1.adaLN_modulation.1.bias"], 6)[3:]
    np.testing.assert_array_equal(np.split(block["Dense_0"]["bias"], 6)[3:], [scale, shift, gate])


@pytest.mark.parametrize("kind", pretrained.KINDS)
@pytest.mark.parametrize("has_variance", [False, True])
def test_the_parameters_are_those_of_the_network(kind, has_variance):
    architecture = SMALL._replace(has_variance=has_variance)
    assert pretrained.architecture_of(pretrained.shapes_of(architecture), num_heads=2) == architecture
    network = pretrained.network(kind, architecture)
    x, t, y = jnp.zeros((8, 8, 3)), jnp.zeros(()), jnp.zeros((), jnp.int32)
    wanted = jax.eval_shape(network.init, jax.random.key(0), x, t, y)
    found = _parameters(_tensors(architecture), architecture)
    assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, wanted)


@pytest.mark.parametrize(("size", "num_heads"), [("S", 6), ("XL", 16)])
def test_heads_follow_from_the_papers_size(size, num_heads):
    width, depth, _ = {"S": (384, 12, 6), "XL": (1152, 28, 16)}[size]
    wanted = Architecture(width, depth, num_heads, 2, 4, 32, 1000, True)
    shapes = pretrained.shapes_of(wanted)
    assert pretrained.architecture_of(shapes) == wanted
    count = sum(np.prod(shape) for name, shape in shapes.items() if name != "pos_embed")
    assert round(count / 1e6) == {"S": 33, "XL": 675}[size]


def test_a_file_is_read_as_it_was_written(tmp_path):
    tensors = _tensors()
    architecture, params = pretrained.read(_write(tmp_path / "a.safetensors", tensors), num_heads=2)
    assert architecture == SMALL
    assert jax.tree.all(jax.tree.map(np.array_equal, params, _parameters(tensors)))


@pytest.mark.parametrize("half", [np.float16, jnp.bfloat16])
def test_sixteen_bits_are_widened(half, tmp_path):
    tensors = {name: np.asarray(0.37 * tensor / tensor.size, half) for name, tensor in _tensors().items()}
    file = _write(tmp_path / "a.safetensors", tensors)
    wide = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    found = pretrained.read(file, num_heads=2)[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    assert jax.tree.all(jax.tree.map(np.array_equal, found, _parameters(wide)))


def _with(name, change):
    return lambda tensors: tensors | {name: change(tensors[name])}


def _without(name):
    return lambda tensors: {each: tensor for each, tensor in tensors.items() if each != name}


def _nan(tensor):
    return np.where(tensor == tensor.flat[0], np.float32(np.nan), tensor)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_without("pos_embed"), "tensor pos_embed is missing"),
        (_without("blocks.1.mlp.fc2.bias"), "tensor blocks.1.mlp.fc2.bias is missing"),
        (_without("x_embedder.proj.weight"), "tensor x_embedder.proj.weight is missing"),
        (lambda tensors: tensors | {"blocks.0.q_norm.weight": np.ones(8, np.float32)}, "blocks.0.q_norm.weight is un"),
        (_with("t_embedder.mlp.2.weight", lambda a: a[:, :8]), r"2.weight must have shape \(16, 16\), got \(16, 8\)"),
        (_with("pos_embed", lambda a: a[:, :15]), r"tensor pos_embed must have shape \(1, 9, 16\), got \(1, 15, 16\)"),
        (_with("final_layer.linear.weight", lambda a: a[:20]), r"weight must have shape \(24, 16\), got \(20, 16\)"),
        (_with("x_embedder.proj.weight", lambda a: a[0]), "tensor x_embedder.proj.weight must have 4 axes"),
        (_with("blocks.0.attn.proj.bias", np.float64), "blocks.0.attn.proj.bias must be F32, F16 or BF16, got F64"),
        (_with("blocks.1.attn.proj.bias", _nan), "tensor blocks.1.attn.proj.bias is not finite"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_as_they_should_be_are_named(change, expected, tmp_path):
    file = _write(tmp_path / "a.safetensors", change(_tensors()))
    with pytest.raises(ValueError, match=f"^{file}: .*{expected}") as caught:
        pretrained.read(file, num_heads=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(60), struct.pack("<Q", 2**62) + b"{}"]
)
def test_other_files_are_refused(content, tmp_path):
    file = tmp_path / "a.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{file}: "):
        pretrained.read(file)
    with pytest.raises(OSError, match=r".+"):
        pretrained.read(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.pt", b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(60), "a PyTorch file (a zip around a pickle"),
        ("a.bin", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02", "a PyTorch file of the old form (a pickle"),
        ("a.pkl", pickle.dumps({"ema": 1}), "a pickle, as EDM2's .pkl"),
        ("a.safetensors", b"", "an empty file"),
        ("a.npz", b"PK\x03\x04" + bytes(26) + b"latents.npy" + bytes(60), "a NumPy .npz"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        ("a.safetensors", b"<!DOCTYPE html><html>", "a page of HTML"),
        ("a.safetensors.index.json", b'{"metadata": {}, "weight_map": {}}', "the index of weights in several parts"),
        ("a-00001-of-00002.safetensors", struct.pack("<Q", 2) + b"{}", "one of several parts"),
        ("model_index.json", None, "the folder of a diffusers pipeline"),
        ("config.json", None, "the folder of a diffusers model"),
        ("x.safetensors", None, "a folder, not a file"),
    ],
)
def test_another_file_is_called_what_it_is(name, content, expected, tmp_path):
    """Also the folder that holds it, where there is no content: nothing in it is unpickled or unpacked."""
    file = tmp_path / name
    file.write_bytes(content or b"")
    place = file if content is not None else tmp_path
    with pytest.raises(ValueError, match=f"^{place}: it is {re.escape(expected)}.*docs/published_weights.md"):
        pretrained.read(place)


def test_a_header_whose_length_begins_as_a_pickle_is_read(tmp_path):
    """Eight bytes of length come first: 0x80 0x03 among them are no pickle's, 0x3c no page's."""
    for number, length in enumerate((0x380, 0x43C, 0x4B50)):
        text = b"{" + b" " * (length - 2) + b"}"
        file = tmp_path / f"{number}.safetensors"
        file.write_bytes(struct.pack("<Q", length) + text)
        with pytest.raises(ValueError, match=r"tensor x_embedder\.proj\.weight is missing"):
            pretrained.read(file)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tensors: {f"module.{name}": each for name, each in tensors.items()}, "its names begin with 'module.'"),
        (lambda tensors: {f"ema._orig_mod.{name}": each for name, each in tensors.items()}, "with 'ema._orig_mod.'"),
        (
            lambda tensors: tensors | {"projectors.0.0.bias": np.ones(4, np.float32)},
            "REPA, whose time runs the other way: it is of the kind repa",
        ),
    ],
)
def test_other_names_are_called_whose_they_are(change, expected, tmp_path):
    file = _write(tmp_path / "a.safetensors", change(_tensors()))
    with pytest.raises(ValueError, match=f"^{file}: .*{expected}.*docs/published_weights.md"):
        pretrained.read(file, num_heads=2)


def _of_diffusers(tensors):
    """The tensors in the layout of DiTTransformer2DModel of diffusers 0.42.1."""
    found = {}
    for name, tensor in tensors.items():
        layer, end = name.rsplit(".", 1) if "." in name else (name, "")
        block = re.match(r"blocks\.(\d+)\.(.*)", layer)
        if block and block[2] == "attn.qkv":
            for one, part in zip("qkv", np.split(tensor, 3), strict=True):
                found[f"transformer_blocks.{block[1]}.attn1.to_{one}.{end}"] = part
        elif block:
            its = {"adaLN_modulation.1": "norm1.linear", "attn.proj": "attn1.to_out.0", "mlp.fc1": "ff.net.0.proj"}
            found[f"transformer_blocks.{block[1]}.{its.get(block[2], 'ff.net.2')}.{end}"] = tensor
        elif layer in ("t_embedder.mlp.0", "t_embedder.mlp.2", "y_embedder.embedding_table"):
            its = {"0": "timestep_embedder.linear_1", "2": "timestep_embedder.linear_2"}
            last = its.get(layer[-1], "class_embedder.embedding_table")
            found |= {f"transformer_blocks.{index}.norm1.emb.{last}.{end}": tensor for index in range(SMALL.depth)}
        elif layer != "pos_embed":
            its = {"x_embedder.proj": "pos_embed.proj", "final_layer.linear": "proj_out_2"}
            found[f"{its.get(layer, 'proj_out_1')}.{end}"] = tensor
    return found


def test_the_layout_of_diffusers_is_read_as_the_published_one(tmp_path):
    """Every tensor comes back; the positions, which diffusers does not save, are those of the published code."""
    tensors = _tensors()
    file = _write(tmp_path / "diffusion_pytorch_model.safetensors", _of_diffusers(tensors))
    architecture, params = pretrained.read(file, 2, "dit", side=8)
    assert architecture == SMALL
    found, expected = params["params"].pop("positions"), _parameters(tensors)["params"]
    del expected["positions"]
    assert jax.tree.all(jax.tree.map(np.array_equal, params["params"], expected))
    row, column, slow = 3, 1, 10000 ** (-2 / 4)
    of_token = np.sin(column), np.sin(column * slow), np.cos(column * slow), np.sin(row), np.cos(row * slow)
    np.testing.assert_allclose(found[4 * row + column, np.array([0, 2, 6, 8, 14])], of_token, rtol=1e-6)


OTHERS_OF_DIFFUSERS = {
    "another embedder in a block": (
        _with("transformer_blocks.1.norm1.emb.timestep_embedder.linear_2.bias", lambda a: a + 1),
        "tensor transformer_blocks.1.norm1.emb.timestep_embedder.linear_2.bias must equal that of transformer_blocks.0",
    ),
    "another table of labels": (
        _with("transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight", lambda a: a[::-1].copy()),
        "class_embedder.embedding_table.weight must equal that of transformer_blocks.0",
    ),
    "a tensor less": (
        _without("transformer_blocks.1.attn1.to_k.bias"), "tensor transformer_blocks.1.attn1.to_k.bias is missing",
    ),
    "a tensor more": (
        lambda tensors: tensors | {"transformer_blocks.0.attn2.to_q.bias": np.ones(16, np.float32)},
        "tensor transformer_blocks.0.attn2.to_q.bias is unexpected",
    ),
    "shorter rows": (
        _with("transformer_blocks.0.attn1.to_v.weight", lambda a: a[:, :8].copy()),
        r"to_v.weight must have rows like transformer_blocks.0.attn1.to_q.weight's \(16,\), got shape \(16, 8\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), OTHERS_OF_DIFFUSERS.values(), ids=OTHERS_OF_DIFFUSERS)
def test_what_is_no_dit_of_diffusers_is_refused(change, expected, tmp_path):
    file = _write(tmp_path / "a.safetensors", change(_of_diffusers(_tensors())))
    with pytest.raises(ValueError, match=f"^{file}: .*{expected}"):
        pretrained.read(file, 2, "dit", side=8)


@pytest.mark.parametrize("kind", ["sit", "repa", "lightningdit", "jit"])
def test_the_layout_of_diffusers_is_dits_alone(kind, tmp_path):
    """Noise at DDPM's steps would be taken for a velocity or for pixels."""
    file = _write(tmp_path / "a.safetensors", _of_diffusers(_tensors()))
    complaint = f"^{file}: its names are those of DiT in diffusers' layout, of the kind dit, not of {kind}$"
    with pytest.raises(ValueError, match=complaint):
        pretrained.read(file, 2, kind, side=8)


def test_a_side_that_patches_do_not_fill_is_refused(tmp_path):
    file = _write(tmp_path / "a.safetensors", _of_diffusers(_tensors()))
    with pytest.raises(ValueError, match=f"^{file}: side must be a multiple of the patch 2, got 9$"):
        pretrained.read(file, 2, "dit", side=9)


def test_the_frequencies_of_each_kind_are_those_of_its_code():
    """128 of them from 1 on: published ones by 10000^(-k/128), those of diffusers by 10000^(-k/127)."""
    for kind, count in (("sit", 128), ("repa", 128), ("dit", 128), ("diffusers_dit", 127)):
        last = pretrained.network(kind, SMALL).max_frequency
        frequencies = np.geomspace(1.0, last, 128)
        np.testing.assert_allclose(frequencies, 10000.0 ** (-np.arange(128) / count), rtol=1e-12)


def test_a_network_of_repa_is_minus_what_it_predicts_at_the_time_turned_round(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.3, each.shape).astype(np.float32) for name, each in _tensors().items()}
    more = {"projectors.0.0.weight": np.ones((4, 4), np.float32)}
    architecture, params = pretrained.read(_write(tmp_path / "repa.safetensors", tensors | more), 2, "repa")
    assert architecture == SMALL
    field = pretrained.field("repa", partial(pretrained.network("repa", SMALL).apply, params))
    predict = partial(pretrained.network("sit", SMALL).apply, _parameters(tensors))
    x, y = jnp.asarray(rng.normal(size=(8, 8, 3)), jnp.float32), jnp.int32(2)
    for t in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(field(x, t, y), -predict(x, 1 - t, y), rtol=1e-4, atol=1e-4)


def test_heads_that_no_paper_tells_must_be_given():
    shapes = pretrained.shapes_of(SMALL)
    with pytest.raises(ValueError, match="num_heads must be given for 2 blocks of width 16"):
        pretrained.architecture_of(shapes)
    for kind in ("flux", None):
        with pytest.raises(ValueError, match="kind must be one of sit, repa, dit"):
            pretrained.network(kind, SMALL)
        with pytest.raises(ValueError, match="kind must be one of sit, repa, dit"):
            pretrained.field(kind, lambda x, t, y: x)


def test_the_path_goes_through_the_steps():
    path = paths.ddpm()
    steps = np.arange(1000)
    with jax.enable_x64(True):
        times = jnp.asarray(1 - steps / 999)
        found = jax.vmap(partial(paths.coefficients, path))(times)
    np.testing.assert_allclose(found.alpha, np.sqrt(SIGNAL), rtol=1e-9)
    np.testing.assert_allclose(found.beta, np.sqrt(1 - SIGNAL), rtol=1e-9)
    np.testing.assert_allclose(found.alpha**2 + found.beta**2, 1, rtol=1e-12)
    assert np.all(np.asarray(found.wronskian) > 0)
    rough = jax.vmap(path.beta)(jnp.float32(1 - steps / 999))
    np.testing.assert_allclose(rough, np.sqrt(1 - SIGNAL), rtol=2e-6)


def test_the_path_is_smooth_between_the_steps():
    """Its log-signal falls by the rates of the steps: at half steps by what lies between those of both neighbours."""
    path = paths.ddpm()
    with jax.enable_x64(True):
        halves = jnp.asarray(1 - (np.arange(999) + 0.5) / 999)
        found = 2 * jnp.log(jax.vmap(path.alpha)(halves))
    log_signal = np.log(SIGNAL)
    middle = 0.5 * (log_signal[:-1] + log_signal[1:]) + (0.02 - 1e-4) / 999 / 8
    np.testing.assert_allclose(found, middle, atol=1e-6)


def _expected_noise(arrays, x, y, alpha, beta):
    """E[noise | x] at two weights, by NumPy: of label y, or for y = 3 under the posterior of the labels."""
    weights, means, covariances = arrays
    precision = np.linalg.inv(alpha**2 * covariances + beta**2 * np.eye(2))
    away = x[None] - alpha * means
    by_label = beta * np.einsum("kij,kj->ki", precision, away)
    if y < len(weights):
        return by_label[y]
    log_density = 0.5 * np.linalg.slogdet(precision)[1] - 0.5 * np.einsum("ki,kij,kj->k", away, precision, away)
    logits = np.log(weights) + log_density
    return np.exp(logits - logsumexp(logits)) @ by_label


STATES = np.array([[0.3, -0.7], [1.2, 0.4], [-2.0, 1.5]])


@pytest.mark.parametrize("step", [0, 1, 100, 450, 800, 998, 999])
def test_their_noise_by_steps_is_our_field(step, skewed, skewed_arrays):
    """The oracle as a DiT would be: the noise at a whole step's own weights, read from the table of steps."""
    called = []

    def network(x, t, y):
        called.append(round(999 * (1 - float(t))))
        weights = np.sqrt(SIGNAL[called[-1]]), np.sqrt(1 - SIGNAL[called[-1]])
        return jnp.asarray(_expected_noise(skewed_arrays, np.asarray(x), int(y), *weights), jnp.float32)

    mapped, own = pretrained.field("dit", network), skewed.vector_field(paths.linear())
    alpha, beta = np.sqrt(SIGNAL[step]), np.sqrt(1 - SIGNAL[step])
    t = jnp.float32(alpha / (alpha + beta))
    for x, y in zip(STATES, (0, 2, 3), strict=True):
        found, expected = (each(jnp.float32(x / (alpha + beta)), t, jnp.int32(y)) for each in (mapped, own))
        np.testing.assert_allclose(found, expected, atol=2e-4)
    assert set(called) == {step}


def test_their_guided_noise_is_our_guided_field(skewed, skewed_arrays):
    step, scale, x = 600, 4.0, STATES[1]
    alpha, beta = np.sqrt(SIGNAL[step]), np.sqrt(1 - SIGNAL[step])

    def network(x, t, y):
        return jnp.asarray(_expected_noise(skewed_arrays, np.asarray(x), int(y), alpha, beta), jnp.float32)

    def guided(x, t, y):
        null = network(x, t, 3)
        return null + scale * (network(x, t, y) - null)

    t, y = jnp.float32(alpha / (alpha + beta)), jnp.int32(1)
    x = jnp.float32(x / (alpha + beta))
    expected = guidance.classifier_free(skewed.vector_field(paths.linear()), scale, 3)(x, t, y)
    np.testing.assert_allclose(pretrained.field("dit", guided)(x, t, y), expected, atol=1e-4)


@pytest.mark.parametrize(("t", "error"), [(0.0, 0.03), (0.003, 0.015), (0.995, 1e-4), (1.0, 1e-4)])
def test_beyond_the_steps_the_field_goes_on(t, error, skewed):
    """Before the first state that a network knows, and after the last, the nearest one's knowledge is used."""
    noise = skewed.noise(paths.ddpm())
    for y in (1, 3):
        x, time, label = jnp.float32(STATES[0]), jnp.float32(t), jnp.int32(y)
        found = pretrained.field("dit", noise)(x, time, label)
        expected = skewed.vector_field(paths.linear())(x, time, label)
        np.testing.assert_allclose(found, expected, atol=error)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_their_velocity_is_our_field(t, skewed, skewed_arrays):
    """E[data - noise | x] at x = t data + (1 - t) noise, as SiT is trained."""

    def velocity(x, t, y):
        noise = _expected_noise(skewed_arrays, np.asarray(x), int(y), float(t), 1 - float(t))
        return (np.asarray(x) - (1 - float(t)) * noise) / float(t) - noise

    for x, y in zip(STATES, (0, 2, 3), strict=True):
        arguments = jnp.float32(x), jnp.float32(t), jnp.int32(y)
        expected = skewed.vector_field(paths.linear())(*arguments)
        np.testing.assert_allclose(pretrained.field("sit", velocity)(*arguments), expected, rtol=1e-4, atol=1e-4)


def test_what_is_embedded_runs_between_the_ends():
    plain, between = TimeEmbedding(8), TimeEmbedding(8, ends=(0.75, 0.25))
    params = plain.init(jax.random.key(0), 0.5)
    for t in (0.0, 0.25, 1.0):
        np.testing.assert_allclose(between.apply(params, t), plain.apply(params, 0.75 - 0.5 * t), rtol=1e-6)
    assert not np.allclose(plain.apply(params, 0.75), plain.apply(params, 0.25), rtol=1e-2)
    with pytest.raises(ValueError, match=r"ends\[1\] must be finite"):
        TimeEmbedding(8, ends=(0.0, np.inf)).init(jax.random.key(0), 0.5)


def test_time_without_ends_is_bit_equal_to_what_it_was():
    """Features at t itself, as every checkpoint before was trained with."""
    network = DiT(num_classes=2, width=16, depth=0, num_heads=1)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((4, 4, 1)), jnp.zeros(()), jnp.int32(0))
    assert "TimeEmbedding_0" in shapes["params"]
    embedding = TimeEmbedding(16, num_features=256)
    params = embedding.init(jax.random.key(0), 0.5)
    inner, outer = (params["params"][f"Dense_{number}"] for number in range(2))

    @jax.jit
    def before(t):
        frequencies = jnp.geomspace(1.0, 100.0, 128, dtype=jnp.float32)
        features = jnp.concatenate([jnp.cos(frequencies * t), jnp.sin(frequencies * t)])
        hidden = jax.nn.silu(features @ inner["kernel"] + inner["bias"])
        return hidden @ outer["kernel"] + outer["bias"]

    for t in jnp.linspace(0, 1, 7):
        np.testing.assert_array_equal(jax.jit(embedding.apply)(params, t), before(t))
