"""``python -m personalize.evaluation.bench``."""

from personalize.evaluation.bench.command import main

if __name__ == "__main__":
    raise SystemExit(main())
