"""Gives every test run the same surroundings: its own home and caches, one locale and time zone, and no network.

What a machine or its user has set must not decide whether a test passes. The variables that talk to the suite itself
(where the sample captures are, whether snapshots are written anew) are kept.
"""

from __future__ import annotations

import os
import re
import site
import socket
import time
from pathlib import Path
from typing import Any

import pytest

FOR_THE_SUITE = ("OV3D_DATA", "OV3D_SNAPSHOTS", "OV3D_GOLDEN_MODELS")
_FOREIGN = re.compile(
    r"OV3D_\w+|XDG_\w+|LC_\w+|LANG|LANGUAGE|TZ"
    r"|(HF|HUGGINGFACE|TRANSFORMERS|HUGGING_FACE)_\w+|TORCH_HOME|\w+_PROXY"
    r"|FORCE_COLOR|CLICOLOR\w*|PY_COLORS|GITHUB_ACTIONS|TERMINAL_WIDTH|TTY_\w+|LINES",
    re.IGNORECASE,
)
"""Variables that ov3d, its libraries, or the terminal's libraries would listen to."""


class NoNetworkError(OSError):
    """Raised where a test reaches for the network; an OSError, as on a machine without one."""


def isolate(patch: pytest.MonkeyPatch, home: Path, *, auto_dtype: str) -> None:
    """Replace what the user has set, for this process and those that it starts, until `patch` is undone.

    Args:
        patch: records what is changed.
        home: an empty folder that becomes the home folder.
        auto_dtype: the floating type that encoders take for `auto`, whatever the processor.
    """
    packages = site.getuserbase()  # `pip install --user` put them into the real home folder
    for name in [name for name in os.environ if _FOREIGN.fullmatch(name) and name not in FOR_THE_SUITE]:
        patch.delenv(name)
    ours = {
        "HOME": home,
        "USERPROFILE": home,
        "PYTHONUSERBASE": packages,
        "OV3D_CACHE": home / "cache",  # for fixtures that outlive a test; each test has its own
        "OV3D_OUTPUTS": home / "outputs",
        "OV3D_CHECK_SHAPES": "1",
        "OV3D_DTYPE": auto_dtype,
        "HF_HUB_OFFLINE": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    for name, value in ours.items():
        patch.setenv(name, str(value))
    if hasattr(time, "tzset"):
        time.tzset()


def forbid_network(patch: pytest.MonkeyPatch) -> None:
    """Make every connection and every look-up of a host fail; sockets between processes of one machine still work."""

    def refuse(*_: object, **__: object) -> Any:
        raise NoNetworkError("tests have no network")

    def guarded(name: str) -> Any:
        real = getattr(socket.socket, name)

        def call(self: socket.socket, *arguments: Any) -> Any:
            return real(self, *arguments) if self.family == getattr(socket, "AF_UNIX", None) else refuse()

        return call

    for name in ("connect", "connect_ex", "sendto"):
        patch.setattr(socket.socket, name, guarded(name))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        patch.setattr(socket, name, refuse)
