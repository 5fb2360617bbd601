"""`python -m ov3d`."""

from __future__ import annotations

from ov3d.cli.app import main

main()
