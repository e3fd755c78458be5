"""Administrative commands need the store alone: no model is opened, and no library for models is loaded."""

import json
import os
import subprocess
import sys

import pytest

from adapters_store.sqlite import driver

COMMANDS = [
    ("users", "list"),
    ("users", "show", "alice"),
    ("users", "updates", "alice"),
    ("users", "pause", "alice"),
    ("users", "resume", "alice"),
    ("users", "consent", "alice"),
    ("versions", "list", "alice"),
    ("versions", "rollback", "alice", "1"),
    ("versions", "undo", "alice"),
    ("versions", "reset", "alice"),
    ("versions", "pin", "alice", "1"),
    ("versions", "export", "alice", "{out}/all.zip"),
    ("versions", "export", "alice", "{out}/one.zip", "--version", "1"),
    ("versions", "import", "alice", "{out}/one.zip"),
    ("versions", "prune"),
    ("keys", "create", "--scope", "admin"),
    ("keys", "list"),
    ("audit", "--check"),
    ("users", "forget", "alice", "--yes"),
]
HEAVY = ("torch", "transformers", "peft", "safetensors", "numpy", "personalize.engine", "personalize.backends.local")
PROBE = """
import json, sys, time
from adapters_store.sqlite import driver
from personalize.cli import main
begin, code = time.process_time(), 0
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted(sys.modules), time.process_time()]), file=sys.stderr)
"""


def test_no_command_opens_a_model(taught, tmp_path, monkeypatch):
    def refuse(settings):
        raise AssertionError("a model is opened")

    monkeypatch.setattr("personalize.service.personalizer.open_backend", refuse)
    for command in COMMANDS:
        taught.run(*(part.format(out=tmp_path) for part in command))


@pytest.mark.slow  # two interpreters of their own, on a machine that may be busy
def test_no_command_loads_torch_and_all_are_quick(taught, tmp_path):
    for command in (("versions", "import", "alice"), ("users", "list")):
        more = [str(tmp_path / "v.zip")] if "import" in command else []
        if more:
            taught.run("versions", "export", "alice", more[0], "--version", "1")
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *command, *more, "--home", str(taught.home)],
            capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "120"}, check=True,
        )  # fmt: skip
        code, modules, cpu_s = json.loads(done.stderr.splitlines()[-1])
        assert not code, done.stderr
        assert not set(HEAVY) & set(modules)
        assert cpu_s < 4, "twice what it takes on a busy machine"


def test_the_audit_log_is_listed_and_checked(taught, fails):
    taught.run("versions", "rollback", "alice", "1")
    newest = taught.json("audit", "--limit", "1")[0]
    assert newest["action"] == "version.rollback" and newest["detail"]["after"] == 1
    shown = taught.run("audit")
    assert "version.rollback" in shown and "alice" not in shown
    taught.run("audit", "--check")
    with driver.connect(taught.home / "index.sqlite") as database:
        database.execute("DROP TRIGGER audit_no_UPDATE")
        database.execute("UPDATE audit SET actor = 'somebody'")
    database.close()
    assert fails("audit", "--check").startswith("error: conflict: ")


def test_a_database_newer_than_the_code_is_one_line_and_nothing_is_touched(taught, fails):
    with driver.connect(taught.home / "index.sqlite") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    for command in (("users", "list"), ("versions", "undo", "alice"), ("audit",)):
        assert "9999" in fails(*command)
    with driver.connect(taught.home / "index.sqlite") as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
    database.close()


def test_the_model_of_the_environment_is_meant(taught, fails, monkeypatch):
    monkeypatch.setenv("PERSONALIZE_MODEL", "echo")
    assert taught.json("users", "show", "alice")["head"] == 2
    monkeypatch.setenv("PERSONALIZE_MODEL", "another")
    assert "'another' was never opened" in fails("users", "show", "alice")
