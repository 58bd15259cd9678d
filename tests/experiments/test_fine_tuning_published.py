"""A run that begins with a file of published weights: what it takes, and which files and networks are refused."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from cfgjax import checkpoints
from cfgjax.models import pretrained
from experiments.cli.main import UserError
from experiments.config.kinds import LatentData
from experiments.config.networks import DiTNetwork
from experiments.config.schema import ADAPTER
from experiments.convert_weights import experiment_of
from experiments.presets.registry import PRESETS
from experiments.run import continuation, sources
from experiments.run import folder as run_folder
from experiments.run.model import model_of
from experiments.run.parts import flatten
from experiments.run.train_setup import state_of
from experiments.run.trained_labels import knows_null
from experiments.tasks.registry import facts_of
from tests.experiments.test_fine_tuning import LABELS, _assert_bits, _begun
from tests.models import test_pretrained_later as later
from tests.support.commands import assert_one_line, command

SMALL = pretrained.Architecture(16, 1, 2, patch=2, channels=4, side=4, num_classes=3, has_variance=True)


def _latents(run_dir, num_classes=3, kind="sit", **changes):
    is_field, module = kind in ("sit", "repa"), pretrained.network(kind, SMALL)
    names = ("width", "depth", "num_heads", "patch", "positions", "max_frequency", "time_range")
    network = DiTNetwork(**({name: getattr(module, name) for name in names} | changes))
    data = LatentData("mine", (4, 4, 4), num_classes)
    path, objective = ("linear", "field") if is_field else ("ddpm", "noise")
    start = PRESETS["imagenet256_latent"][1]
    return dataclasses.replace(start, run_dir=run_dir, data=data, network=network, path=path, objective=objective)


def _saved(tensors, file):
    pytest.importorskip("safetensors.numpy").save_file(tensors, file)
    return file


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights with the published names."""
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in pretrained.shapes_of(SMALL).items()}
    return _saved(tensors, tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.mark.parametrize(
    ("kind", "num_classes"), [pytest.param("sit", 3, marks=pytest.mark.slow), ("repa", 5), ("dit", 3)]
)
def test_a_run_begins_with_a_file_of_published_weights(kind, num_classes, weights, tmp_path):
    asked = _latents(tmp_path / "new", num_classes, kind)
    experiment, state = _begun(continuation.with_source(asked, weights, "ema", kind))
    expected = flatten(pretrained.read(weights, 2, kind)[1])
    if num_classes != 3:
        expected[LABELS] = flatten(state_of(asked, model_of(asked, facts_of(asked))).params)[LABELS]
    for tree in (state.params, state.ema):
        _assert_bits(tree, expected)
    assert (experiment.started_from.run_dir, experiment.started_from.kind) == (str(weights), kind)
    assert (knows_null(dataclasses.replace(experiment, label_drop_rate=0.0))) == (num_classes == 3)


def test_parameters_of_no_run_are_refused(tmp_path):
    done = command("train", "digits", "--from-parameters", "params", "--run-dir", tmp_path / "run")
    assert_one_line(done, "from_parameters is for the parameters of a run: name it with --from")


def test_other_files_and_other_networks_are_refused(weights, tmp_path):
    begin = partial(continuation.with_source, _latents(tmp_path / "new"))
    pickled, kept = tmp_path / "w.pt", {"decoder.conv_in.weight": np.ones((2, 2, 3, 3), np.float32)}
    pickled.write_bytes(b"PK\x03\x04archive/data.pkl" + bytes(100))
    autoencoder = _saved(kept, tmp_path / "vae.safetensors")
    for file, kind, message in (
        (
            tmp_path / "none.safetensors",
            "sit",
            r"no run in .*none.safetensors, which does not exist, and is no file of",
        ),
        (pickled, "sit", r"from .*w.pt: it is a PyTorch file \(a zip around a pickle.* how to rewrite other files"),
        (weights, None, r"from_kind must say whose weights they are, one of sit, .*: .*small.safetensors is a file of"),
        (weights, "flux", r"from_kind must say whose weights they are, one of sit, repa, .*: got 'flux'"),
        (tmp_path, "sit", r"from_kind is for a file of weights, and from .* is a folder; leave it out"),
    ):
        with pytest.raises(UserError, match=message):
            begin(file, "ema", kind)
    with pytest.raises(
        UserError, match=r"^from_parameters is for a run, and from .* is a file of weights; leave it out"
    ):
        begin(weights, "params", "sit")
    with pytest.raises(
        UserError, match=r"from .*vae.safetensors: its names \(decoder...\) are those of an autoencoder"
    ):
        _begun(begin(autoencoder, "ema", "sit"))
    for changes, message in (
        ({"width": 32}, r"its network.width is 16, this run's 32; both must be the same \(pass --network.width 16\)"),
        (
            {"positions": "sine", "depth": 3},
            r"network.depth is 1.*\(pass --network.depth 1 --network.positions learned\)",
        ),
    ):
        with pytest.raises(UserError, match=message):
            _begun(continuation.with_source(_latents(tmp_path / "new", **changes), weights, "ema", "sit"))
    with pytest.raises(
        UserError, match=r"its objective is noise, this run's field.*pass --objective noise --path ddpm"
    ):
        other = _latents(tmp_path / "new", time_range=(999.0, 0.0))
        _begun(continuation.with_source(other, weights, "ema", "dit"))


def test_the_heads_of_a_size_of_the_paper_are_the_papers():
    small = SMALL._replace(width=384, depth=12)
    for own, heads in ((small, 6), (SMALL, 4)):
        found = sources._with_heads("sit", own, _latents("new", num_heads=4))
        assert found.num_heads == heads


def test_a_file_that_tells_its_heads_is_held_to_them(tmp_path):
    architecture = later.ARCHITECTURES["lightningdit"]
    file = _saved(later._tensors("lightningdit"), tmp_path / "lightning.safetensors")
    asked = experiment_of("lightningdit", architecture, tmp_path / "new")
    _, state = _begun(continuation.with_source(asked, file, "ema", "lightningdit"))
    _assert_bits(state.params, flatten(pretrained.read(file, None, "lightningdit")[1]))
    other = dataclasses.replace(asked, network=dataclasses.replace(asked.network, num_heads=1))
    with pytest.raises(UserError, match=r"its network.num_heads is 2, this run's 1"):
        _begun(continuation.with_source(other, file, "ema", "lightningdit"))


def test_a_scale_of_noise_that_no_paper_tells_is_given_by_converting_first(tmp_path):
    file = _saved(later._tensors("jit"), tmp_path / "jit.safetensors")
    asked = experiment_of("jit", later.ARCHITECTURES["jit"], tmp_path / "new")
    with pytest.raises(UserError, match=r"noise_scale must be given.*; convert it first"):
        _begun(continuation.with_source(asked, file, "ema", "jit"))


def test_latents_of_another_scale_are_told(weights, tmp_path, capsys):
    source = experiment_of("sit", SMALL, tmp_path / "source")
    run_folder.make_folder("run_dir", source.run_dir)
    run_folder.open_run(source)
    with checkpoints.Writer(run_folder.checkpoints_of(source.run_dir)) as writer:
        params = {"params": pretrained.read(weights, 2, "sit")[1]}
        writer.save(0, params, ADAPTER.dump_python(source, mode="json"))
    for factor, is_told in ((0.18215, False), (0.5, True)):
        data = dataclasses.replace(source.data, factor=factor)
        asked = dataclasses.replace(source, run_dir=tmp_path / f"new{factor}", data=data)
        _begun(continuation.with_source(asked, source.run_dir, "ema"))
        told = r"source are (0.18215, 0.0), of these (0.5, 0.0)"
        assert (told in capsys.readouterr().err) == is_told
