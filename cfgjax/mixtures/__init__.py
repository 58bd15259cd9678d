"""The oracle: mixtures of Gaussians, on which everything of guided modelling is closed form.

``LabelledMixture`` knows the fields, scores and posteriors of each label, ``JointMixture`` those of labels and a vector
together and of each alone, on every Gaussian path. Formulas: ``mixtures.components`` and ``mixtures.joint_mixture``.
What a measurement, a quadratic reward, guidance or an earlier state makes of a mixture is one again, or exact draws:
``mixtures.posteriors``, ``mixtures.rewards`` and ``mixtures.transitions``.
"""

from __future__ import annotations

from cfgjax.mixtures.joint_mixture import JointMixture as JointMixture
from cfgjax.mixtures.labelled import LabelledDensity as LabelledDensity
from cfgjax.mixtures.labelled import LabelledMixture as LabelledMixture
from cfgjax.mixtures.posteriors import likelihood as likelihood
from cfgjax.mixtures.posteriors import log_evidence as log_evidence
from cfgjax.mixtures.posteriors import posterior as posterior
from cfgjax.mixtures.presets import grid as grid
from cfgjax.mixtures.presets import joint as joint
from cfgjax.mixtures.presets import ring as ring
from cfgjax.mixtures.rewards import guided_log_density as guided_log_density
from cfgjax.mixtures.rewards import guided_sample as guided_sample
from cfgjax.mixtures.rewards import log_normaliser as log_normaliser
from cfgjax.mixtures.rewards import rewarded as rewarded
from cfgjax.mixtures.transitions import transition as transition
