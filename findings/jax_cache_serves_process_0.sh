#!/usr/bin/env bash
# jax 0.10.2 on CPUs: of several processes only process 0 writes the persistent compilation cache, and only it reads what is there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 numpy==2.4.6
cat > "$place/program.py" <<'EOF'
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

index, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_compilation_cache_dir", folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
each = NamedSharding(Mesh(jax.devices(), "hosts"), PartitionSpec("hosts"))
x = jax.make_array_from_process_local_data(each, np.ones((1, 8), np.float32))
total = jax.jit(lambda x: jnp.tanh(x).sum(), out_shardings=NamedSharding(each.mesh, PartitionSpec()))(x)
jax.block_until_ready(total)
print("result", json.dumps({"process": index, "hits": len(hits)}))
EOF
cat > "$place/starts.py" <<'EOF'
import json
import platform
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

place = Path(sys.argv[1])
print("python", platform.python_version(), "jax", version("jax"))


def start(folders):
    """Hits of processes 0 and 1, which run one program on an array that is sharded over both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    each = [[sys.executable, place / "program.py", str(index), str(port), folders[index]] for index in range(2)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for words in each]
    outputs = [process.communicate(timeout=120)[0] for process in started]
    rows = [json.loads(line.removeprefix("result ")) for text in outputs for line in text.splitlines() if line.startswith("result ")]
    return [row["hits"] for row in sorted(rows, key=lambda row: row["process"])]


def files(folder):
    return len([each for each in Path(folder).glob("*-cache")])


shared = [str(place / "shared")] * 2
own = [str(place / "own-0"), str(place / "own-1")]
print("\nthe same program on two processes, started twice; hits of [process 0, process 1]")
for name, folders in (("one folder for both", shared), ("a folder for each", own)):
    found = [start(folders) for _ in range(2)]
    held = [files(folder) for folder in folders]
    print(f"  {name:20} first start {found[0]} second start {found[1]} programs in the folders afterwards {held}")
    assert found[0] == [0, 0], found
    assert found[1] == [1, 0], found
    assert held == ([1, 1] if folders is shared else [1, 0]), held
print("\nA user who restarts a job of several hosts on a warm cache waits for every other host to compile all of it again.")
EOF
timeout 300 "$place/venv/bin/python" "$place/starts.py" "$place"
