"""Whose head took the change counter to which number."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "head_moves",
        sa.Column("number", SERIAL, primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.String(32), nullable=False),
    )
