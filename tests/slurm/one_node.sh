#!/usr/bin/env bash
# A real Slurm of one node on the loopback device: slurmctld, slurmd and munge from Debian's packages, no systemd, no
# cgroups, no accounting database.
#
#   one_node.sh start         install what is missing, start, wait until the node is idle
#   one_node.sh run COMMAND   start, run COMMAND, stop; its exit status
#   one_node.sh stop
#
# Exit status 77: it cannot be had here; the reason is printed. Needs root, since slurmd starts jobs as their users,
# and /etc/slurm/slurm.conf, since jobs look for it there; a configuration that this script did not write is left
# alone.
set -uo pipefail

dir=${FF_SLURM_DIR:-/tmp/ff-one-node-slurm}
mark="# Written by tests/slurm/one_node.sh"
host=$(hostname -s)

skip() {
    echo "skipped: $*"
    exit 77
}

prepare() {
    [ "$(id -u)" = 0 ] || skip "a Slurm of one node needs root"
    if ! { command -v slurmctld && command -v slurmd && command -v squeue && command -v munged; } >/dev/null; then
        command -v apt-get >/dev/null || skip "there is no Slurm and no apt-get to install it with"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            slurmctld slurmd munge slurm-client; } >"$dir/apt.log" 2>&1 ||
            skip "apt-get cannot install Slurm: $(grep '^E:' "$dir/apt.log" | head -n 1)"
    fi
    if [ -e /etc/slurm/slurm.conf ] && ! grep -q "^$mark" /etc/slurm/slurm.conf; then
        skip "/etc/slurm/slurm.conf is there already and stays as it is"
    fi
}

configure() {
    mkdir -p /etc/slurm "$dir/state" "$dir/spool"
    cat >/etc/slurm/slurm.conf <<CONF
$mark
ClusterName=ff
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=3600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(free -m | awk '/^Mem/ {print int($2 * 0.8)}') Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=120 DefMemPerCPU=500 State=UP
CONF
    # No GPU is needed: jobs that ask for one are counted, and see CUDA_VISIBLE_DEVICES=0.
    printf '%s\nNodeName=%s Name=gpu File=/dev/null\n' "$mark" "$host" >/etc/slurm/gres.conf
}

launch() { # NAME COMMAND...: in the background, its process noted
    local name=$1
    shift
    setsid "$@" </dev/null >"$dir/$name.out" 2>&1 &
    echo $! >"$dir/$name.started"
}

start() {
    mkdir -p "$dir"
    prepare
    stop
    rm -rf "$dir/state" "$dir/spool"
    configure
    install -d -o munge -g munge -m 0755 /run/munge
    launch munged runuser -u munge -- /usr/sbin/munged --foreground
    for _ in $(seq 50); do [ -S /run/munge/munge.socket.2 ] && break || sleep 0.2; done
    launch slurmctld slurmctld -D
    launch slurmd slurmd -D -N "$host"
    for _ in $(seq 60); do
        if sinfo -h -o %T 2>/dev/null | grep -qx idle; then
            echo "Slurm runs on $host: $(sinfo -h -o '%P %c CPUs, %m MB, %G, %T')"
            return 0
        fi
        sleep 0.5
    done
    stop
    skip "the node does not become idle: $(tail -n 1 "$dir/slurmd.log" "$dir/slurmctld.log" 2>/dev/null | tr '\n' ' ')"
}

stop() {
    local name pid
    if [ -s "$dir/slurmctld.started" ] && kill -0 "$(cat "$dir/slurmctld.started")" 2>/dev/null; then
        scancel --user="$(id -un)" 2>/dev/null
    fi
    for name in slurmd slurmctld munged; do
        [ -s "$dir/$name.started" ] || continue
        pid=$(cat "$dir/$name.started")
        # runuser does not hand the signal on in every release: its child gets it too.
        kill "$pid" $(pgrep -P "$pid") 2>/dev/null
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null && sleep 0.1 || break; done
        rm -f "$dir/$name.started"
    done
    for name in slurm.conf gres.conf; do
        if grep -qs "^$mark" "/etc/slurm/$name"; then rm "/etc/slurm/$name"; fi
    done
    return 0
}

case ${1:-} in
    start) start ;;
    stop) stop ;;
    run)
        shift
        start
        trap stop EXIT
        "$@"
        ;;
    *)
        sed -n '2,10s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
