"""gensbi: time 0 is noise and the model is the field (t=, obs= [B, F, C]), as in cfgjax.

g of its NonSingularSolver, alpha sqrt(1 - t), is sigma = c sqrt(2 (1 - t)) with alpha = sqrt(2) c.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from gensbi.flow_matching.solver import FMODESolver, NonSingularSolver, ZeroEndsSolver
from gensbi.utils.model_wrapping import ModelWrapper

from cfgjax import verify
from cfgjax.types import Array, Field, GaussianPath, Number
from cfgjax.verify import Check
from cfgjax.verify.reference import skewed_mixture
from experiments.conformance import figures
from experiments.conformance.figures import figures as figure_record
from experiments.conformance.jax_bridge import Draw, law, solver
from experiments.conformance.names import DIFFUSION, VALUES, law_at
from experiments.conformance.records import Record
from experiments.conformance.spaces import STRAIGHT


class Given(nnx.Module):
    """What stands for a network: the field of ONE example as a batch of one with one channel."""

    def __init__(self, field: Callable[[Array, Array], Array]) -> None:
        self.field = field

    def __call__(self, t: Any, obs: Any, **_: Any) -> Any:
        """The field."""
        return self.field(obs.reshape(-1), jnp.asarray(t).reshape(-1)[0]).reshape(obs.shape)


def started(size: int) -> dict[str, Array]:
    """N(0, I), where a stochastic solver starts."""
    return {"mu0": jnp.zeros((size, 1)), "sigma0": jnp.ones((size, 1))}


def draw(kind: Any, is_stochastic: bool = False, **settings: float) -> Draw:
    """A solver of equal steps."""

    def sample(field: Field, key: Array, x: Array, n_steps: int) -> Array:
        made = kind(ModelWrapper(Given(field)), **(started(len(x)) if is_stochastic else {}), **settings)
        more = {"key": key} if is_stochastic else {}
        return made.sample(x_init=x[None, :, None], step_size=1 / n_steps, **more).reshape(x.shape)

    return sample


def score(x: Array, t: Array, y: Array) -> Array:
    """The score of the oracle's exact field."""
    exact = skewed_mixture().vector_field(STRAIGHT)
    model = ModelWrapper(Given(lambda x, t: exact(x, t, y)))
    made = ZeroEndsSolver(model, **started(len(x)), alpha=1.0)
    return made.get_score()(t, x[None, :, None], None).reshape(x.shape)


def diffusion_of(path: GaussianPath, field: Field, diffusion: Callable[[Array], Array]) -> Any:
    """A run of Euler and Maruyama's steps by the solver's own drift and diffusion."""
    made = NonSingularSolver(ModelWrapper(Given(field)), *started(2).values(), alpha=diffusion(jnp.asarray(0.0)))
    drift, size = made.get_drift(), made.get_diffusion()

    def run(key: Array, x: Array, ts: Array) -> Array:
        def step(x: Array, row: tuple[Array, Array, Array]) -> tuple[Array, None]:
            key, t, t_next = row
            noise = size(t, x, None) @ jax.random.normal(key, x.shape)
            change = drift(t, x[None, :, None], None).reshape(x.shape)
            return x + (t_next - t) * change + jnp.sqrt(t_next - t) * noise, None

        return jax.lax.scan(step, x, (jax.random.split(key, len(ts) - 1), ts[:-1], ts[1:]))[0]

    return run


def exact(x: Array, t: Number) -> Array:
    """The field of N(1, 0.3^2)."""
    slope = (t * figures.STD**2 - (1 - t)) / (t**2 * figures.STD**2 + (1 - t) ** 2)
    return figures.MEAN + slope * (x - t * figures.MEAN)


def one_score() -> float:
    """The score at x = 0.7, t = 0.4."""
    made = ZeroEndsSolver(ModelWrapper(Given(exact)), **started(1), alpha=1.0)
    return float(np.asarray(made.get_score()(0.4, jnp.full((1, 1, 1), 0.7), None)).item())


def mean_of(kind: Any, alpha: float) -> float:
    """The mean of samples in 100 steps."""
    noise = jax.random.normal(jax.random.key(0), (2_000, 1, 1))
    made = kind(ModelWrapper(_Batched(exact)), **started(1), alpha=alpha)
    return float(made.sample(x_init=noise, step_size=0.01, key=jax.random.key(1)).mean())


class _Batched(Given):
    """The field of a batch."""

    def __call__(self, t: Any, obs: Any, **_: Any) -> Any:
        """The field."""
        return self.field(obs, jnp.asarray(t).reshape(-1)[0])


def _diffusion() -> Iterator[Check]:
    yield from verify.diffusion(diffusion_of).checks


def _score() -> Iterator[Check]:
    yield from verify.field(score, STRAIGHT, skewed_mixture(), "score").checks


_SIGN = "The velocity has the other sign in it: -t u for t u. [`gensbi_sde_score_sign`]"
_FOLLOWS = "By the score above. [`gensbi_sde_score_sign`]"
RECORDS: list[Record] = [
    solver("FMODESolver(model).sample(x, step_size=1 / n)", draw(FMODESolver), 1),
    law("FMODESolver(model).sample(x, step_size=1 / n)", draw(FMODESolver)),
    Record("ZeroEndsSolver(model, mu0, sigma0, alpha).get_score()", "conversion", _score, VALUES, _SIGN),
    law("ZeroEndsSolver(model, mu0, sigma0, alpha=0.)", draw(ZeroEndsSolver, True, alpha=0.0), (64,)),
    law(
        "ZeroEndsSolver(model, mu0, sigma0, alpha=1.)",
        draw(ZeroEndsSolver, True, alpha=1.0),
        (64,),
        fails=law_at(64),
        remark=_FOLLOWS,
    ),
    law(
        "NonSingularSolver(model, mu0, sigma0, alpha=1.)",
        draw(NonSingularSolver, True, alpha=1.0),
        (64,),
        fails=law_at(64),
        remark=_FOLLOWS,
    ),
    Record("NonSingularSolver: get_drift(), get_diffusion()", "loss", _diffusion, DIFFUSION, _FOLLOWS),
    figure_record(
        "N(1, .3^2): get_score() at x = .7, t = .4, exact -.8013; means of 2,000 samples, exact 1",
        {
            "score": (one_score, -1.5321, 1e-4),
            "ZeroEndsSolver, alpha = 1": (lambda: mean_of(ZeroEndsSolver, 1.0), 0.730, 0.03),
            "ZeroEndsSolver, alpha = 2": (lambda: mean_of(ZeroEndsSolver, 2.0), 0.102, 0.3),
            "NonSingularSolver, alpha = 1": (lambda: mean_of(NonSingularSolver, 1.0), 0.635, 0.03),
            "NonSingularSolver, alpha = 2": (lambda: mean_of(NonSingularSolver, 2.0), -0.186, 0.3),
        },
        _SIGN,
    ),
]
