#!/bin/sh
# make_venv.sh PYTHON FOLDER: a virtual environment, also where Debian keeps ensurepip in a package of its own.
set -eu
python=$1
folder=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "endwell needs Python 3.11 or later: make PYTHON=/path/to/python3" >&2
    exit 1
}
if ! "$python" -c 'from ensurepip import bootstrap' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        apt-get install -qq -y python3-venv
    else
        echo "$python cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2
        exit 1
    fi
fi
"$python" -m venv "$folder"
