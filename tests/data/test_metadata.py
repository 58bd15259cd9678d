"""A folder of pictures with metadata.jsonl or metadata.csv: each picture has its row, or there is one error."""

import csv
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, strategies
from PIL import Image

from cfgjax import data
from tests.support.fuzzing import mutations, tries

ROWS = [
    {"file_name": "b.png", "text": 'a bold "seven", leaning', "slant": 0.5, "count": 3, "label": "seven"},
    {"file_name": "a.png", "text": "ein dünner Einser", "slant": -2, "count": 0, "label": "one"},
    {"file_name": "more/c.png", "text": "a seven\nof two lines", "slant": 1e-3, "count": -1, "label": "seven"},
]
IN_ORDER = [ROWS[1], ROWS[0], ROWS[2]]


def _gray_of(row):
    return 10 + 50 * ROWS.index(row)


def _write_pictures(folder, rows=ROWS):
    for row in rows:
        file = folder / row["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3), _gray_of(row)).save(file)


def _write_jsonl(folder, rows=ROWS):
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _write_csv(folder, rows=ROWS, **options):
    with (folder / "metadata.csv").open("w", newline="", encoding=options.pop("encoding", "utf-8")) as stream:
        writer = csv.DictWriter(stream, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)


WRITERS = {"metadata.jsonl": _write_jsonl, "metadata.csv": _write_csv}


@pytest.fixture
def source(tmp_path):
    """Three gray pictures with a row each in metadata.jsonl."""
    _write_pictures(tmp_path / "source")
    _write_jsonl(tmp_path / "source")
    return tmp_path / "source"


def _read(source, **options):
    splits, remarks = data.read_metadata_folder(source, **options)
    assert remarks == []
    assert list(splits) == ["all"]
    return splits["all"]


def _assert_right(images, rows=IN_ORDER):
    assert images.file_name == tuple(row["file_name"] for row in rows)
    assert images.pixels.dtype == np.uint8
    np.testing.assert_array_equal(images.pixels[:, 1, 2, 0], [_gray_of(row) for row in rows])
    assert images.pixels.shape == (len(rows), 3, 4, 1)
    assert images.columns["text"] == tuple(row["text"] for row in rows)
    for name, dtype in (("slant", np.float32), ("count", np.int32)):
        assert images.columns[name].dtype == dtype
        np.testing.assert_array_equal(images.columns[name], np.array([row[name] for row in rows], dtype))
    names = images.class_names["label"]
    assert [names[number] for number in images.columns["label"]] == [row["label"] for row in rows]
    assert images.columns["label"].dtype == np.int32


@pytest.mark.parametrize("name", WRITERS)
def test_each_picture_has_its_row_in_the_order_of_the_paths(name, source):
    (source / "metadata.jsonl").unlink()
    WRITERS[name](source)
    images = _read(source)
    _assert_right(images)
    assert images.class_names == {"label": ("one", "seven")}
    assert images.row is None
    WRITERS[name](source, IN_ORDER)
    assert _read(source).row.tolist() == [0, 1, 2]
    np.testing.assert_allclose(images.image, images.pixels / 127.5 - 1, atol=1e-6)


def test_what_is_read_does_not_depend_on_the_order_of_rows(source):
    expected = _read(source)
    _write_jsonl(source, ROWS[::-1])
    found = _read(source)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.columns["text"] == expected.columns["text"]


def test_splits_are_folders_with_a_file_each_or_one_for_all(source, tmp_path):
    both = tmp_path / "both"
    for split, rows in (("train", ROWS[:2]), ("test", ROWS[2:])):
        _write_pictures(both / split, rows)
        _write_jsonl(both / split, rows)
    splits, remarks = data.read_metadata_folder(both)
    assert remarks == []
    assert {split: images.file_name for split, images in splits.items()} == {
        "test": ("test/more/c.png",),
        "train": ("train/a.png", "train/b.png"),
    }
    assert {images.class_names["label"] for images in splits.values()} == {("one", "seven")}
    assert splits["test"].columns["label"].tolist() == [1]
    for split in ("train", "test"):
        (both / split / "metadata.jsonl").unlink()
    named = [{**row, "file_name": f"{'train' if row in ROWS[:2] else 'test'}/{row['file_name']}"} for row in ROWS]
    _write_jsonl(both, named)
    again = data.read_metadata_folder(both)[0]
    for split, images in splits.items():
        np.testing.assert_array_equal(again[split].pixels, images.pixels)
        assert again[split].columns["text"] == images.columns["text"]
    _write_pictures(both, ROWS[:1])
    with pytest.raises(data.DataError, match=r"split folders .* and .*/both/b\.png beside them"):
        data.read_metadata_folder(both)


def test_a_set_without_splits_holds_out_every_tenth(tmp_path):
    rows = [{"file_name": f"{index:02}.png", "number": index} for index in range(25)]
    for row in rows:
        Image.new("L", (2, 2), row["number"]).save(tmp_path / row["file_name"])
    _write_jsonl(tmp_path, rows)
    splits = data.hold_out(_read(tmp_path))
    assert splits["test"].columns["number"].tolist() == [9, 19]
    assert splits["test"].file_name == ("09.png", "19.png")
    assert splits["train"].columns["number"].tolist() == [index for index in range(25) if index not in (9, 19)]
    for images in splits.values():
        np.testing.assert_array_equal(images.pixels[:, 0, 0, 0], images.columns["number"])
        np.testing.assert_array_equal(images.row, images.columns["number"])


def test_columns_are_chosen_by_name(source):
    rows = [{**row, "box": [1, 2], "text": None} if row is ROWS[0] else {**row, "extra": {}} for row in ROWS]
    _write_jsonl(source, rows)
    images = _read(source, columns=("slant", "label"))
    assert list(images.columns) == ["slant", "label"]
    assert list(_read(source, columns=("slant",)).class_names) == []
    with pytest.raises(data.DataError, match=r"line 1: it has no column 'weight', which is asked for, only 'text'"):
        _read(source, columns=("weight",))
    with pytest.raises(data.DataError, match=r"it has no column 'kind', only 'slant'"):
        _read(source, columns=("slant",), label="kind")


def test_classes_are_integers_or_names_by_any_column(source):
    _write_jsonl(source, [{"file_name": row["file_name"], "kind": row["label"], "label": 4} for row in ROWS])
    images = _read(source)
    assert images.columns["label"].tolist() == [4, 4, 4]
    assert images.class_names == {}
    assert images.columns["kind"] == ("one", "seven", "seven")
    images = _read(source, label="kind")
    assert images.columns["kind"].tolist() == [0, 1, 1]
    assert images.class_names == {"kind": ("one", "seven")}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-2", "+3"], np.array([1, -2, 3], np.int32)),
        (["1", "2.5", "-1e-3"], np.array([1, 2.5, -1e-3], np.float32)),
        ([".5", "1.", "0"], np.array([0.5, 1, 0], np.float32)),
        (["007", "008", "10"], ("007", "008", "10")),
        (["7", "seven", ""], ("7", "seven", "")),
        (["", "", ""], ("", "", "")),
        (["1 ", "2", "3"], ("1 ", "2", "3")),
        (["٣", "1", "2"], ("٣", "1", "2")),
        (["0x10", "1", "1_000"], ("0x10", "1", "1_000")),
    ],
)
def test_cells_are_numbers_where_all_are_written_so(cells, expected, source):
    (source / "metadata.jsonl").unlink()
    _write_csv(source, [{"file_name": row["file_name"], "x": x} for row, x in zip(IN_ORDER, cells, strict=True)])
    found = _read(source).columns["x"]
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found, expected)
    assert isinstance(found, tuple) or found.dtype == expected.dtype


def test_text_in_json_stays_text_and_truth_is_a_number(source):
    rows = [{"file_name": row["file_name"], "x": "7", "is_bold": index == 1} for index, row in enumerate(IN_ORDER)]
    _write_jsonl(source, rows)
    assert _read(source).columns["x"] == ("7", "7", "7")
    assert _read(source).columns["is_bold"].tolist() == [0, 1, 0]


def test_csv_as_spreadsheets_write_it(source):
    """With a mark of byte order, and lines that end in two characters."""
    (source / "metadata.jsonl").unlink()
    _write_csv(source, encoding="utf-8-sig", lineterminator="\r\n")
    images = _read(source)
    assert images.file_name == ("a.png", "b.png", "more/c.png")
    assert images.columns["text"][0] == "ein dünner Einser"


def test_lines_of_json_may_be_empty_or_end_as_on_windows(source):
    text = (source / "metadata.jsonl").read_bytes()
    (source / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n\r\n"))
    _assert_right(_read(source))


def test_a_name_may_begin_in_its_own_folder(source):
    _write_jsonl(source, [{**row, "file_name": f"./{row['file_name']}"} for row in ROWS])
    _assert_right(_read(source))


REFUSED = {
    "is missing": (
        [*ROWS, {**ROWS[0], "file_name": "d.png"}],
        r"metadata\.jsonl, line 4: file_name 'd\.png' does not exist",
    ),
    "no row": (ROWS[:2], r"picture .*/more/c\.png has no row in metadata\.jsonl$"),
    "no rows": (ROWS[:1], r"picture .*/a\.png has no row in metadata\.jsonl \(2 have none\)$"),
    "no row at all": ([], r"picture .*/a\.png has no row"),
    "twice": ([*ROWS, ROWS[1]], r"line 4: file_name 'a\.png' has a row already, .*metadata\.jsonl, line 2$"),
    "twice by another spelling": (
        [*ROWS, {**ROWS[1], "file_name": "./a.png"}],
        r"line 4: file_name '\./a\.png' has a row already",
    ),
    "no file_name": ([ROWS[0], {"text": "a"}], r"line 2: it has no file_name, .*, only 'text'"),
    "empty file_name": ([{**ROWS[0], "file_name": ""}], r"line 1: it has no file_name"),
    "file_name is a number": ([{**ROWS[0], "file_name": 7}], r"line 1: it has no file_name"),
    "less": ([ROWS[0], {"file_name": "a.png", "text": "a"}], r"line 2: it has no column 'slant', as .*line 1 has"),
    "more": ([ROWS[0], {**ROWS[1], "colour": "red"}], r"line 2: it has a column 'colour', and .*line 1 has none"),
    "above": ([{**ROWS[0], "file_name": "../b.png"}], r"line 1: file_name '\.\./b\.png' leads out of its folder"),
    "above and back": ([{**ROWS[0], "file_name": "more/../b.png"}], r"leads out of its folder"),
    "absolute": ([{**ROWS[0], "file_name": "/etc/passwd"}], r"file_name '/etc/passwd' leads out of its folder"),
    "a folder": ([{**ROWS[0], "file_name": "more"}], r"file_name 'more' is none of the pictures"),
    "itself": ([{**ROWS[0], "file_name": "metadata.jsonl"}], r"is none of the pictures"),
    "nul": ([{**ROWS[0], "file_name": "b\0.png"}], r"file_name 'b\\x00\.png' does not exist"),
    "long": ([{**ROWS[0], "file_name": "b" * 5000}], r"does not exist"),
    "infinite": ([{**ROWS[0], "slant": 1e39}, *ROWS[1:]], r"line 1: 'slant' is 1e\+39, not finite in float32"),
    "64 bits": ([*ROWS[:2], {**ROWS[2], "count": 2**31}], r"line 3: 'count' is 2147483648, no integer of 32 bits"),
    "no value": ([*ROWS[:2], {**ROWS[2], "text": None}], r"line 3: 'text' is no value; columns=\.\.\. leaves it out"),
    "a list": ([*ROWS[:2], {**ROWS[2], "slant": [1]}], r"line 3: 'slant' is a list, neither text nor a number"),
    "text and number": (
        [*ROWS[:2], {**ROWS[2], "slant": "1"}],
        r"line 3: 'slant' is text, and a number at .*line 2",
    ),
    "negative class": ([{**row, "label": index - 1} for index, row in enumerate(ROWS)], r"line 1: 'label' is -1, no"),
    "broken class": ([{**row, "label": index / 2} for index, row in enumerate(ROWS)], r"must be of integers or names"),
    "unprintable class": ([{**row, "label": "a\nb"} for row in ROWS], r"'label' must be a name of printable letters"),
    "unprintable column": ([{**row, "a\nb": 1} for row in ROWS], r"line 1: column 'a\\nb' must have a name"),
    "many columns": ([{**ROWS[0], **{f"x{index}": 1 for index in range(1000)}}], r"line 1: it has 1005 columns, more"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_rows_that_are_wrong_are_named_in_one_line(what, source):
    rows, complaint = REFUSED[what]
    _write_jsonl(source, rows)
    with pytest.raises(data.DataError, match=complaint) as caught:
        data.read_metadata_folder(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


FIRST = json.dumps(ROWS[0]).encode()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (FIRST + b'\n{"file_name": "a.png",}\n', r"line 2: it is no JSON: .* at character 2[0-9]"),
        (b"[" + FIRST + b"]", r"line 1: it is no JSON object, as \{"),
        (b"[\n" + FIRST + b"\n]", r"line 1: it is no JSON: Expecting value"),
        (b'"b.png"\n', r"line 1: it is no JSON object"),
        (
            b'{"file_name": "b.png", "file_name": "a.png"}',
            r"line 1: it is no JSON that is read: 'file_name' stands",
        ),
        (b'{"file_name": "b.png", "x": NaN}', r"line 1: it is no JSON that is read: NaN is no finite number"),
        (b'{"file_name": "b.png", "x": 1e999}', r"line 1: .* 1e999 is no finite number"),
        (b'{"file_name": "b.png", "x": ' + b"9" * 5000 + b"}", r"line 1: .*it is no JSON that is read"),
        (b'{"file_name": "b.png", "x": "\\ud800"}', r"line 1: .*'x' is no text"),
        (b'{"file_name": "b.png", "\\ud800": 1}', r"line 1: column '\\ud800' must have a name"),
        (b'{"x": ' + b"[" * 100_000, r"line 1: .*nested too deeply"),
        (FIRST + b"\n" + b'{"file_name": "\xff.png"}', r"line 2: it is not text in UTF-8"),
        ("{}\n".encode("utf-16"), r"line 1: it is not text in UTF-8"),
        (FIRST + b"\n" + b" " * (2**20 + 1), r"line 2: it holds more than 1048576 bytes"),
        (b'{"file_name": "' + b"a" * 2**21 + b'"}', r"line 1: it holds more than 1048576 bytes"),
    ],
)
def test_what_is_no_text_of_json_is_named_with_its_line(content, complaint, source):
    (source / "metadata.jsonl").write_bytes(content)
    with pytest.raises(data.DataError, match=rf"metadata\.jsonl, {complaint}") as caught:
        data.read_metadata_folder(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("file_name,x\nb.png,1\na.png\n", r"line 3: it has 1 values, and the first line 2 columns"),
        ("file_name;x\nb.png;1\n", r"line 2: it has no file_name, .*, only 'file_name;x'"),
        ("x,x,file_name\n1,2,b.png\n", r"line 1: a column stands there twice, of 'x', 'x', 'file_name'"),
        ("file_name, x\nb.png, 1\n", r"line 1: column ' x' must have a name of printable letters, without spaces"),
        ("file_name,\nb.png,1\n", r"line 1: column '' must have a name"),
        ('file_name,x\nb.png,"a\n', r"line 2: it is no CSV: unexpected end of data"),
        ('file_name,x\nb.png,"a"b\n', r"line 2: it is no CSV: "),
        ("file_name,x\nb.png," + "a" * 200_000, r"line 2: it is no CSV: field larger than field limit"),
        ("file_name,x\nb.png,1\na.png,nan\nmore/c.png,2\n", r"line 3: 'x' is 'nan', no finite number"),
        ("file_name,x\nb.png,1\na.png,\nmore/c.png,2\n", r"line 3: 'x' is '', no finite number"),
        ("file_name,x\nb.png,1\na.png,-Infinity\nmore/c.png,2\n", r"line 3: 'x' is '-Infinity', no finite number"),
        ("file_name,x\nb.png,1\na.png,1e39\nmore/c.png,2\n", r"line 3: 'x' is 1e\+39, not finite in float32"),
        ('file_name,x\nb.png,"1\n2"\na.png,3\nd.png,3\n', r"line 5: file_name 'd\.png' does not exist"),
        ("file_name,x\nb.png,1\ra.png,2\r", r"line 2: it is no CSV: "),
    ],
)
def test_what_is_no_table_is_named_with_its_line(content, complaint, source):
    (source / "metadata.jsonl").unlink()
    (source / "metadata.csv").write_text(content, newline="")
    with pytest.raises(data.DataError, match=rf"metadata\.csv, {complaint}") as caught:
        data.read_metadata_folder(source)
    assert "\n" not in str(caught.value)


def test_sources_of_other_kinds_are_refused(source, tmp_path):
    with pytest.raises(data.DataError, match="is not a folder"):
        data.read_metadata_folder(tmp_path / "nowhere")
    _write_csv(source)
    with pytest.raises(data.DataError, match=r"holds both .*/metadata\.csv and .*/metadata\.jsonl; keep one"):
        data.read_metadata_folder(source)
    (source / "metadata.csv").unlink()
    (source / "metadata.jsonl").rename(source / "metadata.json")
    with pytest.raises(data.DataError, match=r"holds no metadata\.csv or metadata\.jsonl"):
        data.read_metadata_folder(source)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metadata.jsonl").touch()
    with pytest.raises(data.DataError, match=r"empty holds no picture \("):
        data.read_metadata_folder(tmp_path / "empty")


def test_links_that_lead_out_are_refused_and_links_of_folders_not_followed(source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name in ("c.png", "metadata.jsonl"):
        file = source / ("more" if name == "c.png" else "") / name
        shutil.move(file, tmp_path / "elsewhere" / name)
        file.symlink_to(tmp_path / "elsewhere" / name)
        with pytest.raises(data.DataError, match=rf"{name} is a link that leads out"):
            data.read_metadata_folder(source)
        file.unlink()
        shutil.move(tmp_path / "elsewhere" / name, file)
    (source / "loop").symlink_to(source)
    _, remarks = data.read_metadata_folder(source)
    assert remarks == [data.Remark("left out, links of folders", (source / "loop",))]
    _write_jsonl(source, [{**row, "file_name": f"loop/{row['file_name']}"} for row in ROWS])
    with pytest.raises(data.DataError, match=r"'loop/b\.png' is none of the pictures: .* in a link of a folder"):
        data.read_metadata_folder(source)


def test_pictures_are_decoded_as_those_of_class_folders(source):
    Image.new("RGB", (8, 4), (0, 0, 255)).save(source / "b.png")
    with pytest.raises(data.DataError, match=r"b\.png is 4 x 8, the first one 3 x 4; give an image size"):
        data.read_metadata_folder(source)
    splits, remarks = data.read_metadata_folder(source, image_size=2)
    what = "in colour, for which all are kept in colour, 2 gray ones too"
    assert remarks == [data.Remark(what, (source / "b.png",))]
    assert splits["all"].pixels.shape == (3, 2, 2, 3)
    assert splits["all"].pixels[:, 0, 0].tolist() == [[60] * 3, [0, 0, 255], [110] * 3]
    (source / "notes.txt").touch()
    (source / ".hidden.png").touch()
    assert [remark.files[0].name for remark in data.read_metadata_folder(source, image_size=2)[1][:2]] == [
        ".hidden.png",
        "notes.txt",
    ]
    (source / "a.png").write_bytes((source / "a.png").read_bytes()[:40])
    with pytest.raises(data.DataError, match=r"picture .*/a\.png does not read"):
        data.read_metadata_folder(source)


@pytest.mark.parametrize("name", WRITERS)
@tries(150)
@given(draws=strategies.data())
def test_a_damaged_file_gives_a_row_for_each_picture_or_one_error(name, draws, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    _write_pictures(folder)
    WRITERS[name](folder)
    file = folder / name
    file.write_bytes(draws.draw(mutations(file.read_bytes())))
    try:
        images = _read(folder)
    except data.DataError as error:
        assert "\n" not in str(error)
        return
    assert images.pixels[:, 0, 0, 0].tolist() == [_gray_of(row) for row in IN_ORDER]
    for column in images.columns.values():
        assert len(column) == 3
        assert isinstance(column, tuple) or np.isfinite(column).all()
