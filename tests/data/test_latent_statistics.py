"""Statistics of latents: those of all numbers, whatever the parts, and read back as they were written."""

import json

import numpy as np
import pytest

from cfgjax import data
from cfgjax.data.latent_statistics import merged, sums_of


def test_merged_sums_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    latent = rng.normal([100, -2, 0], [0.5, 3, 1], (50, 4, 3, 3)).astype(np.float32)
    deviation = rng.uniform(0, 2, latent.shape).astype(np.float32)
    parts = [slice(0, 7), slice(7, 8), slice(8, 50)]
    found = merged(sums_of(latent[part]) for part in parts)
    assert found.count == 50 * 4 * 3
    np.testing.assert_allclose(found.mean, latent.mean((0, 1, 2), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.std, latent.std((0, 1, 2), dtype=np.float64), rtol=1e-12)
    drawn = merged(sums_of(latent[part], deviation[part]) for part in parts)
    added = np.square(deviation.astype(np.float64)).mean((0, 1, 2))
    np.testing.assert_allclose(drawn.std**2, found.std**2 + added, rtol=1e-12)
    np.testing.assert_array_equal(drawn.mean, found.mean)


def test_statistics_are_read_as_they_were_written(tmp_path):
    assert data.read_statistics(tmp_path) is None
    told = data.Statistics(3, np.array([1 / 3, -2e-9]), np.array([0.1, 5.5]))
    data.write_statistics(tmp_path, told)
    found = data.read_statistics(tmp_path)
    assert found is not None
    assert (found.count, found.mean.tolist(), found.std.tolist()) == (3, told.mean.tolist(), told.std.tolist())


def test_a_folder_s_statistics_are_of_all_its_rows(tmp_path):
    latent = np.random.default_rng(1).normal(3, 2, (600, 2, 2, 2)).astype(np.float16)
    np.save(tmp_path / "latents.npy", latent)
    np.save(tmp_path / "labels.npy", np.zeros(600, np.int64))
    found = data.open_latents(tmp_path).statistics()
    assert found.count == 600
    np.testing.assert_allclose(found.mean, latent.mean((0, 1, 2), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.std, latent.std((0, 1, 2), dtype=np.float64), rtol=1e-12)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "does not read as statistics"),
        ("[]", "it must hold count, mean and std"),
        (json.dumps({"count": 0, "mean": [1], "std": [1]}), "count must be an integer from 1"),
        (json.dumps({"count": True, "mean": [1], "std": [1]}), "count must be an integer from 1"),
        (json.dumps({"count": 3, "mean": [1], "std": [1, 2]}), "mean has 1 numbers, std 2"),
        (json.dumps({"count": 3, "mean": [], "std": []}), "mean must be a list of numbers"),
        (json.dumps({"count": 3, "mean": ["1"], "std": [1]}), "mean must be a list of numbers"),
        (json.dumps({"count": 3, "mean": [1], "std": [-1]}), "std must be a list of numbers"),
        ('{"count": 3, "mean": [NaN], "std": [1]}', "NaN is no finite number"),
        ('{"count": 3, "mean": [1e999], "std": [1]}', "1e999 is no finite number"),
    ],
)
def test_other_files_are_refused_in_one_line(content, complaint, tmp_path):
    (tmp_path / "statistics.json").write_text(content)
    with pytest.raises(data.DataError, match=complaint) as caught:
        data.read_statistics(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_link_that_leads_out_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "outside.json").write_text("{}")
    (tmp_path / "folder" / "statistics.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(data.DataError, match="is a link that leads out"):
        data.read_statistics(tmp_path / "folder")
