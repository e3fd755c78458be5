"""Triton for a test: compiled where there is a GPU, run by its interpreter elsewhere. Import it before the kernels."""

import os
from importlib.metadata import version

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # Triton looks at it when a kernel is defined
pytest.importorskip("triton", reason="Triton cannot be imported: it is in the extra `test`, for Linux only")
if DEVICE.type == "cpu" and version("triton") < "3.7":
    pytest.skip("the interpreter of Triton before 3.7 does not run under NumPy 2.4", allow_module_level=True)
