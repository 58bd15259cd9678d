"""Untrusted prepared data sets: right, or refused in one line; they run nothing, lead nowhere, and fit."""

import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from hypothesis import given, strategies
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from cfgjax import data
from cfgjax.data.untrusted.array_record import require_bounded_chunks
from tests.support.fuzzing import mutations, tries

CORE = "tensorflow_datasets.core.features"


def _png(shape=(6, 5, 3), **options):
    stream = io.BytesIO()
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels).save(stream, "png", **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small data set of two classes, and what it holds."""
    root = tmp_path_factory.mktemp("untrusted")
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / "source" / name).mkdir(parents=True)
        for index in range(11):
            pixels = generator.integers(0, 256, (6, 5, 3), np.uint8)
            Image.fromarray(pixels).save(root / "source" / name / f"{index:02}.png")
    data.prepare("small", root / "data", source=root / "source")
    return root / "data", {split: data.load("small", split, root / "data") for split in ("train", "test")}


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy of the data set's folder, to be changed."""
    shutil.copytree(prepared[0], tmp_path / "data")
    return tmp_path / "data"


def _version(data_dir):
    return data_dir / "small" / "1.0.0"


def _change(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def _write_records(data_dir, *records):
    """The given records in the place of the training split's."""
    (file,) = _version(data_dir).glob("small-train*")
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    _change(_version(data_dir) / "dataset_info.json", lambda info: _of_train(info).update(shardLengths=[len(records)]))


def _of_train(info):
    return next(split for split in info["splits"] if split["name"] == "train")


def _record(picture, label=0):
    example = vars(tf_example_pb2)["Example"]()
    example.features.feature["image"].bytes_list.value.append(picture)
    example.features.feature["label"].int64_list.value.append(label)
    return example.SerializeToString()


FILES = ["dataset_info.json", "features.json", "label.labels.txt", "small-train*", "small-test*"]


@pytest.mark.parametrize("pattern", FILES)
@tries(60)
@given(source=strategies.data())
def test_a_damaged_file_gives_the_right_answer_or_one_error(pattern, source, prepared, tmp_path_factory):
    data_dir, expected = prepared
    (file,) = _version(data_dir).glob(pattern)
    content = file.read_bytes()
    try:
        file.write_bytes(source.draw(mutations(content[:6000])) + content[6000:])
        for split, images in expected.items():
            _assert_right_or_refused(split, images, data_dir)
    finally:
        file.write_bytes(content)


def _assert_right_or_refused(split, images, data_dir):
    try:
        found = data.load("small", split, data_dir)
    except data.DataError as error:
        assert str(error)
        assert "\n" not in str(error)
        return
    np.testing.assert_array_equal(found.pixels, images.pixels)
    np.testing.assert_array_equal(found.label, images.label)


@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("part", [None, 0, 0.3, 0.9])
def test_a_missing_or_truncated_file_gives_the_right_answer_or_one_error(pattern, part, prepared, copied):
    (file,) = _version(copied).glob(pattern)
    content = file.read_bytes()
    file.unlink()
    if part is not None:
        file.write_bytes(content[: int(part * len(content))])
    for split, images in prepared[1].items():
        _assert_right_or_refused(split, images, copied)


def _foreign(features):
    features["pythonClassName"] = "intruder.Feature"


def _foreign_inside(features):
    features["featuresDict"]["features"]["image"]["pythonClassName"] = "intruder.Feature"


def _foreign_beside(features):
    features["featuresDict"]["features"]["more"] = {"pythonClassName": "intruder.Feature", "text": {}}


def _foreign_in_sequence(features):
    inner = {"pythonClassName": "intruder.Feature", "text": {}}
    outer = {"pythonClassName": f"{CORE}.sequence_feature.Sequence", "sequence": {"feature": inner}}
    features["featuresDict"]["features"]["more"] = outer


def _foreign_in_text(features):
    inner = json.dumps({"image": {"type": "intruder.Feature", "content": {}}})
    features.clear()
    features |= {"pythonClassName": f"{CORE}.features_dict.FeaturesDict", "jsonFeature": {"json": inner}}


def _foreign_of_old(features):
    features.clear()
    features |= {"type": "intruder.Feature", "content": {}}


def _foreign_in_snake_case(features):
    features["featuresDict"]["features"]["more"] = {"python_class_name": "intruder.Feature", "text": {}}


@pytest.fixture
def intruder(tmp_path, monkeypatch):
    """A module that says that it was imported."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "intruder.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield tmp_path / "ran"
    sys.modules.pop("intruder", None)


@pytest.mark.parametrize(
    "change",
    [
        _foreign,
        _foreign_inside,
        _foreign_beside,
        _foreign_in_sequence,
        _foreign_in_text,
        _foreign_of_old,
        _foreign_in_snake_case,
    ],
)
def test_a_class_that_is_not_known_is_refused_before_its_module_is_imported(change, copied, intruder):
    _change(_version(copied) / "features.json", change)
    with pytest.raises(data.DataError, match=r"features\.json does not read"):
        data.load("small", "train", copied)
    assert not intruder.exists()
    assert "intruder" not in sys.modules


def test_classes_are_not_taken_from_the_other_file_either(copied, intruder):
    features = {"pythonClassName": "intruder.Feature", "text": {}}
    _change(_version(copied) / "dataset_info.json", lambda info: info.update(features=features))
    with pytest.raises(data.DataError, match=r"dataset_info\.json does not read: features"):
        data.load("small", "train", copied)
    assert not intruder.exists()


def test_tensorflow_datasets_would_import_the_module(copied, intruder):
    """The danger is real: without it the tests above could not fail."""
    _change(_version(copied) / "features.json", _foreign_beside)
    with pytest.raises(ValueError, match="Unrecognized FeatureConnector"):
        tfds.builder_from_directory(str(_version(copied)))
    assert intruder.exists()


def test_other_features_may_stand_beside_image_and_label(prepared, copied):
    more = {
        "id": {"pythonClassName": f"{CORE}.text_feature.Text", "text": {}},
        "size": {"pythonClassName": f"{CORE}.scalar.Scalar", "tensor": {"shape": {}, "dtype": "int64"}},
        "box": {
            "pythonClassName": f"{CORE}.bounding_boxes.BBoxFeature",
            "boundingBox": {"shape": {"dimensions": ["4"]}, "dtype": "float32", "bboxFormat": "REL_YXYX"},
        },
        "ids": {
            "pythonClassName": f"{CORE}.sequence_feature.Sequence",
            "sequence": {"feature": {"pythonClassName": f"{CORE}.text_feature.Text", "text": {}}, "length": "-1"},
        },
    }
    _change(_version(copied) / "features.json", lambda features: features["featuresDict"]["features"].update(more))
    np.testing.assert_array_equal(data.load("small", "train", copied).pixels, prepared[1]["train"].pixels)


def _image(features):
    return features["featuresDict"]["features"]["image"]["image"]


def _label(features):
    return features["featuresDict"]["features"]["label"]["classLabel"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda features: features.clear(), "pythonClassName"),
        (lambda features: features["featuresDict"]["features"].pop("label"), "no image and label"),
        (lambda features: features["featuresDict"]["features"].clear(), "no image and label, only nothing"),
        (lambda features: _label(features).update(numClasses="-3"), "numClasses"),
        (lambda features: _label(features).update(numClasses="9" * 30), "numClasses"),
        (lambda features: _label(features).update(numClasses="9" * 5000), "numClasses"),
        (lambda features: _label(features).update(numClasses=None), "numClasses"),
        (lambda features: _label(features).update(numClasses=1000), "names 2 labels, and features.json says 1000"),
        (lambda features: _image(features).update(shape={"dimensions": ["6", "5", "70000"]}), "dimensions"),
        (lambda features: _image(features).update(shape={"dimensions": ["6", "0", "3"]}), "must be of type uint8"),
        (lambda features: _image(features).update(shape={"dimensions": ["6", "5"]}), "must be of type uint8"),
        (lambda features: _image(features).update(shape={"dimensions": ["6", "5", "4"]}), "must be of type uint8"),
        (lambda features: _image(features).update(shape={"dimensions": 3 * ["60000"]}), "must be of type uint8"),
        (lambda features: _image(features).update(shape=["6", "5", "3"]), "shape"),
        (lambda features: _image(features).update(dtype="float32"), "must be of type uint8"),
        (lambda features: _image(features).update(encodingFormat="eps"), "encodingFormat"),
        (lambda features: _image(features).update(more=1), "more"),
        (lambda features: features["featuresDict"]["features"].update({"../x": {}}), "featuresDict"),
        (lambda features: features.update(featuresDict=[]), "featuresDict"),
    ],
)
def test_features_that_are_not_allowed_are_refused(change, complaint, copied):
    _change(_version(copied) / "features.json", change)
    with pytest.raises(data.DataError, match=complaint):
        data.load("small", "train", copied)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda info: info.update(version="2.0.0"), "is of version '2.0.0'"),
        (lambda info: info.update(name="../../secret"), "name"),
        (lambda info: info.update(splits=7), "splits"),
        (lambda info: info.update(moduleName=7), "does not read as a data set"),
        (lambda info: info.update(unknown=7), "unknown"),
        (lambda info: _of_train(info).update(name="../train"), "name"),
        (lambda info: _of_train(info).update(filepathTemplate="../../{SPLIT}"), "filepathTemplate"),
        (lambda info: _of_train(info).update(filepathTemplate="/etc/{SPLIT}"), "filepathTemplate"),
        (lambda info: _of_train(info).update(filepathTemplate="{WHAT}"), "small"),
        (lambda info: _of_train(info).update(filepathTemplate=".."), "small"),
        (lambda info: _of_train(info).update(shardLengths=["-1"]), "shardLengths"),
        (lambda info: _of_train(info).update(shardLengths=["9" * 18]), "shardLengths"),
        (lambda info: _of_train(info).update(shardLengths=[268435456]), r"holds 20 records, and .* says 268435456"),
        (lambda info: _of_train(info).update(shardLengths=[19]), "holds 20 records"),
        (lambda info: _of_train(info).update(shardLengths=["20", "20"]), "does not exist"),
        (lambda info: _of_train(info).update(shardLengths=[]), "empty"),
    ],
)
def test_a_description_that_is_not_allowed_is_refused(change, complaint, copied):
    _change(_version(copied) / "dataset_info.json", change)
    with pytest.raises(data.DataError, match=complaint):
        data.load("small", "train", copied)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"a": 1, "a": 2}', "'a' stands there twice"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": 1e999}', "1e999 is no finite number"),
        (b"{" + b" " * 2**24 + b"}", "more than 16777216 bytes"),
        (b"[]", "valid dictionary"),
    ],
)
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_what_is_no_plain_json_is_refused(name, content, complaint, copied):
    (_version(copied) / name).write_bytes(content)
    with pytest.raises(data.DataError, match=rf"{name}.*{complaint}"):
        data.load("small", "train", copied)


@pytest.mark.parametrize("pattern", FILES)
def test_a_link_that_leads_out_is_refused(pattern, copied, tmp_path):
    (file,) = _version(copied).glob(pattern)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(data.DataError, match="is a link that leads out"):
        for split in ("train", "test"):
            data.load("small", split, copied)


def test_a_folder_that_leads_out_is_refused_and_a_link_inside_is_not(prepared, copied, tmp_path):
    (file,) = _version(copied).glob("small-train*")
    file.rename(copied / "moved")
    file.symlink_to(copied / "moved")
    np.testing.assert_array_equal(data.load("small", "train", copied).pixels, prepared[1]["train"].pixels)
    (copied / "small").rename(tmp_path / "small")
    (copied / "small").symlink_to(tmp_path / "small")
    with pytest.raises(data.DataError, match="is a link that leads out"):
        data.load("small", "train", copied)


@pytest.mark.parametrize(
    "name", ["../data/small", "", "small\0", "/etc", "small/../small", "small\n", "Small", "a/b/c"]
)
def test_a_name_that_could_leave_the_folder_is_refused(name, copied):
    with pytest.raises(data.DataError, match="name must be of small letters"):
        data.load(name, "train", copied)
    with pytest.raises(data.DataError, match="name must be of small letters"):
        data.prepare(name, copied)


@pytest.mark.parametrize(
    "split", ["", "train\0", "../train", "train[", "train[:5%", "train[a:b]", "+", "x" * 300, "all("]
)
def test_what_is_no_split_is_refused(split, copied):
    with pytest.raises(data.DataError, match="has no split"):
        data.load("small", split, copied)


def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(copied):
    for pattern in FILES[:4]:
        (file,) = _version(copied).glob(pattern)
        content = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(data.DataError, match="not a regular file"):
            data.load("small", "train", copied)
        file.unlink()
        file.write_bytes(content)


def _eps():
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n%%EndComments\nshowpage\n%%EOF\n"


def _bomb():
    """A picture of nine million pixels in nine kilobytes."""
    stream = io.BytesIO()
    Image.new("L", (3000, 3000)).save(stream, "png", compress_level=9)
    return stream.getvalue()


def _sixteen_bits():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(stream, "png")
    return stream.getvalue()


def _wrong_sum():
    """A picture whose pixels' check sum is wrong."""
    good = bytearray(_png())
    place = good.index(b"IDAT") + 12
    good[place] ^= 1
    return bytes(good)


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (b"", "record 1 of split 'train'.* holds no image and label"),
        (b"\xff" * 50, "record 1 .* holds no image and label"),
        (_record(b""), "record 1 .*: it is no PNG, JPEG"),
        (_record(_png()[:-20]), "record 1 .*: it is cut off"),
        (_record(_wrong_sum()), "record 1 .*: its check sum is wrong"),
        (_record(_eps()), "record 1 .*: it is no PNG, JPEG"),
        (_record(_png((6, 6, 3))), "its picture is 6 x 6, not 6 x 5"),
        (_record(_bomb()), "its picture is 3000 x 3000, not 6 x 5"),
        (_record(_sixteen_bits()), "of mode I;16, not 3 channels of 8 bits"),
        (_record(_png(), 2), r"its label is 2, of 0\.\.1"),
        (_record(_png(), -1), r"its label is -1, of 0\.\.1"),
        (_record(_png(), 2**62), r"its label is 4611686018427387904, of 0\.\.1"),
        (bytes(2**26), "1 records of it unpack to 67108864 bytes"),
    ],
    ids=[
        "empty", "noise", "no picture", "cut off", "wrong sum", "postscript", "other size", "bomb", "sixteen bits",
        "label K", "label -1", "large label", "too large",
    ],
)  # fmt: skip
def test_a_record_that_is_not_as_declared_is_named_and_refused(record, complaint, copied):
    _write_records(copied, _record(_png()), record)
    with pytest.raises(data.DataError, match=complaint) as caught:
        data.load("small", "train", copied)
    assert "\n" not in str(caught.value)


def test_gray_and_palette_pictures_in_a_set_of_colour_read_as_colour(copied):
    palette = io.BytesIO()
    Image.new("RGB", (5, 6), (10, 200, 30)).quantize(4).save(palette, "png")
    _write_records(copied, _record(_png()), _record(_png((6, 5, 1))), _record(palette.getvalue()))
    pixels = data.load("small", "train", copied).pixels
    np.testing.assert_array_equal(pixels[1], np.broadcast_to(np.arange(30).reshape(6, 5, 1), (6, 5, 3)))
    np.testing.assert_array_equal(pixels[2, 3, 3], (10, 200, 30))


@pytest.mark.parametrize(
    "options",
    [
        "group_size:1",
        "group_size:7",
        "group_size:1,uncompressed",
        "group_size:3,brotli:6",
        "group_size:50,transpose:true",
        "group_size:1,pad_to_block_boundary:true",
    ],
)
@tries(8)
@given(lengths=strategies.lists(strategies.sampled_from([0, 1, 100, 65_000, 65_536, 200_000]), min_size=1, max_size=60))
def test_the_headers_of_every_honest_file_pass_and_tell_its_bound(options, lengths, tmp_path):
    """Whatever the records' sizes, groups and packing; a bound one record goes beyond is noticed where it is alone."""
    generator = np.random.default_rng(0)
    writer = array_record_module.ArrayRecordWriter(str(tmp_path / "file"), options)
    for length in lengths:
        writer.write(generator.bytes(length))
    writer.close()
    require_bounded_chunks(tmp_path / "file", max(*lengths, 1000))
    if "group_size:1," in f"{options}," and max(lengths) > 1000:
        with pytest.raises(data.DataError, match=f"1 records of it unpack to {max(lengths)} bytes"):
            require_bounded_chunks(tmp_path / "file", max(lengths) - 1)


@pytest.fixture(scope="module")
def one_record(prepared, tmp_path_factory):
    """A data set whose second training record is written anew."""
    folder = tmp_path_factory.mktemp("one") / "data"
    shutil.copytree(prepared[0], folder)
    return folder


@tries(150)
@given(content=mutations(_record(_png(), 1)))
def test_a_damaged_record_gives_the_right_image_or_one_error(content, one_record):
    """Written anew, the record's file is sound: only the picture's own check sums can tell a wrong byte."""
    _write_records(one_record, _record(_png()), content)
    try:
        images = data.load("small", "train", one_record)
    except data.DataError as error:
        assert "\n" not in str(error)
        return
    np.testing.assert_array_equal(images.pixels, np.broadcast_to(np.arange(90).reshape(6, 5, 3), (2, 6, 5, 3)))
    assert set(images.label.tolist()) <= {0, 1}


def test_more_images_than_memory_are_refused_before_any_is_kept(copied, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 20 if name == "SC_PAGE_SIZE" else 10)
    with pytest.raises(data.DataError, match="would take 1800 bytes, more than the 200 of this machine's memory"):
        data.load("small", "train", copied)


def test_the_version_that_is_read_is_the_highest(prepared, copied):
    shutil.copytree(_version(copied), copied / "small" / "10.0.0")
    _change(copied / "small" / "10.0.0" / "dataset_info.json", lambda info: info.update(version="10.0.0"))
    _version(copied).joinpath("features.json").write_text("{}")
    np.testing.assert_array_equal(data.load("small", "train", copied).pixels, prepared[1]["train"].pixels)
