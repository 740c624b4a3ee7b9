# What the scripts of this folder share: a scratch folder that is removed, checks that are counted, runs that are compared.
set -u
PATH=$PATH:/usr/sbin:/sbin
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$(PATH=$root/.venv/bin:$PATH command -v python)}
"$python" -c "import tensorboard" || { echo "PYTHON= is to name the Python that neurona is installed for"; exit 1; }
export PYTHONPATH=$root/src:$root/tests${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1
failed=0

skip() { echo "skipped: $1"; exit 0; }

needs() { # needs COMMAND…: skips where one is missing
    for command in "$@"; do command -v "$command" >/dev/null || skip "there is no $command here"; done
}

as_root() { [ "$(id -u)" = 0 ] || skip "only root can $1"; }

scratch() { # makes the scratch folder and enters it; clean_up is called at the end, whatever happens
    scratch=$(mktemp -d) && chmod 755 "$scratch" && cd "$scratch" || exit 1
    trap 'status=$?; clean_up >/dev/null 2>&1; cd /; [ $status = 0 ] && rm -rf "$scratch" || echo "logs: $scratch"; exit $status' EXIT
    trap 'exit 130' INT TERM
}

check() { # check WHAT COMMAND…: prints a line, with what the command leaves in $seen, and whether it succeeded
    local what=$1
    seen=""
    shift
    if "$@"; then echo "ok      $what: $seen"; else echo "FAILED  $what: $seen"; failed=1; fi
}

wait_for() { # wait_for SECONDS COMMAND…: until it succeeds; fails when the time has passed
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

train() { "$python" "$root/train.py" "$@"; }

same() { # same RUN RUN…: whether there are two, with equal weights, figures and curves; adds to $seen what it saw
    local compared
    if [ $# != 2 ]; then
        seen+="$(($# - 1)) runs in place of one"
        return 1
    fi
    compared=$("$python" - "$@" 2>&1 <<'END'
import sys
from pathlib import Path
from verify_resume import differences, outcome
expected, found = (outcome(Path(run)) for run in sys.argv[1:])
different = differences(expected, found)
print(f"other {', '.join(different[:5])} …" if different else f"weights {found['last.ckpt'][:12]} as uninterrupted")
sys.exit(bool(different))
END
    )
    set -- $?
    seen+=$(tail -1 <<< "$compared")
    return "$1"
}
