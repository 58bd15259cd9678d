"""Calls of data and interchange: what is no name, path or number is refused before a file is looked at."""

from pathlib import Path

import numpy as np
import pytest

from cfgjax import data
from cfgjax.models import pretrained
from tests.support.calls import COUNT, FUNCTIONS, NAN, WORDS, Case, Choices, fuzz

FILE = Path(__file__)
PLACE = Choices((FILE.parent, str(FILE.parent)), (None, 3, 1.5, b"folder", ["folder"], object()))
PATHS = Choices((FILE.parent,), (*PLACE.refused, "folder"))
TEXT = Choices(("mnist", "emnist/letters", "digits"), (None, 3, b"mnist", ["mnist"], FILE))
SPLITS = Choices((data.Split("split", [], [], (8, 8, 1), 5),), (None, 3, "split", []))
SEED = COUNT.but(allowed=(0,))._replace(refused=COUNT.refused[1:])
SMALL = pretrained.Architecture(32, 1, 2, 2, 4, 4, 3, True)
SHAPES = pretrained.shapes_of(SMALL)
ARCHITECTURES = Choices(
    (SMALL, SMALL._replace(has_variance=False)),
    (None, tuple(SMALL), 3, "sit", *(SMALL._replace(width=value) for value in (0, -1, 2.5, NAN, "three", None))),
)
NUM_HEADS = Choices((2, 4, np.int64(8)), (0, -1, 2.5, NAN, "two", 3, True))
KINDS = Choices(pretrained.KINDS, ("SiT", "", None, 3))


def _tensor(name):
    return np.zeros(SHAPES[name], np.float16)


CASES = [
    Case("data.is_mnist_like", data.is_mnist_like, {"name": TEXT}, lambda name: name != "digits"),
    Case("data.is_prepared", data.is_prepared, {"name": TEXT, "data_dir": PLACE}, lambda name, data_dir: False),
    Case("data.num_classes_of", data.num_classes_of, {"source": SPLITS}, lambda source: 5),
    Case(
        "data.label_counts", lambda source: int(data.label_counts(source).sum()), {"source": SPLITS}, lambda source: 0
    ),
    Case("data.present_labels", lambda source: len(data.present_labels(source)), {"source": SPLITS}, lambda source: 0),
    Case(
        "data.parse_json",
        data.parse_json,
        {"content": Choices((b"[1]", b"1.0"), ("[1]", None, 1, ["1"]))},
        lambda content: [1],
    ),
    Case(
        "data.read_bounded",
        lambda path, most: len(data.read_bounded(path, most)),
        {
            "path": PATHS._replace(allowed=(FILE,)),
            "most": Choices((2**20, np.int64(2**20)), (-1, 2.5, NAN, "three", None, True)),
        },
        lambda path, most: FILE.stat().st_size,
    ),
    Case(
        "data.prefetch",
        lambda **given: (data.prefetch(**given), 0)[1],
        {
            "read": Choices((lambda indices: indices,), FUNCTIONS),
            "seed": SEED,
            "steps": Choices(
                (range(4), range(3, 9), range(0)), (None, 4, [0, 1], range(-1, 3), range(0, 9, 2), range(3, 0, -1))
            ),
            "batch_size": COUNT._replace(allowed=(1, 5, np.int64(3)), more=None).but(refused=(11,)),
            "num_examples": Choices((10, np.int32(12)), (0, -1, 2.5, NAN, *WORDS)),
            "share": Choices((slice(None), slice(0, 1)), (None, 3, (0, 1), "all")),
            "num_threads": COUNT._replace(allowed=(1, 2), more=None),
        },
        named={"num_examples": "num_examples|batch_size"},
    ),
    Case(
        "pretrained.shapes_of",
        lambda architecture: len(pretrained.shapes_of(architecture)),
        {"architecture": ARCHITECTURES},
        lambda architecture: 2 + 2 * 10,
    ),
    Case(
        "pretrained.architecture_of",
        lambda shapes, num_heads: pretrained.architecture_of(shapes, num_heads).num_heads,
        {
            "shapes": Choices(
                (SHAPES, {name: list(shape) for name, shape in SHAPES.items()}),
                (None, 3, "shapes", [SHAPES], {3: (1, 2)}, SHAPES | {"pos_embed": None}, SHAPES | {"pos_embed": 3}),
            ),
            "num_heads": NUM_HEADS,
        },
        lambda shapes, num_heads: int(num_heads),
    ),
    Case(
        "pretrained.parameters",
        lambda tensor, architecture: pretrained.parameters(tensor, architecture),
        {
            "tensor": Choices((_tensor,), (*FUNCTIONS, lambda name: np.zeros(1), lambda name: _tensor(name) + NAN)),
            "architecture": ARCHITECTURES._replace(allowed=(SMALL,)),
        },
    ),
    Case(
        "pretrained.network",
        lambda kind, architecture: pretrained.network(kind, architecture).num_heads,
        {"kind": KINDS, "architecture": ARCHITECTURES},
        lambda kind, architecture: 2,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)
