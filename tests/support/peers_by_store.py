"""Figures of processes by JAX's key-value store, sent at once: what ``peers`` sends with its heartbeat."""

import json

import jax
from jax._src.distributed import global_state

from experiments.runtime import peers


def _report(figures):
    global_state.client.key_value_set(f"figures/{jax.process_index()}", json.dumps(figures), allow_overwrite=True)


def _reports():
    found = dict(global_state.client.key_value_dir_get("figures/"))
    return [json.loads(found.get(f"figures/{index}", "{}")) for index in range(jax.process_count())]


def install():
    """Has ``peers`` send figures so."""
    peers.report, peers.reports = _report, _reports
