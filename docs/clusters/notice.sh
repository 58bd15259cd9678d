#!/bin/bash
# Becomes a command, which gets SIGTERM when Google's metadata server announces that this machine is taken back:
#   bash docs/clusters/notice.sh .venv/bin/python -m experiments.train cifar10 --distributed
notice=${NOTICE:-http://metadata.google.internal/computeMetadata/v1/instance/preempted}
trap '' HUP # the connection may end first
{
    until [ "$(curl --silent --header 'Metadata-Flavor: Google' "$notice?wait_for_change=true&timeout_sec=5")" = TRUE ]; do
        sleep 1
        kill -0 "$$" || exit
    done
    kill "$$"
} </dev/null >/dev/null 2>&1 &
exec "$@"
