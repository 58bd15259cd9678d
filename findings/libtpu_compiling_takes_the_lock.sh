#!/usr/bin/env bash
# libtpu 0.0.42.1: two processes that only compile for a TPU, on a machine without one, cannot run at a time.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 libtpu==0.0.42.1
export JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost
cat > "$place/describe.py" <<'EOF'
import sys

from jax.experimental import topologies

print(len(topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices), "devices described", flush=True)
sys.stdin.read()
EOF
"$place/venv/bin/python" - "$place" <<'EOF'
import os
import platform
import subprocess
import sys
from importlib.metadata import version

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "libtpu")))
command = [sys.executable, f"{sys.argv[1]}/describe.py"]
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
first = subprocess.Popen(command, **pipes)
print("\nfirst process:", first.stdout.readline().strip())
second = subprocess.run(command, input="", capture_output=True, text=True)
reason = second.stderr.strip().splitlines()[-1] if second.stderr else ""
print("second process beside it: exit code", second.returncode, "-", next((line for line in second.stderr.splitlines() if "lockfile" in line), reason)[:160])
allowed = subprocess.run(command, input="", capture_output=True, text=True, env=os.environ | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"})
print("with ALLOW_MULTIPLE_LIBTPU_LOAD=1: exit code", allowed.returncode, "-", allowed.stdout.strip())
first.communicate("")
assert second.returncode != 0 and "lockfile" in second.stderr
assert allowed.returncode == 0 and "8 devices" in allowed.stdout
print("\nA user who compiles for two slices side by side gets an error about a device that is in use, where there is none.")
EOF
