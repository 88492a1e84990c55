#!/bin/sh
# Print the path of a Python that can make hmlm's environment: $PYTHON if it is set, else the one that
# .python-version names, else the newest known one. Where there is none, say in a sentence what to do.
set -u
cd "$(dirname "$0")/.." || exit 1

look='
import sys
found = "%d.%d" % sys.version_info[:2]
try:
    import ensurepip, venv
except ImportError:
    found = found + " without its venv module"
in_venv = getattr(sys, "base_prefix", sys.prefix) != sys.prefix
path = getattr(sys, "_base_executable", sys.executable) if in_venv else sys.executable
verdict = "no" if sys.version_info < (3, 12) or "venv" in found else "yes"
print("|".join([verdict, found, path]))
'

candidates() {
    if [ -n "${PYTHON:-}" ]; then
        printf '%s\n' "$PYTHON"
        return
    fi
    pyenv="${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}/versions"
    wanted=$(head -n 1 .python-version 2>/dev/null)
    for version in $wanted 3.14 3.13 3.12; do
        printf '%s\n' "python$version" "$pyenv/$version/bin/python"
        ls -d "$pyenv/$version".*/bin/python 2>/dev/null
    done
    printf '%s\n' python3 python
}

seen=$(candidates | {
    seen=
    while IFS= read -r python; do
        answer=$("$python" -c "$look" </dev/null 2>/dev/null) || continue
        found=${answer#*|}
        if [ "${answer%%|*}" = yes ]; then
            printf 'yes|%s\n' "${found#*|}"
            exit
        fi
        case "$seen, " in *" at ${found#*|}, "*) continue ;; esac
        seen="${seen:+$seen, }${found%%|*} at ${found#*|}"
    done
    printf 'no|%s\n' "${seen:-none}"
})

if [ "${seen%%|*}" = yes ]; then
    printf '%s\n' "${seen#*|}"
else
    echo "hmlm needs Python 3.12 or newer; found ${seen#*|}. Install one, or run make PYTHON=/path/to/python." >&2
    exit 1
fi
