#!/usr/bin/env bash
# A Slurm of one node on this machine: sbatch, preemption with requeue, a submitit sweep.
# Needs root and Debian's packages: apt-get install --no-install-recommends slurm-wlm munge
. "$(dirname "$0")/common.sh"
as_root "start Slurm's daemons"
needs slurmctld slurmd munged sbatch srun scontrol squeue sinfo runuser

clean_up() {
    scancel --full --user=root
    wait_for 10 no_jobs
    for daemon in slurmd slurmctld munged; do stop "$scratch/$daemon.pid"; done
}
no_jobs() { [ -z "$(squeue --noheader)" ]; }
stop() {
    local pid
    pid=$(cat "$1") && kill "$pid" && wait_for 10 eval "! kill -0 $pid" || kill -9 "$pid"
}
idle() {
    seen=$(sinfo --noheader --format='%D %t')
    [ "$seen" = "1 idle" ]
}
state() { scontrol show job "$1" | grep -q "JobState=$2 "; }

scratch
mkdir state spool
install -d -o munge -g munge munge
cat > slurm.conf <<END
ClusterName=dev
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$scratch/munge/socket,cred_expire=5
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/spool
SlurmctldPidFile=$scratch/slurmctld.pid
SlurmdPidFile=$scratch/slurmd.pid
SlurmctldLogFile=$scratch/slurmctld.log
SlurmdLogFile=$scratch/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=17001 CPUs=2 RealMemory=1000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$scratch/slurm.conf MASTER_ADDR=127.0.0.1
runuser -u munge -- munged --socket="$scratch/munge/socket" --pid-file="$scratch/munge/pid" \
    --log-file="$scratch/munge/log" --seed-file="$scratch/munge/seed"
ln -s munge/pid munged.pid
slurmctld && slurmd -N n1 || { cat slurmctld.log slurmd.log; exit 1; }
check "Slurm's nodes" wait_for 30 idle

job() { # job NAME TASKS SBATCH-OPTIONS -- OVERRIDES…: submits a run of so many tasks and prints the job's number
    local name=$1 tasks=$2 options=()
    shift 2
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    mkdir "$name"
    sbatch --parsable --job-name="$name" --chdir="$name" --ntasks-per-node="$tasks" --output=job.log --open-mode=append \
        "${options[@]}" --wrap="srun $python $root/train.py ${*:2}"
}
has_checkpoint() { compgen -G "$1/logs/*/*/checkpoints/last.ckpt" >/dev/null; }
restarts() { scontrol show job "$1" | grep -o 'Restarts=[0-9]*'; }
was_requeued() { [ "$(restarts "$1")" != Restarts=0 ]; }
ended() { # ended NAME NUMBER TASKS: whether the job was requeued and its one run ended as the uninterrupted one
    wait_for 90 was_requeued "$2"
    wait_for 600 state "$2" COMPLETED
    seen="$(scontrol show job "$2" | grep -o 'JobState=[A-Z]*\|Restarts=[0-9]*' | xargs), "
    was_requeued "$2" && same "alone-$3" "$1"/logs/*/*
}

for tasks in ${TASKS:-2 1}; do
    fit=(optimizer/schedule=one_cycle model.dropout=0.2 "trainer.max_epochs=$((${EPOCHS:-1800} / tasks))")
    [ "$tasks" = 1 ] || fit+=(trainer=ddp_cpu "trainer.devices=$tasks")
    train folder="$scratch/alone-$tasks" "${fit[@]}" > "alone-$tasks.log" 2>&1

    number=$(job "plain-$tasks" "$tasks" -- "${fit[@]}")
    wait_for 300 state "$number" COMPLETED
    check "sbatch, tasks: $tasks" same "alone-$tasks" "plain-$tasks"/logs/*/*

    number=$(job "preempted-$tasks" "$tasks" --requeue -- "${fit[@]}")
    wait_for 120 has_checkpoint "preempted-$tasks"
    sleep 5
    scontrol requeue "$number"
    check "preempted, tasks: $tasks" ended "preempted-$tasks" "$number" "$tasks"

    # The signal comes before the time is over, when Slurm chooses; the run itself asks for the requeue.
    number=$(job "late-$tasks" "$tasks" --requeue --time=1 --signal=USR1@10 -- "${fit[@]}")
    check "out of time, tasks: $tasks" ended "late-$tasks" "$number" "$tasks"
done

sweeps() { # whether each of a sweep's two jobs, which have too little time as well, ends as the uninterrupted run
    seen="$(grep -h 'has requeued' sweep/*/train.log | wc -l) requeues, "
    same alone-1 sweep/0_* && seen+=", " && same alone-1 sweep/1_*
}
if "$python" -c "import hydra_plugins.hydra_submitit_launcher" 2>/dev/null; then
    train -m "${fit[@]}" trainer.callbacks.checkpoints.keep_last=true 'tags=[first],[second]' hydra/launcher=submitit_slurm hydra.launcher.timeout_min=1 \
        hydra.launcher.signal_delay_s=10 hydra.launcher.cpus_per_task=1 hydra.sweep.dir="$scratch/sweep" > sweep.log 2>&1 &
    wait_for 600 eval "! kill -0 $! 2>/dev/null"
    check "submitit sweep" sweeps
else
    echo "skipped submitit sweep: pip install -c constraints.txt -e '.[slurm]'"
fi
exit $failed
