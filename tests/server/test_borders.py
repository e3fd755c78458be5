import subprocess
import sys

import pytest

PROBE = """
import sys
import server.app, server.cli, personalize.remote, personalize.backends.echo
heavy = sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'peft', 'safetensors'})
assert not heavy, heavy
"""

REMOTE = """
import sys
import personalize.remote
heavy = {'torch', 'transformers', 'peft', 'sqlalchemy', 'alembic', 'fastapi', 'starlette', 'uvicorn', 'typer', 'numpy'}
loaded = sorted({name.partition('.')[0] for name in sys.modules} & heavy)
assert not loaded, loaded
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # a fresh interpreter imports everything
def test_the_server_loads_no_torch():
    run(PROBE)


def test_the_remote_client_needs_the_base_dependency_only():
    run(REMOTE)
