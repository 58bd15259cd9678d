#!/bin/bash
# Trains under SLURM, and starts again after a fault or the time limit, from a clone on a shared disk:
#   sbatch docs/clusters/slurm.sh cifar10 --run-dir /shared/runs/cifar10 --data-dir /shared/data
#SBATCH --job-name=cfgjax
#SBATCH --nodes=4
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

# srun ends with the highest code of its tasks: a mistake (1, 2, 3) on one must stand above the 76 of the others
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 bash -c '
    trap : TERM USR1 # the shell waits for the save
    "$@"
    code=$?
    exit $((code > 0 && code < 4 ? code + 200 : code))' task "${PYTHON:-.venv/bin/python}" -m experiments.train "$@"
code=$?
if ((code > 200 && code < 204)); then
    exit $((code - 200))
fi
if ((code == 75 || code == 76 || code > 128)) && ((${SLURM_RESTART_COUNT:-0} < ${RESTARTS:-20})); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
