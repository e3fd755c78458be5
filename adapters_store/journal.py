"""Which SQLite journal is safe with the library that is linked."""

FIXED = {(3, 44): 6, (3, 50): 7}
FIXED_FROM = (3, 51, 3)


def journal_mode(version: tuple[int, int, int]) -> str:
    """Return "wal" where the linked SQLite has the WAL-reset race fixed, else "delete".

    Two connections that write or checkpoint one WAL file at the same moment can corrupt the database in 3.7.0 to
    3.51.2; the fix is in 3.51.3 and was carried back to 3.44.6 and 3.50.7, not to the branches between.
    """
    if version >= FIXED_FROM:
        return "wal"
    fixed = FIXED.get(version[:2])
    return "wal" if fixed is not None and version[2] >= fixed else "delete"
