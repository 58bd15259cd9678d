#!/usr/bin/env bash
# tensorboardX 2.6.5: float pictures outside [0, 1] wrap around, and whole numbers above 2^24 change.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check tensorboardX==2.6.5 numpy==2.4.6 pillow==13.0.0
"$place/venv/bin/python" - <<'EOF'
import io
import platform
import struct
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("tensorboardX", "numpy", "pillow")))
folder = tempfile.mkdtemp()
given = {"-0.5": -0.5, "0": 0.0, "1": 1.0, "1.01": 1.01, "1.5": 1.5}
with SummaryWriter(folder) as writer:
    for name, value in given.items():
        writer.add_image(name, np.full((2, 2, 3), value, np.float32), dataformats="HWC")
    writer.add_scalar("count", 2**24 + 1)

data, at, found = next(Path(folder).iterdir()).read_bytes(), 0, {}
while at < len(data):
    (length,) = struct.unpack("<Q", data[at : at + 8])
    for value in Event.FromString(data[at + 12 : at + 12 + length]).summary.value:
        if value.HasField("image"):
            found[value.tag] = Image.open(io.BytesIO(value.image.encoded_image_string)).getpixel((0, 0))[0]
        else:
            found[value.tag] = value.simple_value
    at += 16 + length
print("\npicture of one float value -> pixel written (of 0..255):", {name: found[name] for name in given})
print(f"scalar {2**24 + 1} -> {found['count']:.0f}")
assert found == {"-0.5": 129, "0": 0, "1": 255, "1.01": 1, "1.5": 126, "count": 2.0**24}
print("\nA user who logs samples that leave [0, 1] by a little sees black specks in white and light ones in black.")
EOF
