import subprocess
import sys

import adapters_store
from adapters_store import errors


def test_public_names_are_pinned():
    assert adapters_store.__all__ == [
        "BlobStore",
        "Limits",
        "LocalBlobs",
        "MemoryBlobs",
        "NewTurn",
        "Store",
        "StoreError",
        "Version",
        "check_folder",
    ]


def test_every_error_has_a_code_of_its_own():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.StoreError)]
    assert len({kind.code for kind in kinds}) == len(kinds) >= 15


def test_importing_the_store_loads_no_tensors_and_no_web_framework():
    code = "import sys, adapters_store; print({m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not any(
        f"'{name}'" in loaded for name in ("torch", "numpy", "safetensors", "transformers", "peft", "fastapi")
    )
