"""Record how long the virtual environment took to build: `setup_figure.py .venv/.ready`, a file with seconds in it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from personalize.reporting.figures import measured, record

ROOT = Path(__file__).resolve().parents[1]


def main(ready: Path, root: Path = ROOT) -> None:
    """Record ``demo setup_s``; nothing where the file holds no number (an environment that was not built by make)."""
    text = ready.read_text(encoding="utf-8").strip() if ready.exists() else ""
    if text.isdecimal():
        row = measured("demo setup_s", int(text), unit="s", goal="≤ 720", n=1, device="cpu", command="make demo")
        record("loop", [row], root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
