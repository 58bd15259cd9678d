"""The explorer's page: one file that holds all it shows, and loads nothing."""

import base64
import hashlib
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from cfgjax.guidance.rules import RULES
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.ladder.explorer import packing
from experiments.ladder.explorer.measures import Exact, Solved, exact_laws, solve_all
from experiments.ladder.explorer.scene import Scene
from experiments.ladder.laws import NUM_SETS
from experiments.ladder.problems import LABEL
from experiments.ladder.rules import OWN
from experiments.run import folder as run_folder

MOST_BYTES = 3_000_000
"""Of the page."""
NUM_TIMES = 65
"""Stops of the slider of time."""
NUM_NOISY_PATHS = 24
"""Trajectories that are drawn of samplers with noise, and of rules that are solvers themselves."""
TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = "laws.js", "states.js", "plot.js", "chart.js", "controls.js"
TITLES = {
    "classifier_free": "classifier-free",
    "cfg_zero_star": "CFG-Zero*",
    "cfg_plus_plus": "CFG++",
    "predictor_corrector": "predictor–corrector",
    "feynman_kac": "weighted particles",
    "schedule": "w rising with time",
    "zero_init": "zero-init",
    "weakened_self": "weakened self",
    "adaptive_projected_mix": "adaptive projected, mix",
    "rectified_cfg_plus_plus": "Rectified-CFG++",
    "manifold_projected": "CFG-MP",
    "manifold_projected_anderson": "CFG-MP+",
    "exponential_scale": "exponential w(t)",
    "beta_scale": "β-density w(t)",
}


def _title(rule: str) -> str:
    return TITLES.get(rule, rule.replace("_", " "))


def _paper(rule: str) -> str:
    """The rule's paper, as the library's table of rules has it; empty for a rule that is not there."""
    return RULES[rule].paper if rule in RULES else ""


def _numbers(values: np.ndarray) -> list[float | None]:
    """Numbers of four places; null for what is not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def _components(scene: Scene) -> list[dict[str, Any]]:
    """The mixture's components, each with its label."""
    mixture = scene.problem.plane
    weights = np.exp(np.asarray(mixture.component_log_probs, np.float64))
    means, covariances = (np.asarray(each, np.float64) for each in (mixture.means, mixture.covariances))
    return [
        {
            "label": label,
            "weight": float(weights[label, place]),
            "mean": means[label, place].tolist(),
            "covariance": covariances[label, place][np.triu_indices(2)].tolist(),
        }
        for label, place in np.ndindex(*weights.shape)
    ]


def _places(scene: Scene) -> list[list[int]]:
    """Of each rule the place of its rung among all, by the way to solve; -1 where it has none."""
    places = {rung: place for place, rung in enumerate(scene.rungs)}
    return [[-1 if rung is None else places[rung] for rung in scene.rungs_of(rule)] for rule in scene.rules]


def _facts(scene: Scene, exact: Exact, solved: list[Solved]) -> dict[str, Any]:
    """What the page's script is told."""
    times, ways = np.linspace(0, 1, NUM_TIMES), scene.ways
    return {
        "components": _components(scene),
        "label": LABEL,
        "alpha": [float(scene.path.alpha(t)) for t in times],
        "beta": [float(scene.path.beta(t)) for t in times],
        "numTimes": NUM_TIMES,
        "numFrames": scene.num_frames + 1,
        "numShown": solved[0].states.shape[2],
        "numNoisyPaths": NUM_NOISY_PATHS,
        "step": scene.half_width / packing.STEPS,
        "notFinite": packing.NOT_FINITE,
        "halfWidth": scene.half_width,
        "scales": scene.scales,
        "sigmas": scene.sigmas,
        "names": list(scene.rules),
        "rules": [_title(name) for name in scene.rules],
        "papers": [_paper(name) for name in scene.rules],
        "isOwn": [OWN in row.solvers for row in scene.rules.values()],
        "isPopulation": [row.is_population for row in scene.rules.values()],
        "methods": [[i for i, way in enumerate(ways) if way[0] == place] for place in range(len(scene.methods))],
        "methodNames": [method.ode for method in scene.methods],
        "places": _places(scene),
        "rungs": [
            {"tilted": _numbers(its.tilted), "labelled": _numbers(its.labelled), "evaluations": its.evaluations}
            for its in solved
        ],
        "floors": _numbers(np.asarray(exact.floors)),
        "labelledFloor": exact.labelled_floor,
    }


def _render(scene: Scene, facts: dict[str, Any], states: str) -> str:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = "\n".join((TEMPLATES / name).read_text() for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("explorer.html").render(
        script_hash=f"sha256-{digest}",
        style=Markup((TEMPLATES / "explorer.css").read_text()),
        script=Markup(script),
        facts=Markup(json.dumps(facts, separators=(",", ":")).replace("<", "\\u003c")),
        states=Markup(states),
        label=LABEL,
        about=scene.about,
        scales=scene.scales,
        sigmas=scene.sigmas,
        methods=scene.methods,
        rules=[{"title": title} for title in facts["rules"]],
        num_times=NUM_TIMES,
        num_steps=scene.num_steps,
        num_frames=scene.num_frames,
        num_measured=scene.num_measured,
        num_shown=facts["numShown"],
        num_sets=NUM_SETS,
        num_noisy_paths=NUM_NOISY_PATHS,
        num_positions=2 * packing.STEPS,
        command=cli.line() or "python -m experiments.ladder --explorer explorer.html",
        version=version("cfgjax"),
    )


def page_of(scene: Scene, exact: Exact, solved: list[Solved]) -> str:
    """The page of what was solved, with as many of the samples as fit into MOST_BYTES."""
    states = packing.quantised(np.stack([its.states for its in solved]), scene.half_width)
    count = scene.num_shown
    while True:
        own = [its._replace(states=its.states[:, :, :count]) for its in solved]
        text = _render(scene, _facts(scene, exact, own), packing.pack(states[:, :, :, :count]))
        size = len(text.encode())
        if size <= MOST_BYTES or count == 1:
            return text
        count = max(1, int(0.98 * count * MOST_BYTES / size))


def explorer(scene: Scene) -> str:
    """The page of a scene, all of it sampled and measured now."""
    exact = exact_laws(scene)
    return page_of(scene, exact, list(solve_all(scene, exact)))


def write(out: Path, scene: Scene) -> None:
    """Writes the page of a scene to a file.

    Raises:
        UserError: a folder of that name.
    """
    if out.is_dir():
        raise UserError(f"explorer must be a file, got the folder {out}")
    text = explorer(scene)
    run_folder.make_folder("out", out.parent)
    run_folder.write_atomically(out, text)
    cli.print_result(f"wrote {out}, {len(text.encode()) / 1e6:.1f} MB")
