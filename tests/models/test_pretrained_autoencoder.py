"""Published autoencoders as files: names, places, the config beside them, and what other files are."""

import json
import re
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import LATENT_SCALINGS, AutoencoderKL, LatentScaling, pretrained, pretrained_autoencoder
from tests.support import autoencoder_by_hand as by_hand

pytest.importorskip("safetensors")

NETWORK = AutoencoderKL(4, 3, (8, 16), 1, 4)
CONFIG = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [8, 16],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
}
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
ATTENTION = "decoder.mid_block.attentions.0."


def _tensors():
    return by_hand.random_tensors(by_hand.shapes_of(NETWORK.widths, 1, 4))


def _write(folder, tensors, config=CONFIG):
    """A safetensors file by its definition, and a config beside it."""
    header, start = {}, 0
    for name, tensor in tensors.items():
        offsets = [start, start := start + tensor.nbytes]
        header[name] = {"dtype": DTYPES[tensor.dtype.name], "shape": tensor.shape, "data_offsets": offsets}
    text, file = json.dumps(header).encode(), folder / "diffusion_pytorch_model.safetensors"
    content = b"".join(np.ascontiguousarray(tensor).tobytes() for tensor in tensors.values())
    file.write_bytes(struct.pack("<Q", len(text)) + text + content)
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return file


def _equal(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def _parameters(tensors):
    return pretrained_autoencoder.parameters(tensors.__getitem__, NETWORK)


def test_a_file_is_read_with_its_config(tmp_path):
    tensors = _tensors()
    found = pretrained_autoencoder.read(_write(tmp_path, tensors))
    assert found.network == NETWORK
    assert found.scaling == LATENT_SCALINGS["SD3"]
    assert _equal(found.params, _parameters(tensors))


def test_every_number_goes_to_one_place():
    tensors = _tensors()
    numbers = np.random.default_rng(0).permutation(sum(each.size for each in tensors.values())).astype(np.float32)
    pieces = np.split(numbers, np.cumsum([each.size for each in tensors.values()])[:-1])
    params = _parameters(
        {name: piece.reshape(tensors[name].shape) for name, piece in zip(tensors, pieces, strict=True)}
    )
    placed = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    np.testing.assert_array_equal(np.sort(placed), np.sort(numbers))


def test_layers_go_where_they_belong():
    """One number of each form of layer, by hand."""
    tensors, params = _tensors(), _parameters(_tensors())["params"]
    kernel = params["encoder"]["down_blocks_1"]["resnets_0"]["conv1"]["kernel"]
    assert kernel[2, 1, 5, 9] == tensors["encoder.down_blocks.1.resnets.0.conv1.weight"][9, 5, 2, 1]
    linear = params["decoder"]["mid_block"]["attentions_0"]["to_out_0"]["kernel"]
    assert linear[3, 7] == tensors[f"{ATTENTION}to_out.0.weight"][7, 3]
    norm = params["decoder"]["conv_norm_out"]["scale"]
    np.testing.assert_array_equal(norm, tensors["decoder.conv_norm_out.weight"])


def _old_names(tensors):
    words = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return {re.sub(r"to_(q|k|v|out\.0)", lambda found: words[found[0]], name): each for name, each in tensors.items()}


def test_older_names_of_attention_are_the_same_layers(tmp_path):
    tensors = _tensors()
    old = _old_names(tensors)
    assert len(old.keys() - tensors.keys()) == 16
    assert _equal(pretrained_autoencoder.read(_write(tmp_path, old)).params, _parameters(tensors))


@pytest.mark.parametrize("half", [np.float16, jnp.bfloat16])
def test_sixteen_bits_are_widened(half, tmp_path):
    tensors = {name: np.asarray(each, half) for name, each in _tensors().items()}
    found = pretrained_autoencoder.read(_write(tmp_path, tensors)).params
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    assert _equal(found, _parameters({name: each.astype(np.float32) for name, each in tensors.items()}))


WITHOUT_SCALE = {name: value for name, value in CONFIG.items() if not name.startswith(("scaling", "shift"))}


@pytest.mark.parametrize(
    ("config", "scaling", "expected"),
    [
        (CONFIG, None, LatentScaling(1.5305, 0.0609)),
        (CONFIG | {"shift_factor": None}, None, LatentScaling(1.5305, 0.0)),
        (WITHOUT_SCALE, None, LatentScaling(0.18215, 0.0)),
        (CONFIG, LatentScaling(2.0, 1.0), LatentScaling(2.0, 1.0)),
        ({"norm_num_groups": 4}, None, LatentScaling(0.18215, 0.0)),
    ],
)
def test_the_scaling_is_what_is_given_or_the_config_s(config, scaling, expected, tmp_path):
    assert pretrained_autoencoder.read(_write(tmp_path, _tensors(), config), scaling).scaling == expected


def test_without_a_config_the_scaling_must_be_given(tmp_path):
    """Groups are 32 then, as in all published ones."""
    shapes = by_hand.shapes_of((32, 64), 1, 4)
    file = _write(tmp_path, by_hand.random_tensors(shapes), None)
    with pytest.raises(ValueError, match=rf"^{file}: scaling must be given .*SD3 \(1.5305, 0.0609\)"):
        pretrained_autoencoder.read(file)
    found = pretrained_autoencoder.read(file, LATENT_SCALINGS["SD"])
    assert (found.network, found.scaling) == (AutoencoderKL(4, 3, (32, 64), 1), LATENT_SCALINGS["SD"])


def _with(name, change):
    return lambda tensors: tensors | {name: change(tensors[name])}


def _without(name):
    return lambda tensors: {each: tensor for each, tensor in tensors.items() if each != name}


def _prefixed(start):
    return lambda tensors: {f"{start}{name}": each for name, each in tensors.items()}


def _only(*names):
    return lambda tensors: {name: np.ones((2, 2), np.float32) for name in names}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_without("encoder.conv_in.weight"), "tensor encoder.conv_in.weight is missing"),
        (_without("post_quant_conv.bias"), "tensor post_quant_conv.bias is missing"),
        (_without("quant_conv.weight"), "tensor quant_conv.weight is missing"),
        (_without(f"{ATTENTION}to_k.bias"), f"tensor {ATTENTION}to_k.bias is missing"),
        (lambda tensors: tensors | {f"{ATTENTION}key.bias": tensors[f"{ATTENTION}to_k.bias"]}, "there twice, as"),
        (lambda tensors: tensors | {"encoder.down_blocks.0.attentions.0.to_q.bias": np.ones(8, "f4")}, "is unexpected"),
        (_with("quant_conv.weight", lambda a: a[:7]), r"quant_conv.weight must have shape \(8, 8, 1, 1\), got \(7, 8"),
        (_with("encoder.conv_out.bias", lambda a: a[:4]), r"encoder.conv_out.bias must have shape \(8,\), got \(4,\)"),
        (_with("decoder.conv_in.weight", lambda a: a[:, :2]), r"must have shape"),
        (_with("decoder.conv_in.weight", lambda a: a[0]), "tensor decoder.conv_in.weight must have 4 axes"),
        (_with("encoder.conv_in.bias", np.float64), "encoder.conv_in.bias must be F32, F16 or BF16, got F64"),
        (_with("decoder.conv_in.bias", lambda a: a * np.float32(np.nan)), "tensor decoder.conv_in.bias is not finite"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_as_they_should_be_are_named(change, expected, tmp_path):
    file = _write(tmp_path, change(_tensors()))
    with pytest.raises(ValueError, match=f"^{file}: .*{expected}") as caught:
        pretrained_autoencoder.read(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_only("x_embedder.proj.weight", "pos_embed"), "(x_embedder.proj.weight) are those of a transformer"),
        (_only("transformer_blocks.0.attn1.to_q.weight"), "are those of a transformer"),
        (_only("double_blocks.0.img_attn.qkv.weight"), "are those of a transformer"),
        (_only("time_embedding.linear_1.weight", "down_blocks.0.resnets.0.conv1.weight"), "are those of a U-Net"),
        (_only("quantize.embedding.weight", "encoder.conv_in.weight"), "an autoencoder with a codebook (VQ)"),
        (_only("decoder.layers.1.weight"), "a tiny autoencoder (TAESD)"),
        (_only("text_model.embeddings.token_embedding.weight"), "a text encoder"),
        (_only("encoder.down.0.block.0.conv1.weight"), "those of the first code (CompVis, FLUX)"),
        (_only("first_stage_model.decoder.up.0.block.0.conv1.weight"), "those of the first code (CompVis, FLUX)"),
        (_prefixed("module."), "its names begin with 'module.'"),
    ],
)
def test_other_networks_are_called_what_they_are(change, expected, tmp_path):
    file = _write(tmp_path, change(_tensors()), None)
    with pytest.raises(ValueError, match=f"^{file}: .*{re.escape(expected)}.*docs/published_weights.md") as caught:
        pretrained_autoencoder.read(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_an_autoencoder_given_as_a_transformer_is_called_what_it_is(tmp_path):
    with pytest.raises(ValueError, match=r"its names \(decoder...\) are those of an autoencoder, not of a transformer"):
        pretrained.read(_write(tmp_path, _tensors()))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.pt", b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(60), "a PyTorch file (a zip around a pickle"),
        ("a.ckpt", b"\x80\x02}q\x00.", "a pickle"),
        ("model_index.json", None, "the folder of a diffusers pipeline"),
        ("config.json", None, "the folder of a diffusers model"),
    ],
)
def test_another_file_is_called_what_it_is(name, content, expected, tmp_path):
    file = tmp_path / name
    file.write_bytes(content or b"")
    place = file if content is not None else tmp_path
    with pytest.raises(ValueError, match=f"^{place}: it is {re.escape(expected)}.*docs/published_weights.md"):
        pretrained_autoencoder.read(place)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CONFIG | {"latent_channels": 16}, "config.json says latent_channels 16, the tensors have 4"),
        (
            CONFIG | {"block_out_channels": [8, 8]},
            r"block_out_channels \[8, 8\], the tensors have \[8, 16\]",
        ),
        (CONFIG | {"act_fn": "gelu"}, "config.json says act_fn gelu, only this is computed: silu"),
        (CONFIG | {"latents_mean": [0, 0, 0, 0]}, "config.json says latents_mean .*, only this is computed: None"),
        (CONFIG | {"_class_name": "AutoencoderTiny"}, "must be that of an AutoencoderKL, got AutoencoderTiny"),
        (CONFIG | {"norm_num_groups": 3}, r"num_groups must divide all widths, got 3 and \(8, 16\)"),
        (CONFIG | {"norm_num_groups": "4"}, "config.json: norm_num_groups must be"),
        (CONFIG | {"scaling_factor": "a"}, "config.json: latents' factor must be"),
        (CONFIG | {"scaling_factor": 0}, "config.json: latents' factor must be above 0"),
        (CONFIG | {"shift_factor": [1]}, "config.json: latents' shift must be"),
        ([1, 2], "must be that of an AutoencoderKL, got"),
        ("{", "config.json beside it is not JSON"),
        ("[" * 100_000, "config.json beside it is not JSON"),
    ],
)
def test_a_config_that_contradicts_is_named(config, expected, tmp_path):
    file = _write(tmp_path, _tensors(), config)
    with pytest.raises(ValueError, match=f"^{file}: .*{expected}") as caught:
        pretrained_autoencoder.read(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="none"):
        pretrained_autoencoder.read(tmp_path / "none.safetensors")
