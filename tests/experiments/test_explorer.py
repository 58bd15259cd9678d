"""The explorer: its page holds what the library sampled and measured, and a browser shows what is chosen of it."""

import base64
import hashlib
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, metrics, solvers
from cfgjax.checks import THREEFRY
from experiments.ladder import laws
from experiments.ladder.explorer import measures, packing, page
from experiments.ladder.explorer.scene import Rung, small
from experiments.ladder.problems import LABEL
from experiments.ladder.rules import LADDER, of_rule
from tests.support.browser import BROWSER, Browser
from tests.support.commands import assert_one_line, command

NAMES = "classifier_free", "predictor_corrector", "feynman_kac"


def _lost(path, pair, scale):
    """Classifier-free guidance that is not finite from w = 4 on."""
    return guidance.extrapolate(pair, jnp.where(scale < 4, scale, jnp.nan))


@pytest.fixture(scope="module")
def found():
    """A scene, its exact laws, what was solved, and its page."""
    scene = small({name: LADDER[name] for name in NAMES} | {"lost": of_rule(_lost)})
    scene = scene._replace(num_measured=48, num_shown=32, scales=(0.0, 1.0, 3.0, 4.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laws, "NUM_SETS", 3)
        exact = measures.exact_laws(scene)
    solved = list(measures.solve_all(scene, exact))
    return scene, exact, dict(zip(scene.rungs, solved, strict=True)), page.page_of(scene, exact, solved)


def test_positions_are_kept_within_half_a_step():
    states = np.random.default_rng(0).normal(size=(3, 4, 5, 6, 2)) * 2
    states[0, 0, 0, 0], states[1, 1, 1, 1] = np.nan, 1e9
    kept = packing.unpack(packing.pack(packing.quantised(states, 1.7)), states.shape[:-1])
    assert (kept[0, 0, 0, 0] == packing.NOT_FINITE).all()
    assert (kept[1, 1, 1, 1] == packing.LARGEST).all()
    is_near = np.abs(states) < 1.7 * packing.LARGEST / packing.STEPS
    step = 1.7 / packing.STEPS
    assert np.abs(kept * step - states)[is_near].max() <= 0.5 * step * (1 + 1e-9)


def test_states_and_distances_are_the_librarys_own(found):
    """Euler's rule by hand at w = 3, of the same noise; the distance is that of the metrics."""
    scene, exact, solved, _ = found
    noise_key, _ = jax.random.split(jax.random.key(0, impl=THREEFRY))
    noise = jax.random.normal(noise_key, (scene.num_measured, 2))
    pair = guidance.pair(scene.problem.field(scene.path), scene.problem.null)
    solver = solvers.euler(guidance.given(guidance.extrapolate(pair, 3.0), LABEL))
    ts, key = np.linspace(0, 1, scene.num_steps + 1, dtype=np.float32), jax.random.key(0)
    integrate = jax.jit(jax.vmap(lambda x: solvers.integrate(solver, key, x, ts, observe=lambda carry, t: carry.x)[1]))
    by_hand = np.asarray(integrate(noise))
    own = solved[Rung("classifier_free", "euler", 0.0)]
    np.testing.assert_allclose(own.states[2], by_hand[: scene.num_shown, ::2].swapaxes(0, 1), atol=1e-5)
    for distance, law in ((own.tilted[2], exact.tilted[2]), (own.labelled[2], exact.labelled)):
        np.testing.assert_allclose(distance, metrics.energy_distance(by_hand[:, -1], law.draws), atol=1e-5)
    assert own.evaluations == 2 * scene.num_steps
    lost = solved[Rung("lost", "euler", 0.0)]
    np.testing.assert_array_equal(np.isnan(lost.tilted), [False, False, False, True])


def test_the_tilted_law_at_one_is_the_labelled_law(found):
    _, exact, _, _ = found
    np.testing.assert_array_equal(exact.tilted[1].draws, exact.labelled.draws)
    assert exact.floors[1] == exact.labelled_floor > 0


@pytest.mark.slow
def test_particles_are_shown_by_their_weights_on_the_way(found):
    """At t = 7/8, where they stand for p_t(x)^(1-w) p_t(x|y)^w, from which guidance without weights has gone away."""
    scene, _, _, _ = found
    scene = scene._replace(num_measured=1024, num_shown=1024)
    side = np.linspace(-4, 4, 401)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(np.float32)
    density, t = scene.problem.plane.log_density(scene.path), jnp.float32(0.875)
    at = jax.jit(jax.vmap(lambda x: jnp.stack([density(x, t, jnp.asarray(y)) for y in (scene.problem.null, LABEL)])))
    values = np.asarray(at(points), np.float64) @ np.array([1 - 3.0, 3.0])
    weights = np.exp(values - values.max())
    draws = points[np.random.default_rng(0).choice(len(points), 2048, p=weights / weights.sum())]

    def off(rule):
        rung = Rung(rule, "euler_maruyama", 1.0)
        states = jax.jit(lambda scale: measures._states(scene, rung, scale, jnp.float32(1)))(jnp.float32(3))
        return metrics.energy_distance(np.asarray(states[7 * scene.num_frames // 8]), draws)

    assert off("feynman_kac") < 0.5 * off("classifier_free")


def test_the_page_is_one_file_that_loads_nothing(found):
    text = found[-1]
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert not re.findall(r"<(?:iframe|object|embed|base|img|a)\b", text)
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,"]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert f'content="{policy}"' in text


def test_a_page_that_is_too_large_keeps_fewer_samples(found, monkeypatch):
    scene, exact, solved, text = found
    most = int(0.9 * len(text.encode()))
    monkeypatch.setattr(page, "MOST_BYTES", most)
    less = page.page_of(scene, exact, list(solved.values()))
    assert len(less.encode()) <= most
    whole, kept = (int(re.findall(r'"numShown":(\d+)', each)[0]) for each in (text, less))
    assert (whole, 20 < kept < 32) == (32, True)


@pytest.mark.parametrize(("arguments", "num_scales"), [([], 11), (["--small"], 4)])
def test_the_command_writes_the_page_alone_and_no_rounds(arguments, num_scales, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "explorer", lambda scene: f"{list(scene.rules)} {len(scene.scales)}")
    out = tmp_path / "folder" / "explorer.html"
    done = command("ladder", *arguments, "--only", "schedule", "policy", "gibbs_like", "--explorer", out)
    assert (done.returncode, done.stdout) == (0, f"wrote {out}, 0.0 MB\n"), done.stderr
    assert out.read_text() == f"['schedule', 'policy'] {num_scales}"
    assert [file.name for file in out.parent.iterdir()] == ["explorer.html"]
    assert_one_line(command("ladder", "--explorer", tmp_path), "explorer must be a file, got the folder")


READY = "document.body?.dataset.ready === ''"
SAID = "document.getElementById('{}').textContent"


def _told(value):
    return "not finite" if np.isnan(value) else f"{value:.4f}".replace("-0.0000", "0.0000").replace("-", "−")


class _Explorer:
    """The page in a browser, beside what was solved for it."""

    def __init__(self, browser, found):
        self.browser, (self.scene, self.exact, self.solved, _) = browser, found

    def says(self, name):
        return self.browser.run(SAID.format(name))

    def pixels(self):
        """The canvas once it has come to rest, [size, size, 4]."""
        self.browser.wait("tween === null && playing === null && !isDue")
        size, data = self.browser.run(
            "(() => { const copy = document.createElement('canvas'); copy.width = copy.height = canvas.width; "
            "const there = copy.getContext('2d', { willReadFrequently: true }); there.drawImage(canvas, 0, 0); "
            "const own = there.getImageData(0, 0, canvas.width, canvas.height).data; let text = ''; "
            "for (let i = 0; i < own.length; i += 32768) text += String.fromCharCode(...own.subarray(i, i + 32768)); "
            "return [canvas.width, btoa(text)]; })()"
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(size, size, 4).astype(int)

    def assert_shows(self, rule, solver, sigma, scale):
        """Both distances, floors and evaluations are those stored for the choice, and so are the other rules' rows."""
        place = self.scene.scales.index(scale)
        own = self.solved[Rung(rule, solver, sigma)]
        assert self.says("scale-value") == f"w = {scale:g}"
        assert (self.says("tilted"), self.says("labelled")) == (_told(own.tilted[place]), _told(own.labelled[place]))
        assert self.says("evaluations") == str(own.evaluations)
        assert self.says("tilted-floor").startswith(f"floor {self.exact.floors[place]:.4f}")
        low = own.tilted[place] <= self.exact.floors[place]
        assert self.browser.run("byId('tilted').classList.contains('low')") == bool(low)
        rows = self.browser.run("[...document.querySelectorAll('.rules .value')].map((each) => each.textContent)")
        assert rows[list(self.scene.rules).index(rule)] == _told(own.tilted[place])


@pytest.fixture(scope="module")
def address(found, tmp_path_factory):
    file = tmp_path_factory.mktemp("explorer") / "explorer.html"
    file.write_text(found[-1])
    return file.as_uri()


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: apt-get install chromium")


@needs_browser
def test_what_is_chosen_is_what_is_shown(found, address, tmp_path):
    """By pointer and by keyboard: numbers are the stored ones, the picture changes, nothing is loaded or goes wrong."""
    with Browser(tmp_path) as browser:
        explorer = _Explorer(browser, found)
        browser.open(address, READY)
        explorer.assert_shows("classifier_free", "heun", 0.0, 3.0)
        before = explorer.pixels()
        browser.drag("#scale", 0.66, 0.02)
        explorer.assert_shows("classifier_free", "heun", 0.0, 0.0)
        after = explorer.pixels()
        assert np.sum(np.any(before != after, axis=-1)) > 2000
        browser.press("ArrowRight", 2)
        explorer.assert_shows("classifier_free", "heun", 0.0, 3.0)
        np.testing.assert_array_equal(explorer.pixels(), before)
        browser.click("#method-1 + span")
        explorer.assert_shows("classifier_free", "euler", 0.0, 3.0)
        browser.run("byId('sigma').focus()")
        browser.press("ArrowRight")
        explorer.assert_shows("classifier_free", "euler_maruyama", 1.0, 3.0)
        browser.run("byId('rule-0').focus()")
        browser.press("ArrowDown", 2)
        explorer.assert_shows("feynman_kac", "euler_maruyama", 1.0, 3.0)
        browser.press("ArrowDown")
        explorer.assert_shows("lost", "euler_maruyama", 1.0, 3.0)
        browser.drag("#chart", 0.6, 0.97)
        explorer.assert_shows("lost", "euler_maruyama", 1.0, 4.0)
        assert explorer.says("outside") == "32 of 32 samples lie outside the picture"
        assert browser.errors == []
        assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}


@needs_browser
def test_time_moves_samples_and_laws(found, address, tmp_path):
    with Browser(tmp_path) as browser:
        explorer = _Explorer(browser, found)
        browser.open(address, READY)
        seen = [explorer.pixels()]
        browser.run("byId('time').focus()")
        for place, told in ((32, "t = 0.50"), (32, "t = 0.00")):
            browser.press("ArrowLeft", place)
            assert explorer.says("time-value") == told
            seen.append(explorer.pixels())
        assert all(np.sum(np.any(one != other, axis=-1)) > 2000 for one, other in itertools.pairwise(seen))
        browser.press("Tab")
        browser.press(" ")
        browser.wait("byId('play').getAttribute('aria-pressed') === 'true' && chosen.time > 5")
        browser.wait("byId('play').getAttribute('aria-pressed') === 'false'")
        assert explorer.says("time-value") == "t = 1.00"
        np.testing.assert_array_equal(explorer.pixels(), seen[0])
        assert browser.errors == []


@needs_browser
def test_the_page_knows_the_laws_and_the_states(found, address, tmp_path):
    """Its own densities are the oracle's, also at a time between two stops; its states are the sampled ones."""
    scene, _, solved, _ = found
    points = np.random.default_rng(0).normal(size=(20, 2))
    plane, null = scene.problem.plane, scene.problem.null
    density = jax.jit(lambda x, t, y: plane.log_density(scene.path)(x, t, y))
    with Browser(tmp_path, 390, 844) as browser:
        browser.open(address, READY)
        for t in (0.0, 0.3, 0.77, 1.0):
            found_here = browser.run(f"{points.tolist()}.map(([x, y]) => logDensities({t})(x, y))")
            wanted = [[density(x, jnp.float32(t), y) for y in (null, LABEL)] for x in points.astype(np.float32)]
            np.testing.assert_allclose(found_here, np.asarray(wanted), rtol=1e-4, atol=1e-4)
        step = scene.half_width / packing.STEPS
        for place, own in enumerate(solved.values()):
            shown = browser.run(f"[...statesOf(values, {place}, 2)]")
            states = np.reshape(shown, (scene.num_frames + 1, 2, scene.num_shown)).swapaxes(1, 2)
            wanted = np.clip(own.states[2], -4 * scene.half_width, 4 * scene.half_width)
            np.testing.assert_allclose(states.astype(float), wanted, atol=0.51 * step)
        assert browser.run("document.documentElement.scrollWidth") == 390
        assert browser.errors == []


@needs_browser
def test_half_of_a_law_lies_in_its_inner_contour(found, address, tmp_path):
    """By the exact draws of the tilted law at w = 3, within the error of their number and of the grid."""
    _, exact, _, _ = found
    draws = exact.tilted[2].draws
    with Browser(tmp_path) as browser:
        browser.open(address, READY)
        shares = browser.run(
            f"(() => {{ const levels = levelsOf(tilt(gridAt(1), 3), SHARES), law = logDensities(1); "
            f"const values = {draws.tolist()}.map(([x, y]) => law(x, y)).map(([all, own]) => -2 * all + 3 * own); "
            "return levels.map((level) => values.filter((value) => value > level).length / values.length); })()"
        )
        lines = browser.run("contour(tilt(gridAt(1), 3), levelsOf(tilt(gridAt(1), 3), SHARES)[1])")
    np.testing.assert_allclose(shares, [0.5, 0.9], atol=0.05)
    assert all(line[0] == line[-1] for line in lines)


@needs_browser
def test_a_rule_takes_the_solvers_that_it_goes_with(found, address, tmp_path):
    """And a page's address says what is chosen; in the dark the picture is dark."""
    with Browser(tmp_path, is_dark=True) as browser:
        explorer = _Explorer(browser, found)
        browser.open(f"{address}#rule=feynman_kac&solver=heun&w=1&t=0.5", READY)
        explorer.assert_shows("feynman_kac", "euler_maruyama", 1.0, 1.0)
        assert browser.run("[0, 1].map((place) => byId(`method-${place}`).disabled)") == [True, False]
        assert explorer.says("time-value") == "t = 0.50"
        assert explorer.says("paper").endswith("2503.02819")
        browser.click("#rule-1 ~ .name")
        explorer.assert_shows("predictor_corrector", "own", 1.0, 1.0)
        is_disabled = "['method-0', 'method-1', 'sigma'].map((name) => byId(name).disabled)"
        assert browser.run(is_disabled) == [True] * 3
        assert "rule=predictor_corrector" in browser.run("location.hash")
        pixels = explorer.pixels()
        tilted = np.abs(pixels[..., :3] - (0xF0, 0xA0, 0x5C)).max(axis=-1) <= 2
        assert np.sum(tilted & (pixels[..., 3] == 255)) > 300
        browser.click("#layer-tilted")
        pixels = explorer.pixels()
        assert np.sum(np.abs(pixels[..., :3] - (0xF0, 0xA0, 0x5C)).max(axis=-1) <= 2) == 0
        assert browser.errors == []
