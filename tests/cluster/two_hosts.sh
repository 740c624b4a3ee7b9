#!/usr/bin/env bash
# Two hosts on this machine: network namespaces joined by a cable, one run over both by torchrun.
# Needs root, iproute2, and the right to make network namespaces.
. "$(dirname "$0")/common.sh"
as_root "make network namespaces"
needs ip

a=neurona-a-$$ b=neurona-b-$$
clean_up() {
    ip netns pids $a | xargs -r kill -9
    ip netns pids $b | xargs -r kill -9
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

fit=(trainer=ddp_cpu trainer.num_nodes=2 trainer.devices=1 optimizer/schedule=one_cycle model.dropout=0.2
    "trainer.max_epochs=${EPOCHS:-400}")

host() { # host NAMESPACE DEVICE RANK OVERRIDES…: that host's part of a run, in the background; its output in <rank>.log
    local namespace=$1 device=$2 rank=$3
    shift 3
    ip netns exec "$namespace" env GLOO_SOCKET_IFNAME="$device" "$python" -m torch.distributed.run --nnodes=2 \
        --node-rank="$rank" --nproc-per-node=1 --master-addr=10.77.0.1 --master-port=29500 "$root/train.py" "$@" \
        >> "$rank.log" 2>&1 &
}
both() { # both OVERRIDES…: starts both hosts; their torchruns are ${torchrun[0]} and ${torchrun[1]}
    host $a va 0 "$@"; torchrun[0]=$!
    host $b vb 1 "$@"; torchrun[1]=$!
}
ended() { ! kill -0 "${torchrun[$1]}" 2>/dev/null; }
statuses() {
    local each seen=()
    for each in "${torchrun[@]}"; do wait "$each"; seen+=($?); done
    echo "${seen[@]}"
}
has_checkpoint() { [ -s "$1/checkpoints/last.ckpt" ]; }
loses() { # loses RUN COMMAND…: starts a run, breaks it with the command once it is under way; whether host a ends in time
    local run=$1 begun
    shift
    both folder="$scratch/$run" "${fit[@]}"
    wait_for 120 has_checkpoint "$run" && sleep 1
    begun=$SECONDS
    "$@"
    wait_for 60 ended 0 || { echo "the other host still waits after 60 s"; return 1; }
    wait "${torchrun[0]}"
    echo "the other host ended with status $? after $((SECONDS - begun)) s: $(grep -v '^ *$\|^W\|^E' 0.log | grep -i 'error\|clos\|timed out' | tail -1 | cut -c1-120)"
}
kill_b() { ip netns pids $b | xargs -r kill -9; }
cut_cable() { ip -n $b link set vb down; }
continues() { # continues RUN: whether it goes on over both hosts and ends as the uninterrupted one
    kill_b
    ip netns pids $a | xargs -r kill -9
    ip -n $b link set vb up
    both run="$scratch/$1"
    echo "statuses $(statuses), $(same two-ranks "$1")"
    same two-ranks "$1" >/dev/null
}

train folder="$scratch/two-ranks" trainer=ddp_cpu trainer.devices=2 "${fit[@]:3}" > two-ranks.log 2>&1
both folder="$scratch/whole" "${fit[@]}"
check "two hosts" eval 'echo "statuses $(statuses), $(same two-ranks whole)"; same two-ranks whole > /dev/null'
check "a host killed" loses killed kill_b
check "the run continued" continues killed
check "the cable cut" loses cut cut_cable
check "the run continued" continues cut
exit $failed
