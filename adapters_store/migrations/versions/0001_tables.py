"""The first tables, the change counter and the installation key."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    meta = _create_single_tables()
    _create_user_tables()
    _create_queue_tables()
    _create_version_tables()
    op.bulk_insert(
        meta,
        [
            {"name": "changes", "number": 0, "text": ""},
            {"name": "erase_traces", "number": 0, "text": ""},
            {"name": "audit", "number": 0, "text": ""},
            {"name": "installation_key", "number": 0, "text": secrets.token_hex(32)},
        ],
    )


def _number(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _word(name: str, length: int = 64, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.String(length), nullable=nullable)


def _seconds(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Float(53), nullable=nullable)


def _flag(name: str, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Boolean(), nullable=nullable)


def _user(nullable: bool = False, primary_key: bool = False) -> sa.Column:
    return sa.Column(
        "user_id", sa.String(32), sa.ForeignKey("users.user_id"), nullable=nullable, primary_key=primary_key
    )


def _create_single_tables() -> sa.Table:
    op.create_table(
        "audit",
        sa.Column("number", SERIAL, primary_key=True, autoincrement=False),
        _seconds("created_s"),
        _word("actor", 100),
        _word("action"),
        _word("object_id", 100),
        sa.Column("detail", sa.JSON(), nullable=False),
        _word("digest"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), primary_key=True),
        _word("owner", 100),
        _word("instance", 32),
        _number("fence"),
        _seconds("expires_s"),
    )
    meta = op.create_table(
        "meta", sa.Column("name", sa.String(64), primary_key=True), _number("number"), _word("text", 128)
    )
    assert meta is not None
    return meta


def _create_user_tables() -> None:
    op.create_table(
        "users",
        sa.Column("user_id", sa.String(32), primary_key=True),
        sa.Column("external_hash", sa.String(64), nullable=True, unique=True),
        sa.Column("key", sa.LargeBinary(32), nullable=False),
        _seconds("created_s"),
        _word("learning", 8),
        _flag("consent", nullable=True),
        _number("epoch"),
        sa.Column("erasing", sa.Boolean(), nullable=False, index=True),
        _number("last_number"),
        _number("num_turns"),
        _number("num_updates"),
        _number("turn_bytes"),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(12), primary_key=True),
        _word("secret_hash"),
        _word("scope", 8),
        _user(nullable=True),
        _word("label", 100),
        _seconds("created_s"),
        _seconds("revoked_s", nullable=True),
    )
    op.create_table(
        "consents",
        sa.Column("seq", SERIAL, primary_key=True, autoincrement=True),
        _user(),
        _flag("granted"),
        _word("text_version"),
        _word("actor", 100),
        _seconds("created_s"),
    )
    op.create_index("ix_api_keys_user_id", "api_keys", ["user_id"])
    op.create_index("ix_consents_user_id", "consents", ["user_id"])


def _create_queue_tables() -> None:
    op.create_table(
        "turns",
        sa.Column("turn_id", sa.String(32), primary_key=True),
        _user(),
        _word("request_id", 100),
        _word("parent_id", 32, nullable=True),
        _word("root_id", 32),
        _seconds("created_s"),
        _word("finish_reason", 16),
        _number("adapter_number", nullable=True),
        _word("base_digest"),
        _word("prompt_key", 128, nullable=True),
        _word("prefix_key", 128, nullable=True),
        _word("reply_key", 128, nullable=True),
        _number("reply_chars"),
        _word("outcome"),
        _word("update_id", 32, nullable=True),
        _number("num_bytes"),
    )
    op.create_index("ix_turns_created_s", "turns", ["created_s"])
    op.create_index("ix_turns_prompt", "turns", ["user_id", "prompt_key", "created_s"])
    op.create_index("ix_turns_prefix", "turns", ["user_id", "prefix_key", "created_s"])
    op.create_index("ix_turns_reply", "turns", ["user_id", "reply_key", "created_s"])
    op.create_index("ix_turns_request_id", "turns", ["request_id"])
    op.create_index("ix_turns_root", "turns", ["user_id", "root_id", "created_s"])
    op.create_table(
        "updates",
        sa.Column("seq", SERIAL, primary_key=True, autoincrement=True),
        sa.Column("update_id", sa.String(32), nullable=False, unique=True),
        _user(),
        _word("turn_id", 32),
        _word("request_id", 100),
        _word("outcome"),
        _number("fence", nullable=True),
        _number("attempts"),
        _number("unfinished"),
        _number("version", nullable=True),
        _seconds("created_s"),
        _seconds("finished_s", nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.UniqueConstraint("user_id", "turn_id", name="uq_updates_turn"),
    )
    op.create_index("ix_updates_queue", "updates", ["outcome", "user_id", "seq"])
    op.create_index("ix_updates_request_id", "updates", ["request_id"])
    op.create_index("ix_updates_user", "updates", ["user_id", "seq"])


def _create_version_tables() -> None:
    op.create_table(
        "versions",
        _user(primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        _number("parent", nullable=True),
        _word("digest"),
        _word("base_digest"),
        _number("rank"),
        _number("num_bytes"),
        _seconds("created_s"),
        _flag("pinned"),
        _word("origin", 16),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        _word("moments_digest", nullable=True),
    )
    op.create_table(
        "heads",
        _user(primary_key=True),
        sa.Column("base_digest", sa.String(64), primary_key=True),
        _number("number", nullable=True),
    )
