from __future__ import annotations

import pytest

from ov3d.common.scenes.scene import Scene
from tests.common.readers.layouts import gallery_room


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A generated room in the ScanNet-style layout, to be written in the others."""
    return gallery_room(tmp_path_factory.mktemp("room") / "room")
