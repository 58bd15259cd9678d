#!/bin/bash
# Trains on all workers of a TPU pod, from a clone in each one's home folder, and starts all again after a fault:
#   TPU=my-pod ZONE=us-central2-b bash docs/clusters/tpu.sh cifar10 --run-dir /shared/runs/cifar10 --data-dir /shared/data
printf -v words '%q ' bash docs/clusters/notice.sh "${PYTHON:-.venv/bin/python}" -m experiments.train "$@" --distributed
for ((restarts = 0; ; restarts++)); do
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="cd ${CLONE:-cfgjax} && exec $words"
    code=$?
    if ((code != 75 && code != 76 && code <= 128 || restarts == ${RESTARTS:-20})); then
        exit "$code"
    fi
    sleep "${PAUSE:-10}"
done
