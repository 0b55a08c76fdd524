#!/usr/bin/env bash
# Machines without a batch system: Ray nodes over ssh, for `automl-vision search --cluster`.
#
#     configs/cluster/ray_over_ssh.sh up 10.0.0.1 10.0.0.2 10.0.0.3     # the first is the head: start searches there
#     ssh 10.0.0.1 RAY_AUTH_MODE=token automl-vision search --data /shared/imgs --out /shared/runs/imgs \
#         --cluster auto --budget 12h
#     configs/cluster/ray_over_ssh.sh down 10.0.0.1 10.0.0.2 10.0.0.3   # also where `up` failed half-way
#
# Addresses are those by which the machines reach each other, and by which this one reaches them without a password.
# The token is made here and lies in ~/.ray/auth_token (mode 600) on each machine; it goes there through ssh's input, so
# that no list of processes and no history shows it. Variables: BIN, the folder of `ray` and `python` on every machine
# (default: what PATH has there); CPUS of each machine (default: all); REMOTE, a command instead of ssh.
set -euo pipefail

readonly PORT=6379 READY_SECONDS=120
# Ports are named so that a firewall can name them, too (docs/scale.md).
readonly WORDS="--block --disable-usage-stats --node-manager-port=6700 --object-manager-port=6701 \
--dashboard-agent-listen-port=6702 --dashboard-agent-grpc-port=6703 --metrics-export-port=6704 \
--runtime-env-agent-port=6705 --min-worker-port=10100 --max-worker-port=10999 ${CPUS:+--num-cpus=$CPUS}"

on() { # HOST COMMAND
    local setting="export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ${BIN:+PATH=$BIN:\$PATH}"
    ${REMOTE:-ssh} "$1" "bash -c $(printf %q "$setting; $2")"
}

versions() { # HOST: what must be the same everywhere
    on "$1" 'python -c "
import sys
from importlib.metadata import version
print(\"Python %d.%d,\" % sys.version_info[:2], \"ray\", version(\"ray\"), \"and automl-vision\", version(\"automl-vision\"))"'
}

start() { # HOST OPTIONS: a node that ends by its own process id, not by `ray stop`, which ends every Ray of this user
    on "$1" "cd ~/.ray && for _ in 1 2 3; do
            nohup setsid ray start $2 --node-ip-address=$1 $WORDS </dev/null >node-$1.log 2>&1 &
            echo \$! >node-$1.pid
            for _ in \$(seq $READY_SECONDS); do
                if grep -q 'Ray runtime started' node-$1.log; then exit 0; fi
                if ! kill -0 \"\$(<node-$1.pid)\"; then break; fi # not up within Ray's own 30 s: once more
                sleep 1
            done
        done
        tail -n 5 node-$1.log >&2; exit 1"
}

up() { # HEAD OTHERS...
    local head=$1 host token wanted there
    wanted=$(versions "$head")
    for host in "$@"; do
        there=$(versions "$host")
        if [[ $there != "$wanted" ]]; then echo "$head has $wanted, but $host has $there" >&2 && exit 1; fi
    done
    token=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
    for host in "$@"; do
        printf %s "$token" | on "$host" 'umask 077 && mkdir -p ~/.ray && rm -f ~/.ray/auth_token && cat >~/.ray/auth_token'
    done
    start "$head" "--head --port=$PORT --include-dashboard=false"
    for host in "${@:2}"; do start "$host" "--address=$head:$PORT"; done
    on "$head" "ray status --address $head:$PORT"
}

down() { # HOSTS...
    local host
    for host in "$@"; do
        on "$host" "cd ~/.ray && if [[ -s node-$host.pid ]]; then kill \"\$(<node-$host.pid)\" || true; fi
            rm -f node-$host.pid auth_token"
    done
}

if (($# < 2)) || [[ $1 != up && $1 != down ]]; then
    echo 'usage: ray_over_ssh.sh up|down HEAD [OTHER ...]' >&2
    exit 2
fi
"$@"
