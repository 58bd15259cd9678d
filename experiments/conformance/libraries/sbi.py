"""sbi: guidance of posteriors. Time 1 is noise; the null score is the prior's own, in closed form.

The module alone is imported, without its packages' __init__: what they need else has no part in it. The estimator says
what it is given: as of NPSE, whose forward is a score, and as of FMPE, whose forward is a velocity.
"""

import importlib
import sys
import types
from typing import Any

import numpy as np
import torch
from torch import distributions

from cfgjax.verify.reference import skewed_mixture
from experiments.conformance.bridge import Guide, guider, package_folders
from experiments.conformance.identities import ANY_SPACE
from experiments.conformance.names import LABELLED, OTHER
from experiments.conformance.records import Record

_STUBS = ("", ".inference", ".inference.potentials", ".utils", ".neural_nets", ".neural_nets.estimators")


def _adaptor() -> Any:
    """The module of guidance, its packages stubbed."""
    root = package_folders("sbi")[0]
    for name in _STUBS:
        package = types.ModuleType(f"sbi{name}")
        package.__path__ = [root + name.replace(".", "/")]
        sys.modules[f"sbi{name}"] = package
    sys.modules["sbi.neural_nets.estimators"].__dict__["ConditionalVectorFieldEstimator"] = torch.nn.Module
    torchutils = types.ModuleType("sbi.utils.torchutils")
    torchutils.__dict__["ensure_theta_batched"] = lambda theta: theta if theta.ndim > 1 else theta[None]
    sys.modules["sbi.utils.torchutils"] = torchutils
    return importlib.import_module("sbi.inference.potentials.vector_field_adaptor")


ADAPTOR = _adaptor()


def prior() -> Any:
    """The oracle's law of all data, as a distribution of PyTorch."""
    mixture = skewed_mixture()
    size = mixture.means.shape[-1]
    shapes = ((mixture.weights, (-1,)), (mixture.means, (-1, size)), (mixture.covariances, (-1, size, size)))
    weights, means, covariances = (torch.tensor(np.array(each)).reshape(shape) for each, shape in shapes)
    normals = distributions.MultivariateNormal(means, covariances)
    return distributions.MixtureSameFamily(distributions.Categorical(weights), normals)


class Estimator(torch.nn.Module):
    """What stands for a trained network: its score at the states that are asked."""

    SCORE_DEFINED = MARGINALS_DEFINED = True

    def __init__(self, score: Any, x: Any, is_flow: bool) -> None:
        super().__init__()
        self.value, self.x, self.is_flow = score, x, is_flow

    def mean_t_fn(self, t: Any) -> Any:
        """alpha."""
        return 1 - t

    def std_fn(self, t: Any) -> Any:
        """sigma."""
        return t

    def forward(self, input: Any, condition: Any, time: Any) -> Any:
        """The score of NPSE; noise less data of FMPE."""
        return -((time * self.value + self.x) / (1 - time)) if self.is_flow else self.value

    def score(self, input: Any, condition: Any, t: Any) -> Any:
        """The score."""
        return self.value


def guide(is_flow: bool) -> Guide:
    """Guidance of a posterior of NPSE or of FMPE."""

    def call(sides: tuple[np.ndarray, np.ndarray], w: float, x: np.ndarray, t: float) -> np.ndarray:
        wrapper, config = ADAPTOR.get_guidance_method("affine_classifier_free")
        state = torch.from_numpy(np.array(x))
        estimator = Estimator(torch.from_numpy(sides[0]), state, is_flow)
        made = wrapper(estimator, prior(), config=config(likelihood_scale=w))
        return made.score(state, None, torch.tensor([1 - t], dtype=torch.float32)).detach().numpy()

    return call


_CALL = 'get_guidance_method("affine_classifier_free"), likelihood_scale=w, '
_OWN_NULL = "The null score is computed from the prior, not given, so that other predictions cannot be asked. "
RECORDS: list[Record] = [
    guider(_CALL + "an estimator of NPSE", guide(False), "score", fails=(ANY_SPACE,), remark=_OWN_NULL),
    guider(
        _CALL + "an estimator of FMPE",
        guide(True),
        "score",
        fails=(LABELLED, OTHER, ANY_SPACE),
        remark="The estimator's velocity is taken for its score, at w = 1 too. [`sbi_flow_matching_guidance`]",
    ),
]
