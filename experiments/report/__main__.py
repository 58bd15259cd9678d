"""Write one page about a run: its curves, samples, metrics, settings, versions and commands, as RUN/report.html.

The page holds all it shows: it needs no network, and no script but the one that moves the sliders of w. A run that is
unfinished, or diverged, has a page, too.
"""

import base64
import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
import tyro
from markupsafe import Markup

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.schema import ADAPTER
from experiments.report import html as html_tables
from experiments.report import read_run, sliders, stored_latents, svg
from experiments.report.pictures import embedded
from experiments.report.read_run import Findings, Record
from experiments.run import folder as run_folder
from experiments.run import launches
from experiments.run.autoencoder import decoder_of
from experiments.tasks.latent_pictures import warn_of_other_weights
from experiments.tasks.registry import facts_of

MOST_SAMPLE_GRIDS = 12
"""Sample grids of the course of training that a page shows."""
MOST_STARTS = 100
TEMPLATES = Path(__file__).parent / "templates"
HEADLINES = "recogniser test accuracy", "relative error, labelled", "relative error, null"
MOST_NORMS = 12
RECONSTRUCTIONS = "Held-out pictures (upper rows) and what the means of their latents are decoded to (lower)."
DESCRIPTIONS = {
    "samples.png": "Samples: a row for each label or other condition, a column for each w, one noise along a row.",
    "densities.png": "Guided densities of label 0 by the exact and the learned field, over the true density (red).",
    "curves.png": "What was measured of the samples along w, and fidelity against coverage; dotted: real images.",
    "residuals.png": "How far the labelled field is from the one that Bayes' rule makes of the classifier, by time.",
    "classifier.png": "Accuracy and calibration error of the noisy classifier on held-out images, by time.",
}


@dataclass(frozen=True)
class Options:
    """Which run, and where to."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    out: Annotated[Path | None, optional("FILE", "report.html in the run's folder")] = None
    """File to write."""
    autoencoder: Annotated[Path | None, optional("PATH", "latents are not shown")] = None
    """Of a run of latents: the autoencoder, to show as pictures what was drawn without it."""


def _status(found: Record) -> str:
    """One line on how far the run came."""
    done, wanted = int(svg.last(found.rows, "step")) if found.rows else 0, found.experiment.num_steps
    if done >= wanted:
        return f"finished: {wanted} steps" if found.findings[""].metrics else f"trained {wanted} steps, not measured"
    if found.divergence:
        return (
            f"diverged: losses or gradients not finite from step {html_tables.text_of(found.divergence.get('step'))} on"
        )
    if found.experiment.preset.startswith("published_"):
        return "published weights, not trained here"
    return f"unfinished: step {done} of {wanted}"


def _headline(found: Record) -> dict[str, str]:
    """The few numbers at the top."""
    shown = {"status": _status(found), "objective": found.experiment.objective, "path": found.experiment.path}
    for name, title in (("loss", "last loss"), ("held_out_loss", "last held-out loss")):
        value = svg.last(found.rows, name)
        if value == value:
            shown[title] = f"{value:.4g}"
    single, _ = html_tables.of_metrics(found.findings[""].metrics)
    return shown | {name: value for name, value in single.items() if name in HEADLINES}


def _measured(name: str, findings: Findings) -> dict[str, Any]:
    """A section of what was measured."""
    told = DESCRIPTIONS | ({"samples.png": RECONSTRUCTIONS} if "reconstruction" in findings.metrics else {})
    single, its_tables = html_tables.of_metrics(findings.metrics)
    pictures = [(file, told[file], embedded(content)) for file, content in findings.pictures.items()]
    title = name.capitalize() if name else "Samples and metrics"
    return {
        "title": title,
        "single": single,
        "tables": its_tables,
        "sliders": sliders.sliders_of(findings.by_scale, findings.labels),
        "pictures": pictures,
        "others": findings.others,
    }


def _environment(found: Record) -> dict[str, str]:
    """What the run was last started on, and with which versions."""
    if found.starts:
        last = {name: value for name, value in found.starts[-1].items() if name not in ("time", "step", "command")}
    else:
        metrics = found.findings[""].metrics
        last = {name: metrics[name] for name in ("device", "num_devices", "jax") if name in metrics}
    shown = {name.removeprefix("versions."): value for name, value in run_folder.flat(last).items()}
    return {
        html_tables.words_of(name): html_tables.text_of(value)
        for name, value in list(shown.items())[: html_tables.MOST_ROWS]
    }


def _divergence(found: Record) -> dict[str, str]:
    norms = found.divergence.get("norms")
    single = {name: value for name, value in found.divergence.items() if name != "norms"}
    worst = dict(list(norms.items())[:MOST_NORMS]) if isinstance(norms, Mapping) else {}
    shown = single | {f"norm of {name}": value for name, value in worst.items()}
    return {html_tables.words_of(name): html_tables.text_of(value) for name, value in shown.items()}


def _starts(found: Record) -> list[list[str]]:
    names = ("time", "step", "command")
    return [[html_tables.text_of(start.get(name)) for name in names] for start in found.starts[-MOST_STARTS:]]


def page(found: Record, run_dir: Path) -> str:
    """The page of a run, as HTML."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    restarts = [start["step"] for start in found.starts if 0 < start["step"] <= found.experiment.num_steps]
    measured = [_measured(name, findings) for name, findings in found.findings.items()]
    script = (TEMPLATES / "slider.js").read_text() if any(one["sliders"] for one in measured) else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    settings = run_folder.flat(ADAPTER.dump_python(found.experiment, mode="json"))
    return environment.get_template("report.html").render(
        name=run_dir.resolve().name,
        preset=found.experiment.preset,
        headline=_headline(found),
        curves=svg.draw(found.rows, restarts),
        has_restarts=bool(restarts),
        divergence=_divergence(found),
        sample_grids=[(step, embedded(content)) for step, content in found.sample_grids.items()],
        measured=measured,
        script=Markup(script),
        scripts=f"'sha256-{digest}'" if script else "'none'",
        settings={name: html_tables.text_of(value) for name, value in settings.items()},
        environment=_environment(found),
        starts=_starts(found),
        own_command=shlex.join(["python", "-m", "experiments.report", str(run_dir)]),
        troubles=found.troubles,
    )


def _with_pictures(found: Record, options: Options) -> Record:
    """The record, in which samples of latents are pictures, too; says what to add where they stay latents."""
    if options.autoencoder is not None:
        facts = facts_of(found.experiment)
        decoder = decoder_of(options.autoencoder, facts.shape, facts.scaling)
        warn_of_other_weights(found.experiment, decoder)
        return stored_latents.with_pictures(found, options.run_dir, facts, decoder)
    if any(its.others and "samples.png" not in its.pictures for its in found.findings.values()):
        cli.info(f"samples are kept as latents; {launches.autoencoder_hint(options.run_dir)}")
    return found


def report(options: Options) -> None:
    """Reads the run and writes its page."""
    out = options.out or options.run_dir / "report.html"
    if out.is_dir():
        raise UserError(f"out must be a file, got the folder {out}")
    found = _with_pictures(read_run.read(options.run_dir, MOST_SAMPLE_GRIDS), options)
    text = page(found, options.run_dir)
    run_folder.make_folder("out", out.parent)
    run_folder.write_atomically(out, text)
    print(f"wrote {out}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(report, Options, "experiments.report", __doc__, args)


if __name__ == "__main__":
    main()
