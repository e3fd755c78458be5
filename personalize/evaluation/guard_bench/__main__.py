"""``python -m personalize.evaluation.guard_bench``."""

from personalize.evaluation.guard_bench.command import main

if __name__ == "__main__":
    raise SystemExit(main())
