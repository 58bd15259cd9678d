"""The oracle: mixtures of Gaussians, on which everything of guided modelling is closed form.

``LabelledMixture`` knows the fields, scores and posteriors of each label, ``JointMixture`` those of labels and a vector
together and of each alone, on every Gaussian path. Formulas: ``mixtures.components`` and ``mixtures.joint_mixture``.
"""

from __future__ import annotations

from cfgjax.mixtures.joint_mixture import JointMixture as JointMixture
from cfgjax.mixtures.labelled import LabelledDensity as LabelledDensity
from cfgjax.mixtures.labelled import LabelledMixture as LabelledMixture
from cfgjax.mixtures.posteriors import posterior as posterior
from cfgjax.mixtures.presets import grid as grid
from cfgjax.mixtures.presets import joint as joint
from cfgjax.mixtures.presets import ring as ring
