"""What versions of the population adapter were made from, and whose conversations those were."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "populations",
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("base_digest", sa.String(64), nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("sources", sa.JSON(), nullable=False),
        sa.Column("num_people", sa.BigInteger(), nullable=False),
        sa.Column("num_forgotten", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "population_people",
        sa.Column(
            "number", sa.BigInteger(), sa.ForeignKey("populations.number"), primary_key=True, autoincrement=False
        ),
        sa.Column("source", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("person", sa.String(64), primary_key=True),
        sa.Column("num_conversations", sa.BigInteger(), nullable=False),
        sa.Column("num_lessons", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_population_people_person", "population_people", ["person"])
