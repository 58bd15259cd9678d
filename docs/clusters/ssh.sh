#!/bin/bash
# Trains with a process on each host, the clone and the run's folder on a shared disk, and starts all again after a fault:
#   HOSTS="host-0 host-1" bash docs/clusters/ssh.sh cifar10 --run-dir /shared/runs/cifar10 --data-dir /shared/data
read -ra hosts <<<"$HOSTS"
processes=(--coordinator "${hosts[0]}:${PORT:-12345}" --num-processes "${#hosts[@]}")

# A connection reads from a pipe that this script holds open; where that ends, as by Ctrl-C, the process gets SIGTERM.
remote='exec 3<&0; "$@" 3<&- & run=$!; { cat; kill "$run"; } <&3 >/dev/null 2>&1 & '
remote+='wait "$run"; code=$?; kill "$!"; exit "$code"'
folder=$(mktemp -d)
mkfifo "$folder/open"
trap 'rm -r "$folder"' EXIT
trap 'exec 3>&-; is_stopped=1' INT TERM
trap 'exec 3>&-' USR1

is_mended_by_another_start() { # asked to stop, another failed, killed, or no connection
    (($1 == 75 || $1 == 76 || $1 > 128))
}

connect() { # process $1 with the arguments after it; where it alone fails, the others are ended, too
    local words
    printf -v words '%q ' bash -c "$remote" host "${PYTHON:-.venv/bin/python}" -m experiments.train "${@:2}" \
        "${processes[@]}" --process-id "$1"
    ssh -o ServerAliveInterval=15 "${hosts[$1]}" "cd $(printf %q "$PWD") && exec $words" <&4
    local code=$?
    echo "$code" >"$folder/$1"
    ((code == 0 || code == 75 || code == 76)) || kill -USR1 "$$"
}

for ((restarts = 0; !is_stopped; restarts++)); do
    exec 3<>"$folder/open" 4<"$folder/open"
    connections=()
    for number in "${!hosts[@]}"; do
        connect "$number" "$@" 3>&- &
        connections+=("$!")
    done
    worst=0
    for number in "${!hosts[@]}"; do
        while kill -0 "${connections[$number]}" 2>/dev/null; do # a trap ends a wait
            wait "${connections[$number]}"
        done
        code=$(<"$folder/$number")
        if ((code && worst == 0)) || { ((code)) && is_mended_by_another_start "$worst"; }; then
            worst=$code
        fi
    done
    if ((restarts == ${RESTARTS:-20})) || ! is_mended_by_another_start "$worst"; then
        break
    fi
    ((is_stopped)) || sleep "${PAUSE:-10}"
done
exit "$worst"
