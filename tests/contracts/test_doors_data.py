"""The doors of data and interchange: what is no name, path or number is refused before a file is looked at."""

import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import data
from cfgjax.models import pretrained
from tests.support.doors import COUNT, FUNCTIONS, NAN, WORDS, Door, Kind, knock_often

FILE = Path(__file__)
PLACE = Kind((FILE.parent, str(FILE.parent)), (None, 3, 1.5, b"folder", ["folder"], object()))
PATHS = Kind((FILE.parent,), (*PLACE.refused, "folder"))
TEXT = Kind(("mnist", "emnist/letters", "digits"), (None, 3, b"mnist", ["mnist"], FILE))
FLAG = Kind(("refuse", "skip"), ("", "ask", None, True, 3))
SPLITS = Kind((data.Split("split", [], [], (8, 8, 1), 5),), (None, 3, "split", []))
SEED = COUNT.but(allowed=(0,))._replace(refused=COUNT.refused[1:])
SMALL = pretrained.Architecture(32, 1, 2, 2, 4, 4, 3, True)
SHAPES = pretrained.shapes_of(SMALL)
ARCHITECTURES = Kind(
    (SMALL, SMALL._replace(has_variance=False)),
    (None, tuple(SMALL), 3, "sit", *(SMALL._replace(width=value) for value in (0, -1, 2.5, NAN, "three", None))),
)
NUM_HEADS = Kind((2, 4, np.int64(8)), (0, -1, 2.5, NAN, "two", 3, True))
KINDS = Kind(pretrained.KINDS, ("SiT", "", None, 3))


def _expecting(call, error):
    """The call, which ends in this error where the arguments are of the right types."""

    def expect(**given):
        with pytest.raises(error):
            call(**given)

    return expect


def _prepare(name, data_dir, source, image_size, on_corrupt, transpose):
    with tempfile.TemporaryDirectory() as folder:
        data.prepare(name, folder if data_dir == FILE else data_dir, source, image_size, on_corrupt, transpose)


def _tensor(name):
    return np.zeros(SHAPES[name], np.float16)


DOORS = [
    Door("data.is_mnist_like", data.is_mnist_like, {"name": TEXT}, lambda name: name != "digits"),
    Door("data.is_prepared", data.is_prepared, {"name": TEXT, "data_dir": PLACE}, lambda name, data_dir: False),
    Door(
        "data.open_split",
        _expecting(data.open_split, data.DataError),
        {"name": TEXT, "split": Kind(("train",), TEXT.refused), "data_dir": PLACE},
    ),
    Door(
        "data.load",
        _expecting(data.load, data.DataError),
        {"name": TEXT, "split": Kind(("train",), TEXT.refused), "data_dir": PLACE},
    ),
    Door(
        "data.prepare",
        _expecting(_prepare, data.DataError),
        {
            "name": Kind(("mine",), TEXT.refused),
            "data_dir": Kind((FILE,), PLACE.refused),
            "source": Kind((FILE.parent / "none", str(FILE)), PLACE.refused[1:]),
            "image_size": Kind((None, 8, np.int64(4)), (0, -1, 2.5, NAN, "8", True, [8])),
            "on_corrupt": FLAG,
            "transpose": Kind((False,), (None, "yes", 0, 1, 1.0, [])),
        },
    ),
    Door("data.summary", _expecting(data.summary, data.DataError), {"name": TEXT, "data_dir": PLACE}),
    Door("data.num_classes_of", data.num_classes_of, {"source": SPLITS}, lambda source: 5),
    Door(
        "data.label_counts", lambda source: int(data.label_counts(source).sum()), {"source": SPLITS}, lambda source: 0
    ),
    Door("data.present_labels", lambda source: len(data.present_labels(source)), {"source": SPLITS}, lambda source: 0),
    Door(
        "data.open_latents",
        _expecting(data.open_latents, data.DataError),
        {"folder": PLACE, "root": PLACE._replace(refused=PLACE.refused[1:])},
    ),
    Door(
        "data.parse_json",
        data.parse_json,
        {"content": Kind((b"[1]", b"1.0"), ("[1]", None, 1, ["1"]))},
        lambda content: [1],
    ),
    Door(
        "data.read_bounded",
        lambda path, most: len(data.read_bounded(path, most)),
        {
            "path": PATHS._replace(allowed=(FILE,)),
            "most": Kind((2**20, np.int64(2**20)), (-1, 2.5, NAN, "three", None, True)),
        },
        lambda path, most: FILE.stat().st_size,
    ),
    Door("data.read_idx", _expecting(data.read_idx, data.DataError), {"file": PATHS._replace(allowed=(FILE,))}),
    Door(
        "data.check_memory",
        data.check_memory,
        {"what": TEXT, "num_bytes": Kind((0, 2**10, np.int64(8)), (None, "three", 1j, [8], jnp.ones(2)))},
    ),
    Door(
        "data.require_inside",
        lambda path, root: (data.require_inside(path, root), 0)[1],
        {"path": PATHS._replace(allowed=(FILE, FILE.parent)), "root": PATHS},
    ),
    Door(
        "data.prefetch",
        lambda **given: (data.prefetch(**given), 0)[1],
        {
            "read": Kind((lambda indices: indices,), FUNCTIONS),
            "seed": SEED,
            "steps": Kind(
                (range(4), range(3, 9), range(0)), (None, 4, [0, 1], range(-1, 3), range(0, 9, 2), range(3, 0, -1))
            ),
            "batch_size": COUNT._replace(allowed=(1, 5, np.int64(3)), more=None).but(refused=(11,)),
            "num_examples": Kind((10, np.int32(12)), (0, -1, 2.5, NAN, *WORDS)),
            "share": Kind((slice(None), slice(0, 1)), (None, 3, (0, 1), "all")),
            "num_threads": COUNT._replace(allowed=(1, 2), more=None),
        },
        named={"num_examples": "num_examples|batch_size"},
    ),
    Door(
        "pretrained.shapes_of",
        lambda architecture: len(pretrained.shapes_of(architecture)),
        {"architecture": ARCHITECTURES},
        lambda architecture: 2 + 2 * 10,
    ),
    Door(
        "pretrained.architecture_of",
        lambda shapes, num_heads: pretrained.architecture_of(shapes, num_heads).num_heads,
        {
            "shapes": Kind(
                (SHAPES, {name: list(shape) for name, shape in SHAPES.items()}),
                (None, 3, "shapes", [SHAPES], {3: (1, 2)}, SHAPES | {"pos_embed": None}, SHAPES | {"pos_embed": 3}),
            ),
            "num_heads": NUM_HEADS,
        },
        lambda shapes, num_heads: int(num_heads),
    ),
    Door(
        "pretrained.parameters",
        lambda tensor, architecture: pretrained.parameters(tensor, architecture),
        {
            "tensor": Kind((_tensor,), (*FUNCTIONS, lambda name: np.zeros(1), lambda name: _tensor(name) + NAN)),
            "architecture": ARCHITECTURES._replace(allowed=(SMALL,)),
        },
    ),
    Door("pretrained.read", _expecting(pretrained.read, ValueError), {"file": PLACE._replace(allowed=(FILE,))}),
    Door(
        "pretrained.network",
        lambda kind, architecture: pretrained.network(kind, architecture).num_heads,
        {"kind": KINDS, "architecture": ARCHITECTURES},
        lambda kind, architecture: 2,
    ),
    Door(
        "pretrained.field",
        lambda kind, predict: pretrained.field(kind, predict)(jnp.ones(2), 0.5, 1),
        {"kind": KINDS, "predict": Kind((lambda x, t, y: x,), FUNCTIONS)},
    ),
]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_the_answer_is_right_or_the_error_clear(door):
    knock_often(door, 10)
