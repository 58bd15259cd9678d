"""torchcfm: its matchers as losses. Time 0 is noise, ut is z - e, on a cosine path for the variance-preserving one.

A loss must be traced; the matcher, which holds no field, is called back with the whole batch, as it is meant to be.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torchcfm import conditional_flow_matching as matchers

from cfgjax import paths, verify
from cfgjax.types import Array, GaussianPath, LabelledField
from experiments.conformance.figures import figures
from experiments.conformance.names import SLOPE
from experiments.conformance.records import Record


def rows(matcher: Any, noise: np.ndarray, data: np.ndarray, y: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, ...]:
    """(xt, ut, y) of a batch; a call of one example comes without a batch axis."""
    shape = np.shape(data)
    noise, data = (torch.from_numpy(np.array(a, np.float32).reshape(-1, shape[-1])) for a in (noise, data))
    labels, times = torch.from_numpy(np.array(y).reshape(-1)), torch.from_numpy(np.array(t, np.float32).reshape(-1))
    if hasattr(matcher, "guided_sample_location_and_conditional_flow"):
        _, xt, ut, _, labels = matcher.guided_sample_location_and_conditional_flow(noise, data, y1=labels, t=times)
    else:
        _, xt, ut = matcher.sample_location_and_conditional_flow(noise, data, t=times)
    values = (each.numpy().astype(np.float32).reshape(shape) for each in (xt, ut))
    return *values, labels.numpy().astype(np.int32).reshape(shape[:-1])


def record(call: str, matcher: Any, path: GaussianPath | None = None, **more: Any) -> Record:
    """The record of a matcher as a loss, whose minimiser is to be the path's field."""

    def loss(_: GaussianPath, field: LabelledField, key: Array, z: Array, y: Array) -> Array:
        time_key, noise_key = jax.random.split(key)
        t, noise = jax.random.uniform(time_key), jax.random.normal(noise_key, z.shape)
        like = (jax.ShapeDtypeStruct(z.shape, jnp.float32),) * 2 + (jax.ShapeDtypeStruct((), jnp.int32),)
        xt, ut, y = jax.pure_callback(partial(rows, matcher), like, noise, z, y, t, vmap_method="broadcast_all")
        return jnp.sum((field(xt, t, y) - ut) ** 2)

    def checks() -> tuple[verify.Check, ...]:
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        return verify.loss(loss, "field", path).checks

    return Record(call, "loss", checks, **more)


def paired(count: int = 256) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise, data index and label that a plan pairs; the labels' data lie at -2 and 2."""
    np.random.seed(0)  # noqa: NPY002
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, generator=generator)
    y = torch.arange(count) % 2
    data = 4.0 * y[:, None] - 2 + 0.1 * torch.randn(count, 1, generator=generator)
    matcher = matchers.ExactOptimalTransportConditionalFlowMatcher()
    zeros = torch.zeros(count)
    _, xt, _, _, index = matcher.guided_sample_location_and_conditional_flow(
        noise, data, y1=torch.arange(count), t=zeros
    )
    return xt.numpy()[:, 0], index.numpy(), y.numpy()[index.numpy()]


def noise_of_label(label: int, is_mean: bool) -> float:
    """Mean or deviation of the noise that a label is trained from."""
    noise, _, y = paired()
    rows_of_label = noise[y == label]
    return float(rows_of_label.mean() if is_mean else rows_of_label.std())


def is_repeated() -> float:
    """1 where the same torch seed gives the same plan."""
    found = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(0)
        noise, data = torch.randn(64, 2), torch.randn(64, 2)
        found.append(matchers.ExactOptimalTransportConditionalFlowMatcher().ot_sampler.sample_plan(noise, data)[0])
    return float(torch.equal(*found))


OT = matchers.ExactOptimalTransportConditionalFlowMatcher
_OT = (
    "Noise is paired with data within the batch, so that the noise of one label is not N(0, I): right for unlabelled "
    "training, not for guidance from N(0, I). [`torchcfm_optimal_transport_labels`]"
)
RECORDS: list[Record] = [
    record("ConditionalFlowMatcher(sigma=0.)", matchers.ConditionalFlowMatcher(0.0)),
    record(
        "ConditionalFlowMatcher(sigma=.1)",
        matchers.ConditionalFlowMatcher(0.1),
        fails=(SLOPE,),
        remark="Noise of deviation sigma is added on the path, as meant: another path than the straight one.",
    ),
    record(
        "VariancePreservingConditionalFlowMatcher()",
        matchers.VariancePreservingConditionalFlowMatcher(),
        paths.cosine(),
    ),
    record("ExactOptimalTransportConditionalFlowMatcher(), with labels", OT(), fails=(SLOPE,), remark=_OT),
    figures(
        "ExactOptimalTransportConditionalFlowMatcher(), two labels at -2 and 2, batch 256",
        {
            "label 0: mean of its noise": (lambda: noise_of_label(0, True), -0.80, 0.15),
            "label 0: deviation of its noise": (lambda: noise_of_label(0, False), 0.62, 0.15),
            "label 1: mean of its noise": (lambda: noise_of_label(1, True), 0.81, 0.15),
            "distinct data points of 256": (lambda: float(len(np.unique(paired()[1]))), 163.0, 0.05),
            "plans alike under one torch.manual_seed": (is_repeated, 0.0, 0.0),
        },
        "Drawn with replacement, by NumPy's global generator; of other data than before. "
        "[`torch_seed_does_not_seed_numpy_plans`]",
    ),
]
