#!/bin/sh
# Build or refresh a virtual environment: setup.sh DIRECTORY
#
# Everything installed is pinned and hashed in requirements/dev.txt; the project itself is
# installed editable on top of it. uv is used where it runs, else the interpreter's own pip.
#   PYTHON  the interpreter to build from (default: the newest one that fits)
#   UV      the uv to use; empty for none
set -eu

venv=$1
python=$venv/bin/python

if [ -n "${UV-}" ] && "$UV" --version >/dev/null 2>&1; then
    installer=uv
    modules=sys
else
    installer=pip
    modules="sys, ensurepip, venv"
fi

# Candidates are run, not looked up: a version manager's shim exists for versions it cannot run.
find_python() {
    for candidate in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3 python}; do
        "$candidate" -c "
import $modules
if sys.version_info < (3, 11): sys.exit(1)
print(getattr(sys, '_base_executable', sys.executable))" 2>/dev/null && return
    done
    echo "No Python 3.11 or newer that can make a virtual environment was found" \
        "(tried: ${PYTHON:-python3.14 to python3.11, python3, python})." >&2
    echo "Name one: make PYTHON=/path/to/python3" >&2
    return 1
}

usable() {
    if [ "$installer" = uv ]; then "$python" -c ''; else "$python" -c 'import pip'; fi
} 2>/dev/null

if ! usable; then
    base=$(find_python)
    echo "Creating $venv from $("$base" --version) with $installer"
    if [ "$installer" = uv ]; then
        "$UV" venv --quiet --clear --python "$base" "$venv"
    else
        "$base" -m venv --clear "$venv"
    fi
fi

install() {
    if [ "$installer" = uv ]; then
        "$UV" pip install --quiet --python "$python" "$@"
    else
        "$python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
}

echo "Installing requirements/dev.txt and turnlog into $venv"
install --require-hashes -r requirements/dev.txt
install --no-deps --no-build-isolation -e .
