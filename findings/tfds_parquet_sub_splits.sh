#!/usr/bin/env bash
# tensorflow-datasets 4.9.10 with pyarrow 26.0.1: as_data_source of parquet gives the whole split for every sub-split.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check tensorflow-datasets==4.9.10 pyarrow==26.0.1 numpy==2.4.6 array_record==0.8.6
"$place/venv/bin/python" - <<'EOF'
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

names = ("tensorflow-datasets", "pyarrow", "array_record")
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in names))


tfds.disable_progress_bar()


class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(tempfile.mkdtemp())

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"id": np.int64}))

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield from ((i, {"id": i}) for i in range(10))


print("\na data set of 10 examples, no TensorFlow: ids that as_data_source gives")
for kind in ("array_record", "parquet"):
    builder = Tiny(data_dir=tempfile.mkdtemp(), file_format=kind)
    builder.download_and_prepare()
    found = {}
    for split in ("train[:50%]", "train[50%:]"):
        found[split] = sorted(int(example["id"]) for example in builder.as_data_source(split))
        print(f"  {kind:12} {split}: {found[split]}, info says {builder.info.splits[split].num_examples} examples")
    overlap = set(found["train[:50%]"]) & set(found["train[50%:]"])
    assert (len(overlap), len(found["train[:50%]"])) == ((10, 10) if kind == "parquet" else (0, 5))
print("\nA user who holds out train[90%:] validates on pictures that the network was trained on.")
EOF
