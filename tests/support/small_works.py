"""Small works of the benchmark, one of each kind of network."""

from cfgjax.models import MLP, DiT, UNet
from experiments.benchmark.workloads import Workload

SMALL = {
    "MLP": Workload("", MLP(num_classes=3, width=16, embedding_width=8, depth=2), (2,), 3, 6, 6, 4),
    "transformer": Workload("", DiT(16, 2, 2, num_classes=3), (8, 8, 2), 3, 6, 6, 4, 2, 3),
    "unet": Workload("", UNet(8, (1, 2), 1, (4,), head_width=8), (8, 8, 1), 10, 6, 6, 4, 2, 3),
}
