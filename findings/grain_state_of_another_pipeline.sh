#!/usr/bin/env bash
# grain 0.2.18: the state of a pipeline is a number; set_state of another seed or length is accepted and goes on there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check grain==0.2.18 numpy==2.4.6
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

from grain import MapDataset

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("grain", "numpy")))


def rest(seed, length, state):
    iterator = iter(MapDataset.source(range(length)).shuffle(seed=seed).to_iter_dataset())
    iterator.set_state(state)
    return list(iterator)


first = iter(MapDataset.source(range(10)).shuffle(seed=1).to_iter_dataset())
seen = [next(first) for _ in range(7)]
state = first.get_state()
print(f"\nseven of ten examples in the order of seed 1: {seen}; state {state}")
assert state == {"next_index": 7}
same, other, longer = rest(1, 10, state), rest(99, 10, state), rest(1, 20, state)
print("  the rest by the same pipeline:    ", same)
print("  by one of seed 99:                ", other, "seen before:", sorted(set(other) & set(seen)))
print("  by one of seed 1 and 20 examples: ", longer)
assert sorted(seen + same) == list(range(10))
assert set(other) & set(seen) and len(longer) == 13
print("\nA user who resumes with another seed or data set sees examples twice and others never, without a word.")
EOF
