"""``python -m personalize.evaluation.study``."""

from personalize.evaluation.study.command import main

if __name__ == "__main__":
    raise SystemExit(main())
