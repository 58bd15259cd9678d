"""The page of a run: conventions first, a table for each kind of call, what was seen in words, figures found again."""

import re
from collections.abc import Iterable

from experiments.conformance.records import Row
from experiments.conformance.registry import LIBRARIES
from experiments.conformance.tables import TABLES, call_cell, figure, raised, table

HEAD = """# Conformance of other libraries
Guiders and samplers of released libraries, called as their documentation says and passed through `cfgjax.verify`: what
each keeps, by version. **A convention that differs is no fault**, nor is a rule that is meant to be another one: the
page says which convention it is, so that numbers can be carried over. Where something looks unmeant, the call that
shows it stands beside it, and a script in `findings/` that runs the library alone, where there is one. Versions change:
run it again before you rely on a row.

{summary}

## How to read it
A tick is a check that is passed; a number is what was measured where it is not, and "-" was not asked. All runs are on
exact fields of mixtures of Gaussians, in single precision, at one seed.

{columns}

## Run it again
```
.venv/bin/python -m experiments.conformance --libraries azula torchcfm
.venv/bin/python -m experiments.conformance --libraries diffusers --versions diffusers=diffusers-0.43.0-py3-none-any.whl
```
Nothing of these libraries is needed beforehand: an environment for PyTorch, one for newer JAX (Python 3.12) and a
folder for each library are made by pip below `--environments`. Where the index has no PyTorch for CPUs alone, name
one that has in pip's `PIP_EXTRA_INDEX_URL`, or it is several GB. A call whose checks
fail otherwise than is known is named in one line, and the exit code is 4 then; `--against` an older `conformance.jsonl`
names what has changed since.
"""

COLUMNS = (
    (
        "w = 0, w = 1, other w",
        "classifier-free guidance $u_\\varnothing + w (u_y - u_\\varnothing)$ at seven scales, relative error; of a "
        "rule that is meant to differ w = 1 alone",
        "1e-4",
    ),
    (
        "slope at 1, at 0",
        "the change from w to w ± 0.001, over that of plain guidance: 1,000 for a jump by the difference of both sides",
        "10",
    ),
    (
        "other space",
        "the same predictions given as velocity, noise or denoised: is it the same guided field? A rule that is not "
        "linear acts in one space, its paper's",
        "1e-3",
    ),
    ("batch", "each row alone against the rows in one batch", "1e-5"),
    ("again", "a second call with the same arguments", "1e-6"),
    ("inputs", "changed by the call", "0"),
    ("end, limit", "the end of the flow in 64 steps; the limit of ever smaller steps", "0.05; 0.002"),
    ("order", "the measured order, of the claimed one", "0.35 less"),
    ("moments", "means and covariances of 32,768 samples by label, whitened, by the number of steps", "0.18"),
)

LEFT_OUT = """## Not asked here
- **diffusers' DiTPipeline**: at `guidance_scale` 0, 0.5 and 1 it gives the same, labelled picture, as it guides above 1
  alone. Seen with a tiny random network and autoencoder; it cannot be called without both.
- **The hooks of diffusers' AutoGuidance, SkipLayer, PerturbedAttention and SmoothedEnergy guidance**, which make the
  third prediction inside a transformer: how predictions are combined is asked, how they are made is not.
- **sbi's posteriors**, which must be trained: `findings/sbi_flow_matching_guidance.sh`. **Posterior samplers** of azula
  and diffuse-jax: `findings/azula_posterior_samplers.sh`, `findings/diffuse_jax_posteriors.sh`.
- **torchsde, diffrax, torchdiffeq and k-diffusion** solve given equations and know no guidance. diffrax is measured in
  [benchmarks](benchmarks.md), the seeds of torchsde in `findings/torch_seed_does_not_seed_numpy_plans.sh`; torchdiffeq
  is what flow_matching runs above.
- **Metrics** (prdc, torch-fidelity, clean-fid) guide and sample nothing.

## Add a library
1. A row in `LIBRARIES` of `experiments/conformance/registry.py`: its distribution, version, base and conventions.
2. `experiments/conformance/libraries/NAME.py` with `RECORDS`, by the forms of `bridge.py`: a guider is a function
   (sides, w, x, t) of batches, a sampler (velocity, x, n_steps, seed), both of NumPy arrays in cfgjax's time; of a
   library in JAX they may be traced (`jax_bridge.py`). What keeps memory is made inside the call.
3. Checks that are known to fail are named in the record, with one sentence on what is seen.
"""


def _with_findings(remark: str) -> str:
    return re.sub(r"\[`(\w+)`\]", r"(`findings/\1.sh`)", remark)


def _remarks(rows: list[Row]) -> str:
    calls: dict[str, list[str]] = {}
    for row in rows:
        why = raised(row)
        remark = _with_findings(row.remark) + (f" What is raised or found: *{why}*." if why else "")
        if remark:
            calls.setdefault(remark.strip(), []).append(call_cell(row))
    return "\n".join(f"- {', '.join(dict.fromkeys(names))}: {remark}" for remark, names in calls.items())


def _library(name: str, rows: list[Row]) -> str:
    first = rows[0]
    parts = [
        f"## {name} {first.version}",
        f"Run on {first.date}, Python {first.python}, {first.framework}.",
    ]
    for row in rows:
        if row.kind == "run":
            parts.append(f"**Not run to its end**: {row.findings[0].cause}.")
    for kind, (_, columns, cells) in TABLES.items():
        lines = [cells(row) for row in rows if row.kind == kind]
        if lines:
            parts.append(table(columns, lines))
    if remarks := _remarks([row for row in rows if row.kind != "run"]):
        parts.append(remarks)
    if figures := [figure(row) for row in rows if row.kind == "figure"]:
        parts.append(table(("call", "figures, those of November 2026 → now"), figures))
    return "\n\n".join(parts)


def _figures(rows: Iterable[Row]) -> tuple[int, int]:
    """Figures that were found again, and all."""
    found = [finding.is_passed for row in rows if row.kind == "figure" for finding in row.findings]
    return sum(found), len(found)


def _summary(by_library: dict[str, list[Row]]) -> str:
    everything, lines = [row for rows in by_library.values() for row in rows], []
    for name, rows in by_library.items():
        same, num_figures = _figures(rows)
        anchor, calls = f"[{name}](#{anchor_of(name, rows[0].version)})", sum(row.kind in TABLES for row in rows)
        figures = f"{same} of {num_figures}" if num_figures else "-"
        lines.append([anchor, rows[0].version, LIBRARIES[name].conventions, str(calls), figures])
    same, num_figures = _figures(everything)
    machines = sorted({row.machine for row in everything if row.machine != "-"})
    text = (
        f"{sum(row.kind in TABLES for row in everything)} calls of {len(by_library)} libraries; of {num_figures} "
        f"figures measured before, {same} were found again. Run under {' and '.join(machines) or 'nothing'}."
    )
    columns = ("library", "version", "conventions", "calls", "figures found again")
    return f"{text}\n\n{table(columns, lines)}"


def anchor_of(name: str, version: str) -> str:
    """The anchor of a library's heading."""
    return re.sub(r"[^\w-]", "", f"{name} {version}".lower().replace(" ", "-"))


def page(rows: Iterable[Row]) -> str:
    """The page of rows of any libraries."""
    by_library: dict[str, list[Row]] = {}
    for row in rows:
        by_library.setdefault(row.library, []).append(row)
    by_library = {name: by_library[name] for name in LIBRARIES if name in by_library}
    columns = table(("column", "what is asked", "allowed"), map(list, COLUMNS))
    head = HEAD.replace("{summary}", _summary(by_library)).replace("{columns}", columns)
    return "\n".join([head, *(f"{_library(name, each)}\n" for name, each in by_library.items()), LEFT_OUT])
