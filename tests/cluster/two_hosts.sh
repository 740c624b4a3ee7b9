#!/usr/bin/env bash
# Two hosts on this machine: network namespaces joined by a cable, one run over both by torchrun.
# Needs root, iproute2, and the right to make network namespaces.
. "$(dirname "$0")/common.sh"
as_root "make network namespaces"
needs ip

a=neurona-a-$$ b=neurona-b-$$
kill_all() { ip netns pids "$1" | xargs -r kill -9; }
clean_up() {
    kill_all $a
    kill_all $b
    ip netns del $a
    ip netns del $b
}
scratch
{ ip netns add $a && ip netns add $b; } 2>/dev/null || skip "network namespaces cannot be made here"
ip link add va netns $a type veth peer name vb netns $b
ip -n $a addr add 10.77.0.1/24 dev va
ip -n $b addr add 10.77.0.2/24 dev vb
for end in "$a va" "$b vb"; do
    set -- $end
    ip -n "$1" link set lo up
    ip -n "$1" link set "$2" up
done

fit=(trainer=ddp_cpu optimizer/schedule=one_cycle model.dropout=0.2 "trainer.max_epochs=${EPOCHS:-400}")

host() { # host NAMESPACE DEVICE RANK OVERRIDES…: that host's part of a run, in the background; its output in <rank>.log
    local namespace=$1 device=$2 rank=$3
    shift 3
    ip netns exec "$namespace" env GLOO_SOCKET_IFNAME="$device" "$python" -m torch.distributed.run --nnodes=2 \
        --node-rank="$rank" --nproc-per-node=1 --max-restarts="${restarts:-0}" --master-addr=10.77.0.1 --master-port=29500 "$root/train.py" "$@" \
        >> "$rank.log" 2>&1 &
}
both() { # both OVERRIDES…: starts both hosts, whose torchruns are ${torchrun[@]}
    host $a va 0 "$@"; torchrun[0]=$!
    host $b vb 1 "$@"; torchrun[1]=$!
}
ends() { # waits for both hosts
    local each
    seen+="statuses"
    for each in "${torchrun[@]}"; do
        wait "$each"
        seen+=" $?"
    done
    seen+=", "
}
has_checkpoint() { [ -s "$1/checkpoints/last.ckpt" ]; }
has_ended() { ! kill -0 "$1" 2>/dev/null; }
kill_b() { kill_all $b; }
cut_cable() { ip -n $b link set vb down; }

trains() { # trains RUN: whether both hosts train as two processes of one host do
    both folder="$scratch/$1" "${fit[@]}"
    ends
    same two-ranks "$1"
}
breaks() { # breaks RUN COMMAND…: whether the command, in the middle of a run, ends host a within a minute
    local run=$1 begun
    shift
    both folder="$scratch/$run" "${fit[@]}"
    wait_for 120 has_checkpoint "$run" || return 1
    sleep 2
    begun=$SECONDS
    "$@"
    if ! wait_for 120 has_ended "${torchrun[0]}"; then
        seen="the other host still waits after $((SECONDS - begun)) s"
        return 1
    fi
    wait "${torchrun[0]}"
    seen="the other host ended with status $? after $((SECONDS - begun)) s"
    [ $((SECONDS - begun)) -le 60 ] && ! grep -q '"status": "finished"' "$run/metrics.json"
}
restarts() { # restarts RUN: whether torchrun, once a process has died, starts the run again, which ends as the other
    local restarts=2
    both folder="$scratch/$1" "${fit[@]}"
    wait_for 120 has_checkpoint "$1" || return 1
    pkill -9 -P "${torchrun[1]}"
    ends
    same two-ranks "$1"
}
continues() { # continues RUN: whether it goes on, and ends as the uninterrupted one
    kill_all $a
    kill_all $b
    ip -n $b link set vb up
    both run="$scratch/$1"
    ends
    same two-ranks "$1"
}

train folder="$scratch/two-ranks" "${fit[@]}" > two-ranks.log 2>&1
check "two hosts train as one" trains whole
check "torchrun starts it again" restarts again
check "a host is lost" breaks killed kill_b
check "its run is continued" continues killed
check "the cable is cut" breaks cut cut_cable
check "its run is continued" continues cut
exit $failed
