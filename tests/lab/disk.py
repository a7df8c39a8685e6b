"""The file system of a host of the lab, as a shell script that builds it in a mount namespace of its own.

The controller's root is seen read-only. On each place that programs write to lies a tmpfs, so the files of one host are
no other's; what Python needs to run this project is bound, read-only, where such a place (or a folder that only its
owner may enter) would hide it. Files of /etc that tell hosts apart are the host's own.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.sshd import PROGRAMS, SETTINGS, Traits

EMPTIED = ("/tmp", "/run", "/dev/shm")  # by a reboot, see boot.sh
KEPT = ("/home", "/root", "/var/tmp")
OWN_FILES = ("passwd", "group", "profile", "hostname", "hosts", "nsswitch.conf")
_OUTSIDE = "/home/.outside"


def script(root: Path, folder: Path, traits: Traits) -> str:
    """Builds the file system on the empty folder `root`, moves into it, says "ready", and holds it until input ends.

    `folder` is the host's folder on the controller, with `ssh`, `bin` and `etc`.
    """
    lines = ["set -eu", _line("mount", "--rbind", "/", root), _line("mount", "-o", "remount,bind,ro", root)]
    own = {**dict.fromkeys(KEPT, traits.home_size), **dict.fromkeys(EMPTIED, traits.tmp_size)}
    for place, size in own.items():
        mode = 755 if place in ("/home", "/root", "/run") else 1777
        lines.append(_line("mount", "-t", "tmpfs", "-o", f"size={size},mode={mode}", "tmpfs", f"{root}{place}"))
    visible = traits.needed()
    small = ("mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs")
    lines += [_line(*small, f"{root}{closed}") for closed in _closed(visible, tuple(own))]
    for path in visible:
        lines += [_line("mkdir", "-p", f"{root}{path}"), *_bind(path, f"{root}{path}")]
    lines += [*_bind(folder / "ssh", f"{root}{SETTINGS}"), *_bind(folder / "bin", f"{root}{PROGRAMS}")]
    for name in OWN_FILES:
        lines += _bind(folder / "etc" / name, f"{root}/etc/{name}")
    lines += [*_home(root, traits), *_move_into(root), "echo ready", "read -r _ || exit 0"]
    return "\n".join(lines)


def _home(root: Path, traits: Traits) -> list[str]:
    """Makes the user's home, with the start files of the shell that there are."""
    home = Path(f"{root}{traits.home}")
    lines = [_line("mkdir", "-p", home)]
    made = [home]
    for name, text in ((".bashrc", traits.bashrc), (".profile", traits.profile)):
        if text:
            lines.append(f"{_line('printf', '%s', text)} > {shlex.quote(str(home / name))}")
            made.append(home / name)
    uid, gid = traits.ids
    return [*lines, _line("chown", f"{uid}:{gid}", *made)]


def _move_into(root: Path) -> list[str]:
    """Makes `root` the root of the namespace and lets go of the old one."""
    return [
        _line("mkdir", f"{root}{_OUTSIDE}"),
        _line("cd", root),
        _line("pivot_root", ".", _OUTSIDE.lstrip("/")),
        "cd /",
        _line("umount", "-l", _OUTSIDE),
        _line("rmdir", _OUTSIDE),
    ]


def _closed(visible: list[Path], own: tuple[str, ...]) -> list[Path]:
    """The outermost folders above visible ones that not everybody may enter, and that no tmpfs covers yet."""
    found: list[Path] = []
    for path in visible:
        for parent in reversed(path.parents):
            if any(parent.is_relative_to(place) for place in (*own, *found)):
                break
            if not parent.stat().st_mode & 0o001:
                found.append(parent)
                break
    return found


def _bind(source: Path, target: str) -> list[str]:
    return [_line("mount", "--bind", source, target), _line("mount", "-o", "remount,bind,ro", target)]


def _line(*words: object) -> str:
    return shlex.join(map(str, words))
