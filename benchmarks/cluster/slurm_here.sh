#!/usr/bin/env bash
# Two SLURM nodes on one Linux machine, each in a network namespace of its own, to try the recipes of configs/cluster.
#
#     sudo apt-get install slurmctld slurmd slurm-client munge iproute2
#     sudo benchmarks/cluster/slurm_here.sh up FOLDER      # daemons started by hand: no systemd, nothing outside FOLDER
#     export SLURM_CONF=FOLDER/slurm.conf                  # then sbatch, squeue, scancel as usual
#     sudo benchmarks/cluster/slurm_here.sh down FOLDER
#
# The nodes are n1 (10.77.0.11) and n2 (10.77.0.12) behind a bridge that leads nowhere else; the disk is the shared
# folder. Partition `batch` is preempted by `urgent`: its jobs get SIGTERM, and 30 seconds until they are requeued.
set -euo pipefail

readonly BRIDGE=amlv-br NET=10.77.0
readonly NODES=(n1 n2)

link_node() { # NAME NUMBER: a network namespace with one address
    local name=$1 address=$NET.1$2
    ip netns add "$name"
    ip link add "amlv-$name" type veth peer name eth0 netns "$name"
    ip link set "amlv-$name" master "$BRIDGE" up
    ip -n "$name" address add "$address/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" link set lo up
}

network_up() {
    ip link add "$BRIDGE" type bridge
    ip address add "$NET.1/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    local at=0
    for name in "${NODES[@]}"; do link_node "$name" $((++at)); done
}

network_down() {
    for name in "${NODES[@]}"; do ip netns del "$name" 2>/dev/null || true; done
    ip link del "$BRIDGE" 2>/dev/null || true
}

write_configuration() { # FOLDER
    local memory cores
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.45)}' /proc/meminfo)
    cores=$(nproc)
    printf '127.0.0.1 localhost\n%s.1 controller\n%s.11 n1\n%s.12 n2\n' "$NET" "$NET" "$NET" >"$1/hosts"
    cat >"$1/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$(hostname)($NET.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$1/munge.socket
CredType=cred/munge
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool.%n
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/slurmd.%n.pid
SlurmctldLogFile=$1/slurmctld.log
SlurmdLogFile=$1/slurmd.%n.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=15
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=1,bf_interval=5
NodeName=n1 NodeAddr=$NET.11 CPUs=$cores RealMemory=$memory
NodeName=n2 NodeAddr=$NET.12 CPUs=$cores RealMemory=$memory
PartitionName=batch Nodes=n1,n2 Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 State=UP
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
CONF
}

daemons_up() { # FOLDER
    mkdir -p "$1/state" "$1/munge"
    chmod 700 "$1/munge"
    (umask 077 && head -c 128 /dev/urandom >"$1/munge/key")
    munged --force --socket="$1/munge.socket" --key-file="$1/munge/key" --pid-file="$1/munge/pid" \
        --log-file="$1/munge/log" --seed-file="$1/munge/seed"
    SLURM_CONF=$1/slurm.conf slurmctld
    for name in "${NODES[@]}"; do
        mkdir -p "$1/spool.$name"
        # Its own host name, /etc/hosts and /tmp as well: programs on two nodes must not meet but by the network and
        # the shared folder.
        SLURM_CONF=$1/slurm.conf unshare --uts --mount nsenter --net="/run/netns/$name" sh -euc "
            hostname $name
            mount --bind '$1/hosts' /etc/hosts
            mount -t tmpfs tmpfs /tmp
            exec slurmd"
    done
}

daemons_down() { # FOLDER
    for file in "$1"/slurmd.*.pid "$1/slurmctld.pid" "$1/munge/pid"; do
        if [[ -s $file ]]; then kill "$(<"$file")" 2>/dev/null || true; fi
    done
}

main() {
    local what=${1:-} folder
    folder=$(realpath -m "${2:?usage: slurm_here.sh up|down FOLDER}")
    case $what in
        up) mkdir -p "$folder" && network_up && write_configuration "$folder" && daemons_up "$folder" ;;
        down) daemons_down "$folder" && network_down ;;
        *) echo "usage: slurm_here.sh up|down FOLDER" >&2 && exit 2 ;;
    esac
}

main "$@"
