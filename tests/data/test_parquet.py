"""Pictures in Parquet files: each picture has its row, of all shards, or there is one error."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, strategies
from PIL import Image

from cfgjax import data
from cfgjax.data.untrusted import parquet as untrusted
from tests.support.fuzzing import mutations, tries

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ("one", "seven", "ten")


def _png(gray, mode="L", size=(4, 3)):
    stream = io.BytesIO()
    Image.new(mode, size, gray).save(stream, "png")
    return stream.getvalue()


def _pictures(grays):
    return pa.array([{"bytes": _png(gray), "path": f"{gray}.png"} for gray in grays], PICTURE)


def _columns(grays):
    """Columns that tell the gray value of the picture beside them."""
    return {
        "image": _pictures(grays),
        "text": pa.array([f"a gray of {gray}" for gray in grays]),
        "gray": pa.array(grays, pa.int64()),
        "half": pa.array([gray / 2 for gray in grays], pa.float64()),
        "label": pa.array([gray % 3 for gray in grays], pa.int64()),
    }


def _metadata(names=NAMES, column="label"):
    features = {"image": {"_type": "Image"}, column: {"names": list(names), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def _write(file, columns, metadata=None, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file, **options)
    return file


@pytest.fixture
def file(tmp_path):
    """Seven pictures in groups of three rows, with the names of their classes."""
    return _write(tmp_path / "pictures.parquet", _columns(range(10, 17)), _metadata(), row_group_size=3)


def _assert_right(images, grays):
    grays = np.array(grays)
    np.testing.assert_array_equal(images.pixels, np.broadcast_to(grays[:, None, None, None], (len(grays), 3, 4, 1)))
    assert images.columns["text"] == tuple(f"a gray of {gray}" for gray in grays)
    np.testing.assert_array_equal(images.columns["gray"], grays)
    np.testing.assert_array_equal(images.columns["half"], grays / np.float32(2))
    np.testing.assert_array_equal(images.columns["label"], grays % 3)
    assert images.file_name == tuple(f"{gray}.png" for gray in grays)
    assert (np.diff(images.row) == 1).all()


def _read(source, **options):
    splits, remarks = data.read_parquet(source, **options)
    assert remarks == []
    assert list(splits) == ["all"]
    return splits["all"]


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_each_picture_has_its_row_however_many_are_read_at_once(at_once, file, monkeypatch):
    monkeypatch.setattr(untrusted, "_ROWS_AT_ONCE", at_once)
    images = _read(file)
    _assert_right(images, range(10, 17))
    assert images.pixels.dtype == np.uint8
    assert {name: column.dtype for name, column in images.columns.items() if name != "text"} == {
        "gray": np.int32,
        "half": np.float32,
        "label": np.int32,
    }
    assert images.class_names == {"label": NAMES}


def test_shards_are_read_in_order_and_are_splits_by_their_names(tmp_path):
    """In the folder itself or in data/, with the digits that the hub once put behind the number of shards."""
    folder = tmp_path / "source" / "data"
    for index, grays in enumerate(([20, 21], [22], [23, 24, 25])):
        _write(folder / f"train-{index:05}-of-00003-0123456789abcdef.parquet", _columns(grays), _metadata())
    _write(folder / "test-00000-of-00001.parquet", _columns([30]), _metadata())
    for source in (folder, folder.parent):
        splits, remarks = data.read_parquet(source)
        assert remarks == []
        assert sorted(splits) == ["test", "train"]
        _assert_right(splits["train"], range(20, 26))
        _assert_right(splits["test"], [30])
        assert np.concatenate([splits["test"].row, splits["train"].row]).tolist() == list(range(7))
    with pytest.raises(data.DataError, match=r"train-00000-of-.* is one of 3 shards: give their folder"):
        data.read_parquet(next(folder.glob("train-00000*")))
    next(folder.glob("train-00001*")).unlink()
    with pytest.raises(data.DataError, match=r"of the 3 shards of 'train', shard 1 is missing"):
        data.read_parquet(folder)
    for leftover in folder.glob("train-*"):
        leftover.unlink()
    _write(folder / "more.parquet", _columns([20]), _metadata())
    with pytest.raises(data.DataError, match=r"holds 'more' beside others; of splits only test, train, validation"):
        data.read_parquet(folder)
    with pytest.raises(data.DataError, match=r"holds no \.parquet"):
        data.read_parquet(tmp_path)
    with pytest.raises(data.DataError, match="nowhere does not exist"):
        data.read_parquet(tmp_path / "nowhere")


def test_shards_of_other_columns_or_classes_are_refused(tmp_path):
    _write(tmp_path / "train.parquet", _columns([1]), _metadata())
    columns = _columns([2])
    _write(tmp_path / "test.parquet", {name: columns[name] for name in reversed(columns)}, _metadata())
    _assert_right(data.read_parquet(tmp_path)[0]["test"], [2])
    _write(tmp_path / "test.parquet", columns, _metadata(NAMES[::-1]))
    with pytest.raises(data.DataError, match=r"train\.parquet has other classes than .*test\.parquet"):
        data.read_parquet(tmp_path)
    _write(tmp_path / "test.parquet", columns | {"more": pa.array([1])}, _metadata())
    with pytest.raises(data.DataError, match=r"train\.parquet has other columns than .*test\.parquet"):
        data.read_parquet(tmp_path)
    _write(tmp_path / "test.parquet", columns | {"text": pa.array([1])}, _metadata())
    with pytest.raises(data.DataError, match=r"train\.parquet, row 0: 'text' is text, and a number at .*test\.parquet"):
        data.read_parquet(tmp_path)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (pa.large_string(), ["a", "b"], ("a", "b")),
        (pa.dictionary(pa.int32(), pa.string()), ["a", "a"], ("a", "a")),
        (pa.uint8(), [0, 255], np.array([0, 255], np.int32)),
        (pa.bool_(), [True, False], np.array([1, 0], np.int32)),
        (pa.float32(), [0.1, -1], np.array([0.1, -1], np.float32)),
        (pa.float16(), [np.float16(0.1), np.float16(2)], np.array([0.1, 2], np.float16).astype(np.float32)),
    ],
)
def test_columns_of_text_and_numbers_of_any_type(kind, values, expected, tmp_path):
    columns = {"img": _pictures([1, 2]), "x": pa.array(values, kind)}
    found = _read(_write(tmp_path / "a.parquet", columns)).columns["x"]
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found, expected)
    assert isinstance(found, tuple) or found.dtype == expected.dtype


def test_names_are_classes_as_in_a_folder(tmp_path):
    columns = {"image": _pictures([1, 2, 3]), "label": pa.array(["b", "a", "b"])}
    images = _read(_write(tmp_path / "a.parquet", columns))
    assert images.columns["label"].tolist() == [1, 0, 1]
    assert images.class_names == {"label": ("a", "b")}
    columns = {"image": _pictures([1, 2]), "fine": pa.array([2, 0]), "coarse": pa.array(["y", "x"])}
    images = _read(_write(tmp_path / "a.parquet", columns, _metadata(column="fine")), label="coarse")
    assert images.class_names == {"fine": NAMES, "coarse": ("x", "y")}
    assert [images.columns[name].tolist() for name in ("fine", "coarse")] == [[2, 0], [1, 0]]


def test_a_file_of_paths_without_pictures_is_refused_with_the_reason(tmp_path):
    """As ``Dataset.to_parquet`` of datasets 5.2.0 writes a folder of pictures; the file of the path is not opened."""
    Image.new("L", (4, 3)).save(tmp_path / "real.png")
    for content in ({"bytes": None, "path": str(tmp_path / "real.png")}, None):
        columns = {"image": pa.array([{"bytes": _png(1), "path": None}, content], PICTURE), "label": pa.array([0, 0])}
        with pytest.raises(data.DataError, match=r"a\.parquet, row 1: .*no pictures, only their paths.* embed them"):
            data.read_parquet(_write(tmp_path / "a.parquet", columns))


def test_pictures_without_paths_are_named_by_their_rows(tmp_path):
    pictures = pa.array([{"bytes": _png(gray), "path": None} for gray in (1, 2)], PICTURE)
    images = _read(_write(tmp_path / "a.parquet", {"image": pictures}))
    assert images.file_name == ("a.parquet/0", "a.parquet/1")
    assert images.columns == {}


def test_pictures_are_decoded_as_those_of_class_folders(tmp_path):
    contents = [_png(7), _png((0, 0, 255), "RGB", (8, 8))]
    pictures = pa.array([{"bytes": content, "path": None} for content in contents], PICTURE)
    file = _write(tmp_path / "a.parquet", {"image": pictures})
    with pytest.raises(data.DataError, match=r"a\.parquet, row 1 is 8 x 8, the first one 3 x 4; give an image size"):
        data.read_parquet(file)
    splits, (remark,) = data.read_parquet(file, image_size=2)
    assert remark.what == "in colour, for which all are kept in colour, 1 gray ones too"
    assert splits["all"].pixels[:, 0, 0].tolist() == [[7] * 3, [0, 0, 255]]
    pictures = pa.array([{"bytes": content, "path": None} for content in (contents[0], b"%!PS-Adobe-3.0")], PICTURE)
    with pytest.raises(data.DataError, match=r"picture of .*a\.parquet, row 1 does not read: it is no PNG"):
        data.read_parquet(_write(tmp_path / "a.parquet", {"image": pictures}))


LISTS, STRANGE = pa.array([[1], [2]]), pa.array([1, 2], pa.timestamp("s"))


@pytest.mark.parametrize(
    ("changes", "metadata", "complaint"),
    [
        ({"image": pa.array([1, 2])}, None, r"has no column of pictures: one must be a struct of bytes and path; its"),
        ({"image": pa.array([_png(1), _png(2)])}, None, r"has no column of pictures: .* image \(binary\)"),
        ({"more": _pictures([1, 2])}, None, r"has several columns of pictures, image, more"),
        ({"text": LISTS}, None, r"column 'text' is of type list<.*>, neither text nor numbers; columns=\.\.\. leaves"),
        ({"text": STRANGE}, None, r"column 'text' is of type timestamp\[ms\], neither text nor numbers"),
        ({"text": pa.array(["a", None])}, None, r"row 1: 'text' is no value"),
        ({"half": pa.array([1, np.nan])}, None, r"row 1: 'half' is nan, not finite in float32"),
        ({"half": pa.array([1e39, 1])}, None, r"row 0: 'half' is 1e\+39, not finite in float32"),
        ({"gray": pa.array([1, 2**31])}, None, r"row 1: 'gray' is 2147483648, no integer of 32 bits"),
        ({"label": pa.array([0, -1])}, None, r"row 1: 'label' is -1, no class"),
        ({"label": pa.array([0, -1])}, _metadata(), r"row 1: 'label' is -1, of 0\.\.2"),
        ({"label": pa.array([3, 1])}, _metadata(), r"row 0: 'label' is 3, of 0\.\.2"),
        ({"label": pa.array([0.5, 1])}, _metadata(), r"row 0: 'label' must be of integers, as its classes have names"),
        ({}, _metadata(["a", "a"]), r"the classes of 'label' must be different names"),
        ({}, _metadata([]), r"the classes of 'label' must be different names"),
        ({}, _metadata(["a\nb"]), r"the classes of 'label' must be different names of printable"),
        ({}, {b"huggingface": b"{"}, r"'huggingface' in its metadata does not read"),
        ({}, {b"huggingface": b"[]"}, r"'huggingface' in its metadata does not read"),
        ({}, {b"huggingface": b"\xff"}, r"'huggingface' in its metadata does not read: it is not text in UTF-8"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(changes, metadata, complaint, tmp_path):
    file = _write(tmp_path / "a.parquet", _columns([1, 2]) | changes, metadata)
    with pytest.raises(data.DataError, match=rf"a\.parquet.*{complaint}") as caught:
        data.read_parquet(file)
    assert "\n" not in str(caught.value)


def test_columns_are_chosen_by_name(tmp_path):
    file = _write(tmp_path / "a.parquet", _columns([1, 2]) | {"boxes": LISTS}, _metadata())
    images = _read(file, columns=("half", "gray"))
    assert list(images.columns) == ["half", "gray"]
    assert images.class_names == {}
    with pytest.raises(data.DataError, match=r"has no column 'weight', only 'text', 'gray'"):
        data.read_parquet(file, columns=("weight",))


def test_files_that_are_no_parquet_or_elsewhere_are_refused(file, tmp_path):
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "zip.parquet").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    for name in ("empty", "zip"):
        with pytest.raises(data.DataError, match=rf"{name}\.parquet does not read as Parquet: ") as caught:
            data.read_parquet(tmp_path / f"{name}.parquet")
        assert "\n" not in str(caught.value)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "train.parquet").symlink_to(file)
    with pytest.raises(data.DataError, match=r"train\.parquet is a link that leads out"):
        data.read_parquet(tmp_path / "inside")
    _write(tmp_path / "none.parquet", {"image": _pictures([])})
    with pytest.raises(data.DataError, match=r"none\.parquet holds no row"):
        data.read_parquet(tmp_path / "none.parquet")


def test_a_value_that_all_rows_name_is_unpacked_for_few_at_once(tmp_path, monkeypatch):
    """A dictionary makes a small file of any number of large pictures: rows are bounded by the size of all of it."""
    columns = {"image": pa.array([{"bytes": b"\0" * 2**18, "path": None}] * 128, PICTURE)}
    table = untrusted.open_table(_write(tmp_path / "a.parquet", columns, compression="zstd"), tmp_path, None)
    assert table.file.stat().st_size < 2**14

    def allocated(most_at_once):
        monkeypatch.setattr(untrusted, "_MOST_AT_ONCE", most_at_once)
        before = pa.total_allocated_bytes()
        return max(pa.total_allocated_bytes() - before for _ in untrusted.rows_of(table))

    assert allocated(2**20) < 2**22
    assert allocated(2**30) > 2**23
    monkeypatch.setattr(untrusted, "_MOST_GROUP", 2**17)
    with pytest.raises(data.DataError, match=r"declares a group of rows of 26\d+ bytes, more than 131072"):
        next(untrusted.rows_of(table))


def test_texts_are_held_once_and_within_memory(file, monkeypatch):
    """Seven paths of 6 letters and seven texts of 12; then one of each."""
    sizes = []
    monkeypatch.setattr("cfgjax.data.parquet.check_memory", lambda what, size: sizes.append(size))
    _read(file)
    assert sizes[-1] == 7 * 18
    _write(file, _columns([10] * 7), _metadata())
    _read(file)
    assert sizes[-1] == 18


def test_without_pyarrow_one_line_says_what_to_install(file):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from cfgjax import data\n"
        f"try:\n    data.read_parquet({str(file)!r})\n"
        "except data.DataError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "reading Parquet needs pyarrow: python -m pip install 'cfgjax[parquet]'\n"


@tries(150)
@given(draws=strategies.data())
def test_a_damaged_file_gives_its_pictures_or_one_error(draws, tmp_path_factory):
    """The format has no check sums unless they are asked for: a byte among the numbers is another number."""
    folder = tmp_path_factory.mktemp("damaged")
    file = _write(folder / "a.parquet", _columns([1, 2, 3]), _metadata(), row_group_size=2)
    file.write_bytes(draws.draw(mutations(file.read_bytes())))
    try:
        (images,) = data.read_parquet(file)[0].values()
    except data.DataError as error:
        assert "\n" not in str(error)
        return
    assert len(images.pixels) == len(images.file_name)
    for column in images.columns.values():
        assert len(column) == len(images.pixels)
        assert isinstance(column, tuple) or np.isfinite(column).all()
