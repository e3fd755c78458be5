"""The command line ``personalize``; what other packages register in the entry-point group comes on top."""


def main() -> None:
    """Run the command that the process's arguments name."""
    from personalize.cli.app import build

    build()()
