# Read by launch/demo and launch/test: a virtual environment of their own, made or brought up to date.
#
# HULLSCREEN_VENV   where it is (default: .venv in the repository)
# PYTHON            the interpreter it is made with (default: the first Python >= 3.11 on PATH)

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=${HULLSCREEN_VENV:-$root/.venv}

fail() {
    printf 'hullscreen: %s\n' "$1" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        # A Python that somebody asked for is not replaced by another one.
        [ -z "${PYTHON:-}" ] || break
    done
    fail "Python 3.11 or newer is needed, and ${PYTHON:-python3} is not: install one, or name it as PYTHON=/path/to/python3.11"
}

# install EXTRA: the package in this repository, editable, with that extra ("" for none).
install() {
    extra=$1
    # A hash of the requirements and the interpreter: nothing is installed while it stays the same.
    if [ -x "$venv/bin/python" ] && new_enough "$venv/bin/python"; then
        wanted=$(requirements_hash)
        for stamp in "$venv/.hullscreen-$extra" "$venv/.hullscreen-test"; do
            if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
                return
            fi
        done
    else
        python=$(find_python) || exit 1
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$python has no venv module: install it (Debian, Ubuntu: apt install python3-venv), then run again"
        printf 'hullscreen: making %s\n' "$venv" >&2
        "$python" -m venv --clear "$venv" || fail "no virtual environment could be made in $venv"
        wanted=$(requirements_hash)
    fi
    printf 'hullscreen: installing into %s (a minute or two, once)\n' "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable "$root${extra:+[$extra]}" >&2 ||
        fail "pip could not install hullscreen; its message stands above, and running again continues"
    printf '%s\n' "$wanted" >"$venv/.hullscreen-$extra"
}

requirements_hash() {
    "$venv/bin/python" - "$root" <<'END'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
print(hashlib.sha256(f"{root} {sys.version} {(root / 'pyproject.toml').read_text()}".encode()).hexdigest())
END
}
