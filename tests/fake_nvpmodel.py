"""A board's nvpmodel that is not there, and a sudo beside it: small programs on PATH that keep the board in a folder.

They print what nvpmodel of JetPack 6 and sudo print. Files in the folder change what they do: `reboot` lists modes that
need a restart, `slow` makes a switch take a while, `silent` makes -q fail, `locked` makes every switch fail, `password`
makes sudo ask for one.
"""

import os
import stat
from pathlib import Path

_NVPMODEL = """#!/bin/sh
board={board}
echo "$*" >> $board/calls
case "$1" in
-q)
    [ -e $board/silent ] && echo "NVPM ERROR: Error opening /var/lib/nvpmodel/status: 13" && exit 1
    echo "NV Fan Mode:quiet"; echo "NV Power Mode: MODE_$(cat $board/mode)"; cat $board/mode ;;
-m)
    [ "$(cat $board/rights)" = sudo ] && [ -z "$BY_SUDO" ] && echo "NVPM ERROR: Permission denied" && exit 1
    [ -e $board/locked ] && echo "NVPM ERROR: failed to write PARAM GPU: ARG MAX_FREQ" && exit 1
    [ -e $board/slow ] && sleep 0.4
    case "$2" in 0|1|2) ;; *) echo "NVPM ERROR: Invalid power mode $2" && exit 1 ;; esac
    if grep -qsx "$2" $board/reboot; then
        echo "NVPM WARN: Reboot required for changing to this power mode: $2"
        echo "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:"
        read answer
        [ "$answer" = yes ] && echo rebooted >> $board/calls && exit 0
        echo "NVPM ERROR: bad input!" && exit 1
    fi
    echo "$2" > $board/new && mv $board/new $board/mode ;;
esac
"""
_SUDO = """#!/bin/sh
board={board}
[ "$1" = -n ] || echo asked >> $board/calls
[ -e $board/password ] && echo "sudo: a password is required" >&2 && exit 1
shift
BY_SUDO=1 exec "$@"
"""


class FakeBoard:
    """A board in power mode 2 of 0, 1 and 2. `rights`: who may switch, `anybody` or `sudo`."""

    def __init__(self, folder: Path, rights: str = "anybody"):
        self.folder, self.programs, self.state = folder, folder / "bin", folder / "state"
        self.programs.mkdir(parents=True)
        (folder / "mode").write_text("2\n")
        (folder / "rights").write_text(rights)
        for name, text in (("nvpmodel", _NVPMODEL), ("sudo", _SUDO)):
            program = self.programs / name
            program.write_text(text.format(board=folder))
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be on this board."""
        path = os.pathsep.join([str(self.programs), os.environ["PATH"]])
        return {"PATH": path, "XDG_STATE_HOME": str(self.state)}

    @property
    def mode(self) -> int:
        """The power mode that is on."""
        return int((self.folder / "mode").read_text())

    def set(self, **files: str | None) -> None:
        """Write, or with None remove, files that say what the programs do."""
        for name, text in files.items():
            path = self.folder / name
            path.unlink(missing_ok=True) if text is None else path.write_text(text)

    def calls(self, option: str = "") -> list[str]:
        """What nvpmodel was called with, and `asked`, `rebooted`; those that begin with `option`."""
        path = self.folder / "calls"
        return [line for line in path.read_text().split("\n")[:-1] if line.startswith(option)] if path.exists() else []
