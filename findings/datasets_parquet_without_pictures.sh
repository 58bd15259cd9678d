#!/usr/bin/env bash
# datasets 5.2.0: to_parquet of an image folder writes the pictures' local paths, and no picture.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6 pillow==13.0.0
"$place/venv/bin/python" - <<'EOF'
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

place = tempfile.mkdtemp()
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": place}
import datasets
import numpy as np
import pyarrow.parquet
from PIL import Image

names = ("datasets", "pyarrow", "pillow")
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in names))
datasets.disable_progress_bars()
noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
for name, picture in zip("ab", noise):
    folder = Path(place, "in", name)
    folder.mkdir(parents=True)
    Image.fromarray(picture).save(folder / "0.png")


def written(data):
    file = f"{place}/out.parquet"
    data.to_parquet(file)
    return os.path.getsize(file), pyarrow.parquet.read_table(file).column("image").to_pylist()


print("\na folder of two pictures of 12 kB each, written by to_parquet:")
folder = datasets.load_dataset("imagefolder", data_dir=f"{place}/in", split="train")
size, rows = written(folder)
print(f"  as load_dataset('imagefolder') gives it: {size} bytes, bytes {[row['bytes'] for row in rows]}, path in the local folder:",
      all(row["path"].startswith(place) for row in rows))
assert size < 5_000 and all(row["bytes"] is None and row["path"].startswith(place) for row in rows)
features = datasets.Features({"image": datasets.Image()})
size, rows = written(datasets.Dataset.from_dict({"image": [picture for picture in noise]}, features=features))
print(f"  the same pictures given as arrays:       {size} bytes, bytes {[len(row['bytes']) for row in rows]}")
assert size > 20_000
print("\nA user who writes a data set to parquet to move it moves a list of paths, and learns so on the other machine.")
EOF
