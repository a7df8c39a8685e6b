"""The waiter: the few lines of shell that run one trial's command, hold its lock while it lives, write its exit code.

Two shells. The outer one, the waiter, leads a session of its own and holds the lock on `alive` (an inherited file
descriptor), so a trial's life is a held lock and not a process id. The inner one leads the trial's session and process
group, tells its pid, and becomes `/bin/sh -c "$command"`. The command is a positional argument and never part of a
shell text. The keeper may die at any time: nothing here needs it. The inner one joins the launch's control group, where
there is one (control_group.py); the outer one stays outside, since it has to survive what is in there.

Files that they write into the launch folder:
  waiter   the outer shell's pid
  pid      the inner shell's pid and its start time (in clock ticks since boot, 0 where there is no /proc), one line
           that is whole when it ends with a newline; the command runs only after it was written
  exit     the command's status as the shell says it, by rename; its mtime is the trial's end
  stdout, stderr
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from pathlib import Path

PID_PIPE, ALIVE = 8, 9

# $1 launch folder, $2 command, $3 cwd, $4 the file to join the control group by ("" for none), $5 soft limit of open
# files, then what starts a new session.
# The traps do nothing, but unlike ignored signals they are not inherited: the trial starts with the defaults.
# The inner shell runs in the foreground: in the background it would start with SIGINT ignored. It opens stdout and
# stderr itself, so that what the outer one says of a signal ("Terminated") does not stand in them.
# A keeper that died meanwhile does not read its pid any more: that must not end the trial, hence the trap around it.
# Names of their own, since assigning to a variable that the user has exported would change what the trial sees.
_OUTER = """
trap : HUP INT QUIT TERM USR1 USR2
TUNE_W_DIR=$1 TUNE_W_COMMAND=$2 TUNE_W_CWD=$3 TUNE_W_GROUP=$4
printf '%s\\n' "$$" >"$1/waiter"
ulimit -S -n "$5" 2>/dev/null
shift 5
"$@" /bin/sh -c "$TUNE_W_INNER" sh "$TUNE_W_DIR" "$TUNE_W_COMMAND" "$TUNE_W_CWD" "$TUNE_W_GROUP" 9>&-
TUNE_W_CODE=$?
exec 8>&-
printf '%s\\n' "$TUNE_W_CODE" >"$TUNE_W_DIR/exit.new" && mv -f "$TUNE_W_DIR/exit.new" "$TUNE_W_DIR/exit"
exit 0
"""

_INNER = """
unset TUNE_W_INNER
exec </dev/null >>"$1/stdout" 2>>"$1/stderr" || exit 126
if [ -n "$4" ]; then { echo 0 >"$4"; } 2>/dev/null; fi
TUNE_W_STAT=
if [ -r /proc/self/stat ]; then read -r TUNE_W_STAT </proc/self/stat; fi
set -- "$1" "$2" "$3" $TUNE_W_STAT
printf '%s %s\\n' "$$" "${25:-0}" >"$1/pid" || exit 126
trap '' PIPE
printf '%s\\n' "$$" >&8 2>/dev/null
trap - PIPE
exec 8>&-
[ -d "$TUNE_OUTPUT_DIR" ] || [ -z "$TUNE_OUTPUT_DIR" ] || mkdir -p "$TUNE_OUTPUT_DIR" || exit 126
cd "$3" || exit 126
export TUNE_LAUNCH_DIR="$1"
exec /bin/sh -c "$2"
"""

_SETSID = "import os,sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"


def argv(folder: str, command: str, cwd: str, files: int, join: str = "") -> list[str]:
    """The waiter's argument list; `join` is the file by which a control group is joined."""
    session = shutil.which("setsid", path="/usr/bin:/bin:/usr/local/bin")
    starter = [session] if session else [sys.executable, "-c", _SETSID]
    return [
        "/bin/sh",
        "-c",
        _OUTER,
        "tune-waiter",
        folder,
        command,
        cwd,
        join,
        "unlimited" if files < 0 else str(files),
        *starter,
    ]


def spawn(
    folder: Path, command: str, cwd: str, env: dict[str, str], alive: int, files: int, join: str = ""
) -> tuple[int, int]:
    """Start a waiter; its pid, and the end of a pipe that gives the inner shell's pid as a line.

    `alive` is the locked file descriptor; the caller closes its own afterwards. `OSError` when it can't be started.
    """
    read_end, write_end = os.pipe()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # Copies above the fixed numbers, so that no dup2 below runs over another's source.
    high = [_above(fd, 10) for fd in (null, write_end, alive)]
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            argv(os.fspath(folder), command, cwd, files, join),
            {**env, "TUNE_W_INNER": _INNER},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, high[0], 0),
                (os.POSIX_SPAWN_DUP2, high[0], 1),
                (os.POSIX_SPAWN_DUP2, high[0], 2),
                (os.POSIX_SPAWN_DUP2, high[1], PID_PIPE),
                (os.POSIX_SPAWN_DUP2, high[2], ALIVE),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        for fd in (*high, null, write_end):
            os.close(fd)
    return pid, read_end


def _above(fd: int, least: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)


def code(status: int) -> int:
    """An exit code from a shell's status: 129 to 192 are signals, -1 to -64."""
    return 128 - status if 129 <= status <= 192 else status
