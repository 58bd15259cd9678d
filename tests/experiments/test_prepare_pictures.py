"""``prepare`` of pictures with metadata: a plain folder, whole or not at all, and what it holds."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from cfgjax import data
from tests.support import told
from tests.support.commands import assert_one_line, command

ROWS = told.rows(20)


def _lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def _prepare(tmp_path, source, *options):
    return command("prepare", "mine", "--source", source, "--data-dir", tmp_path / "data", *options)


def _jsonl(folder):
    told.write_rows(folder, ROWS)


def _csv(folder):
    told.write_rows(folder, ROWS)
    (folder / "metadata.jsonl").unlink()
    lines = [",".join(f'"{value}"' for value in row.values()) for row in ROWS]
    (folder / "metadata.csv").write_text("\n".join([",".join(ROWS[0]), *lines]))


def _parquet(folder, with_bytes=True):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def picture(row):
        stream = io.BytesIO()
        Image.fromarray(told.pixels(row)).save(stream, "png")
        return {"bytes": stream.getvalue() if with_bytes else None, "path": row["file_name"]}

    table = pa.table(
        {
            "image": pa.array(
                [picture(row) for row in ROWS], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            ),
            **{name: [row[name] for row in ROWS] for name in ("caption", "bright", "count")},
            "label": pa.array([told.KINDS.index(row["label"]) for row in ROWS], pa.int64()),
        }
    )
    features = {"image": {"_type": "Image"}, "label": {"names": list(told.KINDS), "_type": "ClassLabel"}}
    names = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    folder.mkdir()
    parquet.write_table(table.replace_schema_metadata(names), folder / "pictures.parquet")


@pytest.mark.parametrize("write", [_jsonl, _csv, _parquet])
def test_a_set_is_a_plain_folder_of_what_the_source_says(write, tmp_path):
    """Every tenth picture is held out; names of classes, numbers and texts stand there as they were."""
    write(tmp_path / "source")
    done = _prepare(tmp_path, tmp_path / "source")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data" / "mine"
    assert sorted(file.name for file in folder.iterdir()) == ["test", "train"]
    expected = {"test": [ROWS[9], ROWS[19]], "train": [row for index, row in enumerate(ROWS) if index % 10 != 9]}
    for split, rows in expected.items():
        found = _lines(folder / split / "metadata.jsonl")
        assert found == [row | {"file_name": f"{index:05}.png"} for index, row in enumerate(rows)]
        for line, row in zip(found, rows, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(folder / split / line["file_name"])), told.pixels(row))
    assert done.stdout.splitlines() == [
        f"mine is prepared in {tmp_path / 'data'}",
        "  20 pictures of 8 x 8, in colour: train 18, test 2",
        "  caption: texts of 1 to 4 words, half of them up to 4; 7 different words",
        "  bright: numbers from 0 to 4.75, of mean 2.375",
        "  count: integers from 0 to 6, of mean 2.85",
        "  label: 2 classes, the smallest framed with 9: framed, plain",
        "  train on it: python -m experiments.train conditioned_images --data.folder mine --data-dir "
        f"{tmp_path / 'data'} --data.label label --data.numbers bright count --data.text caption --run-dir runs/mine",
    ]
    again = _prepare(tmp_path, tmp_path / "nowhere")
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[1:]


def test_splits_of_the_source_are_kept_and_pictures_resized(tmp_path):
    told.write_rows(tmp_path / "source" / "train", ROWS[:5], size=16)
    told.write_rows(tmp_path / "source" / "validation", ROWS[5:7], size=16)
    done = _prepare(tmp_path, tmp_path / "source", "--image-size", 4, "--columns", "caption", "count")
    assert "  7 pictures of 4 x 4, in colour: train 5, validation 2" in done.stdout
    found = _lines(tmp_path / "data" / "mine" / "validation" / "metadata.jsonl")
    expected = [{"file_name": f"0000{place}.png", **{name: ROWS[5 + place][name] for name in ("caption", "count")}}
                for place in range(2)]  # fmt: skip
    assert found == expected


def test_embeddings_in_the_order_of_the_source_go_with_their_pictures(tmp_path):
    _jsonl(tmp_path / "source")
    values = np.arange(40, dtype=np.float32).reshape(20, 2)
    np.savez(tmp_path / "clip.npz", embeddings=values)
    done = _prepare(tmp_path, tmp_path / "source", "--embeddings", tmp_path / "clip.npz")
    assert "  embeddings.npz: embeddings of shape 2\n" in done.stdout
    assert "--data.embeddings embeddings.npz --run-dir runs/mine" in done.stdout
    images, _ = data.read_metadata_folder(tmp_path / "data" / "mine")
    found = data.join_embeddings(images, data.read_embeddings(tmp_path / "data" / "mine" / "embeddings.npz"))
    np.testing.assert_array_equal(found["test"].columns["embeddings"], values[[9, 19]])


def _without_a_row(folder):
    told.write_rows(folder, ROWS)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[1:]))


def _without_a_picture(folder):
    told.write_rows(folder, ROWS)
    (folder / "003.png").unlink()


def _of_two_sizes(folder):
    told.write_rows(folder, ROWS)
    Image.new("RGB", (9, 9)).save(folder / "004.png")


BAD = {
    "a picture without a row": (_without_a_row, [], "000.png has no row in metadata.jsonl"),
    "a row without a picture": (_without_a_picture, [], "line 4: file_name '003.png' does not exist"),
    "pictures of two sizes": (_of_two_sizes, [], "004.png is 9 x 9, the first one 8 x 8; give an image size"),
    "a table without pictures": (
        lambda folder: _parquet(folder, with_bytes=False),
        [],
        "holds no pictures, only their",
    ),
    "a column that is not there": (_jsonl, ["--columns", "size"], "it has no column 'size', which is asked for, only"),
    "embeddings of another number": (
        _jsonl,
        ["--embeddings", "three.npz"],
        "the embeddings have 3 rows, and there are",
    ),
    "skipped pictures": (_jsonl, ["--on-corrupt", "skip"], "on_corrupt is for class folders"),
    "transposed": (_jsonl, ["--transpose"], "transpose is for idx files"),
}


@pytest.mark.parametrize(("write", "options", "message"), BAD.values(), ids=BAD)
def test_a_source_that_is_not_as_it_should_be_leaves_nothing(write, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("three.npz", embeddings=np.ones((3, 2), np.float32))
    write(tmp_path / "source")
    assert_one_line(_prepare(tmp_path, tmp_path / "source", *options), message)
    assert not (tmp_path / "data").exists() or list((tmp_path / "data").iterdir()) == []


def test_what_lies_there_is_not_overwritten(tmp_path):
    _jsonl(tmp_path / "source")
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "notes.txt").touch()
    assert_one_line(_prepare(tmp_path, tmp_path / "source"), "data/mine holds something else; remove it, or give")
    assert_one_line(
        command("prepare", "Mine", "--source", tmp_path / "source", "--data-dir", tmp_path / "data"), "name"
    )


def test_columns_are_for_metadata_alone(tmp_path):
    (tmp_path / "source" / "cat").mkdir(parents=True)
    done = _prepare(tmp_path, tmp_path / "source", "--columns", "caption")
    assert_one_line(done, "columns and embeddings are for a --source with metadata.csv, metadata.jsonl or .parquet")
