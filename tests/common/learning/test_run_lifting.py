"""What a run takes over from another one; lifting itself is tested where runs are trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ov3d.common.base.errors import UsageError
from ov3d.common.base.runs import Run
from ov3d.common.learning.run_lifting import BASIS_NAME, take_over
from ov3d.common.lifting.basis import BasisConfig, choose_basis, write_basis


def test_a_run_offers_its_files_and_its_basis(tmp_path: Path) -> None:
    run = Run(tmp_path, {"indexes": {"desk": "scenes/0000-desk/index.safetensors"}})
    files = {"desk": tmp_path / "scenes" / "0000-desk" / "lifted.safetensors"}
    whole = take_over(run, BasisConfig(energy=1))
    assert (whole.files, whole.basis) == (files, None)  # features at full rank need none
    with pytest.raises(UsageError, match=rf"has no {BASIS_NAME}"):
        take_over(run, BasisConfig())
    features = np.random.default_rng(0).normal(size=(300, 96)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    basis = choose_basis([("key", features)], features[:4], BasisConfig())
    write_basis(tmp_path / BASIS_NAME, basis)
    taken = take_over(run, BasisConfig())
    assert taken.files == files and taken.basis is not None and taken.basis.key == basis.key
