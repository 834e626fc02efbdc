#!/usr/bin/env bash
# What only a GPU can show, by parts; each call ends within eight minutes, and the next one goes on with the rest.
#   benchmarks/gpu.sh [--parts pixels,formats,load,train,resume,tune] [--backbone FOLDER] [--out FOLDER]
# PYTHON: the interpreter [.venv/bin/python, or python3]. WHEELS: a folder of wheels that it lacks, such as DALI's;
# they are unpacked into SITE [/tmp/specshards-site] without a network. Without a GPU: a dry run of tiny sizes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
path=$PWD/src
if [ -n "${WHEELS:-}" ]; then
    site=${SITE:-/tmp/specshards-site}
    if [ ! -e "$site/.complete" ]; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" "$WHEELS"/*.whl
        touch "$site/.complete"
    fi
    path=$path:$site
fi
export PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
exec "$python" -m specshards bench gpu "$@"
