"""FID's Inception as a space of features, in the conventions in which FID is quoted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data, metrics
from cfgjax.models import inception_inputs, pretrained_inception
from cfgjax.models.inception import NUM_FEATURES, NUM_SPATIAL, FIDInception
from cfgjax.types import Array, Tree
from experiments.cli.main import UserError
from experiments.evaluation.frechet import FrechetMeasure, Law, Spaces, of_user, sha256_of
from experiments.runtime.batching import filled_parts, plan_batching
from experiments.runtime.matmul_precision import at_precision

INCEPTION = "inception"
Convention = Literal["tensorflow", "pytorch_fid"]
"""How pictures are resized: as ADM's evaluator and torch-fidelity do, or as pytorch-fid does."""
INPUTS: dict[str, Callable[[Array], Array]] = {
    "tensorflow": inception_inputs.tensorflow_input,
    "pytorch_fid": inception_inputs.pytorch_fid_input,
}
_FIGURES = ("fid", "sfid")
_WIDTHS = {"fid": NUM_FEATURES, "sfid": 17 * 17 * NUM_SPATIAL}


def _space(params: Tree, to_input: Callable[[Array], Array]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Pictures uint8 [n, H, W, 3] -> the features of FID [n, 2048] and of sFID [n, 2023]."""
    apply = at_precision(FIDInception().apply, "highest")

    def one(params: Tree, picture: Array) -> tuple[Array, Array]:
        found: Any = apply(params, to_input(picture))
        return found.pool, jnp.ravel(found.spatial)

    program = jax.jit(jax.vmap(one, (None, 0)))

    def features(pictures: np.ndarray) -> dict[str, np.ndarray]:
        chunk = plan_batching(one, params, jax.ShapeDtypeStruct(pictures.shape[1:], jnp.uint8), shared=1).chunk
        parts = filled_parts(len(pictures), min(chunk, len(pictures)))
        found = [jax.tree.map(np.asarray, program(params, pictures[part])) for part in parts]
        joined = (np.concatenate(each)[: len(pictures)] for each in zip(*found, strict=True))
        return dict(zip(_FIGURES, joined, strict=True))

    return features


def inception_spaces(weights: Path, convention: Convention | None = None) -> Spaces:
    """The spaces of FID's Inception with the weights of a file, in one convention, by default in both.

    Raises:
        UserError: the file does not read as these.
    """
    try:
        params = pretrained_inception.read(weights)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(f"weights: {error}") from None
    names = INPUTS if convention is None else (convention,)
    return {name: _space(params, INPUTS[name]) for name in names}


def _require_law(name: str, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Raises UserError for a covariance that is none, before anything is sampled."""
    try:
        metrics.frechet_distance_to(np.stack([mean, mean]), mean, covariance)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def _laws(reference: Path, is_inception: bool) -> dict[str, Law]:
    """The statistics in a file, by figure; none where it holds pictures alone.

    Raises:
        DataError: it holds neither.
        UserError: statistics of other features than the Inception's.
    """
    found = data.read_fid_reference(reference)
    kept = zip(_FIGURES if is_inception else ("fd",), found, strict=False)
    laws = {figure: law for figure, law in kept if law is not None}
    for figure, (mean, covariance) in laws.items():
        if is_inception and mean.size != _WIDTHS[figure]:
            wanted = f"{_WIDTHS[figure]} features for {figure}"
            raise UserError(f"reference {reference} must hold statistics of {wanted}, got {mean.size}")
        _require_law(f"reference {reference}, statistics for {figure}", mean, covariance)
    if not laws:
        data.stream_pictures(reference, 1)
    return laws


def frechet_measure(
    features: str | Callable[..., Any], weights: Path, reference: Path | None, convention: Convention | None
) -> FrechetMeasure:
    """What the options of a report ask for.

    Args:
        features: "inception", or a function of the user's own: (file of weights) -> (pictures uint8 [n, H, W, 3] ->
            [n, d]).
        weights: the file of the network's weights.
        reference: file that samples are compared with; None for the training pictures.
        convention: of the Inception; None for both.

    Raises:
        DataError: the reference does not read.
        UserError: the weights do not read.
    """
    if not weights.is_file():
        raise UserError(f"weights must be a file, there is none at {weights}")
    laws = {} if reference is None else _laws(reference, features == INCEPTION)
    if isinstance(features, str):
        spaces, name = inception_spaces(weights, convention), features
    else:
        spaces, name = of_user(features, weights), getattr(features, "__qualname__", "given")
    facts = {"features": name, "weights": weights.name, "weights_sha256": sha256_of(weights)}
    return FrechetMeasure(spaces, facts, reference, laws)
