"""A user's own pieces against the exact oracle: fields, guidance, solvers, samplers, losses, flow maps, steering.

Each function takes an object, runs it where the answer is known in closed form (``mixtures``), and gives a ``Report``:
a table of checks, each passed, or failed with its size and the likely cause in words. ``report.require()`` raises
``VerificationError`` with the table, for tests. A cause is named only where what the mistake would give fits the
finding; else the row says that no known cause fits. The seed is fixed: the same object gets the same report.

    field               (x, t, y) -> like x             claims to be the vector field, score, noise or denoiser
    conditional_field   (x, t, y) -> like x             claims it of a label and a vector: both, each alone, and none
    guidance            (field, scale, null_label)      claims to be classifier-free guidance
    rule                (field, scale, null_label)      differs from it on purpose, but not where it is neutral
    solver              field -> Solver                 claims to solve dx = u dt with an order
    sampler             (field, key, x, ts, y, ...)     claims to solve dx = u_w dt with an order
    diffusion           (path, field, diffusion)        claims to solve dX = [u + sigma^2 s / 2] dt + sigma dW
    label_dropping      (key, y) -> y                   claims to drop labels, independently for each example
    dropping            (key, y) -> y                   claims to drop any conditions, to the null of sampling
    loss                (path, field, key, z, y) -> []  claims to be least for the vector field, or another view
    flow_map            (x, t, r, y, w) -> like x       claims the average velocity of dx = u_w dt from t to r
    flow_map_loss       (path, flow_map, key, z, y, w)  claims to be least for it, with or without a teacher
    posterior           (path, field, measurement)      claims to draw from p(z|m): makes a field, or a Solver
    samples             (key, y [n]) -> [n, D]          claims to sample the labels' laws, a whole batch in one call

All but the last (and a batched ``label_dropping`` or ``dropping``) are called for ONE example. What raises, gives
another shape, NaN or inf gets one failed row with what happened. Statistical checks give a false alarm with probability
under 1e-4 a report; the modules' heads derive what they allow. An error of 5 % (of a value in one fifth of t, for one
label or in one coordinate; of a rate, a scale, a stage or the noise) fails, on the usual oracle: each function says
where that does not hold. A report ends with what a pass does not show.

>>> from cfgjax import verify
>>> def plus_one(field, scale, null_label):  # the convention of some papers, where 0 is the labelled field
...     def guided(x, t, y):
...         return field(x, t, y) + scale * (field(x, t, y) - field(x, t, null_label))
...     return guided
>>> report = verify.guidance(plus_one)
>>> report.passed
False
>>> print(report)
verify.guidance: 3 of 3 checks failed
        check                                      measured  allowed  likely cause
FAILED  w = 0: the null field                          1.78  1.0e-04  looks like 1 + w: u_y + w (u_y - u_null)
FAILED  w = 1: the labelled field                     0.899  1.0e-04  looks like 1 + w: u_y + w (u_y - u_null)
FAILED  w = 0.3 to 7.5: u_null + w (u_y - u_null)      1.62  1.0e-04  looks like 1 + w: u_y + w (u_y - u_null)
A pass does not show scales outside [0, 7.5], t outside [0.05, 0.95], or that your field's null label is learned.
"""

from __future__ import annotations

from cfgjax.verify.batched import samples as samples
from cfgjax.verify.condition_dropping import dropping as dropping
from cfgjax.verify.conditional_fields import conditional_field as conditional_field
from cfgjax.verify.diffusions import diffusion as diffusion
from cfgjax.verify.fields import field as field
from cfgjax.verify.flow_map_losses import flow_map_loss as flow_map_loss
from cfgjax.verify.flow_maps import flow_map as flow_map
from cfgjax.verify.labels import label_dropping as label_dropping
from cfgjax.verify.losses import loss as loss
from cfgjax.verify.posteriors import posterior as posterior
from cfgjax.verify.report import Check as Check
from cfgjax.verify.report import Report as Report
from cfgjax.verify.report import VerificationError as VerificationError
from cfgjax.verify.rules import guidance as guidance
from cfgjax.verify.samplers import sampler as sampler
from cfgjax.verify.samplers import solver as solver
from cfgjax.verify.variants import rule as rule
