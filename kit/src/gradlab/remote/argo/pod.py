"""What a pod does: it gets the code, installs the kit from it, and does one job of a run.

Promises: the token for a private repository is in the environment of the clone's container alone,
and never on a command line or in a file. All of a pod runs in the job's own image, which has to
have bash, git, and Python 3.11 or newer with pip.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

CLONED = "clone"  # the container whose failures are told apart by its name
FAILED = 2  # its exit code where it is of no use to try again
CODE, STORAGE, SCRATCH = "/gradlab/code", "/gradlab/storage", "/gradlab/scratch"
TOKEN, REPOSITORY, COMMIT = "GIT_TOKEN", "REPOSITORY", "COMMIT"

CLONE = rf"""
set -u
export GIT_TERMINAL_PROMPT=0 GIT_HOST=${{REPOSITORY#*://}}
GIT_HOST=${{GIT_HOST%%/*}} GIT_HOST=${{GIT_HOST##*@}}
if [ -n "${{{TOKEN}:-}}" ]; then
  export GIT_ASKPASS=/tmp/askpass.sh
  cat > "$GIT_ASKPASS" <<'end' && chmod 700 "$GIT_ASKPASS"
#!/bin/sh
case "$1" in
  *"//$GIT_HOST'"* | *"@$GIT_HOST'"*) ;;
  *) exit 1 ;; # another host, to which the first one has redirected git
esac
case "$1" in
  Username*) echo "${{GIT_USERNAME:-x-access-token}}" ;;
  *) printf '%s\n' "${TOKEN}" ;;
esac
end
fi
case "$COMMIT" in -* | "") echo "'$COMMIT' is no commit" >&2; exit {FAILED} ;; esac
git init --quiet {CODE} && cd {CODE} || exit {FAILED}
git remote remove origin 2>/dev/null
git remote add origin "$REPOSITORY" || exit {FAILED}
found=
for pause in 0 5 20 60; do
  sleep "$pause"
  git fetch --quiet --depth=1 origin "$COMMIT" && found=FETCH_HEAD && break
  # Of a short commit id no server knows, and some give no commit by its id.
  git fetch --quiet --tags origin && found=$(git rev-parse --verify --quiet "$COMMIT^{{commit}}" ||
    git rev-parse --verify --quiet "origin/$COMMIT^{{commit}}") && break
done
if [ -n "$found" ] && git checkout --quiet --detach "$found" --; then
  git log -1 --format='the code is of %H'
  exit 0
fi
echo "git could not get $REPOSITORY at $COMMIT" >&2
exit {FAILED}
""".lstrip()

# Root makes /inputs and /outputs, which any program finds; for others scripts are adapted.
JOB = """
set -e
python=$(command -v python3 || command -v python)
kit=(vendor/gradlab-*.whl)
"$python" -m pip install --quiet --disable-pip-version-check "${{kit[0]}}{extra}"
engine=paths; [ "$(id -u)" -ne 0 ] || engine=machine
{checkouts}exec "$python" -m gradlab {job} "$@"
""".lstrip()
ONLY = 'run {workflow} --only {job} --run-id "$WORKFLOW_UID" --engine "$engine"'


def script(workflow: str, job: str, checkouts: Sequence[str], extra: str) -> str:
    """Give the script of a job's pod, which first does some checkouts.

    `extra` is of the kit, for the storage's client.
    """

    def command(name: str) -> str:
        return ONLY.format(workflow=shlex.quote(workflow), job=shlex.quote(name))

    # A volume is on the disk of the pod, where the pods share none.
    first = "".join(f'"$python" -m gradlab {command(name)} "$@"\n' for name in checkouts)
    extra = f"[{extra}]" if extra else ""
    return JOB.format(extra=extra, checkouts=first, job=command(job))
