#!/bin/sh
# The long version of every proof in docs/reliability.md, with what it counted: scripts/torture.sh PYTHON
# Each one runs, also where one before it has failed. The whole takes an hour or two on two cores.
set -u
python=$1
failed=0

proof() {
	echo "== $*"
	env "$@" || failed=1
}

export TURNLOG_TORTURE_CONVERSATIONS="${TURNLOG_TORTURE_CONVERSATIONS:-500}"
export TURNLOG_TORTURE_TURNS="${TURNLOG_TORTURE_TURNS:-10}"
export TURNLOG_TORTURE_SEED="${TURNLOG_TORTURE_SEED:-1}"
run="$python -m pytest -q -s -p no:cacheprovider --timeout 7200"

proof TURNLOG_TORTURE_KILLS=all TURNLOG_TORTURE_LOOK=5 $run tests/torture/test_torture.py
proof TURNLOG_POWER=all $run tests/faults/test_power.py
proof TURNLOG_SIMULATION=all $run tests/kit/test_simulation.py
proof TURNLOG_HISTORIES=300 $run tests/kit/test_model.py
proof TURNLOG_FAULTS=all $run tests/faults/test_kernel.py tests/faults/test_proxy.py tests/store/test_damage_pages.py
proof TURNLOG_FUZZ=700 $run tests/faults/test_fuzz_import.py tests/faults/test_fuzz_cli.py
proof TURNLOG_FUZZ=400 $run tests/faults/test_fuzz_database.py
exit $failed
