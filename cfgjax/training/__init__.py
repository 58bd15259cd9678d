"""Training: the pure step, the moving average, and the one line that makes it parallel.

(T1) The gradient is of the LOCAL mean loss, then averaged over the devices: the global mean's, as every device holds
     the same number of examples.
(T2) Example i of step n takes the key fold_in(fold_in(key, n), i), with i its GLOBAL index: one device and eight see
     the same noise, the same times and the same dropped labels.
(T3) ema <- decay * ema + (1 - decay) * params, in float32; further averages likewise, each with its own decay.
(T4) A set that fits lies whole on every device, once; a batch is then its indices, gathered inside the step.
(T5) The mean over a batch is the mean over its microbatches' means, one after another: fewer values in memory at once.
     Microbatch c of C is the examples c, C + c, 2 C + c, ...: of a batch sharded over devices, every device holds its
     share of every microbatch.
(T6) K steps in one dispatch are the same K steps: a scan over K batches, inside the mapped function.
(T7) Where the mean loss is not finite its gradient counts as not finite either: ``optax.apply_if_finite`` around an
     optimizer then leaves out the update. Inside ``optax.MultiSteps`` or behind moments it would leave out all later
     ones as well, as NaN stays in those: such an optimizer is refused.
(T8) Averages are of the parameters to evaluate. Some optimizers take gradients elsewhere, and keep THAT as the
     parameters: ``schedule_free`` y = (1 - b) z + b x for x = z + (y - z) / b, ``sam`` a point that it has climbed to.
(T9) Frozen parameters (``freezing``) have neither gradient nor moments; no update, and no average, changes a bit of
     them. The gradient's norm is that of the others.
"""

from __future__ import annotations

from cfgjax.training.batching import shard as shard
from cfgjax.training.batching import shard_stacked as shard_stacked
from cfgjax.training.ema import Decay as Decay
from cfgjax.training.ema import ema_warmup as ema_warmup
from cfgjax.training.optimizers import eval_params as eval_params
from cfgjax.training.pmap import AXIS as AXIS
from cfgjax.training.pmap import parallel as parallel
from cfgjax.training.pmap import pmapped as pmapped
from cfgjax.training.pmap import replicate as replicate
from cfgjax.training.step import Metrics as Metrics
from cfgjax.training.step import MultiStep as MultiStep
from cfgjax.training.step import Step as Step
from cfgjax.training.step import example_keys as example_keys
from cfgjax.training.step import init_state as init_state
from cfgjax.training.step import make_eval_step as make_eval_step
from cfgjax.training.step import make_step as make_step
from cfgjax.training.step import make_value_and_grad as make_value_and_grad
from cfgjax.training.step import multi_step as multi_step
