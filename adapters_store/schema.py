"""The tables. Rows hold ids, numbers, hashes and short words; texts, token ids and tensors are files."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Id = String(32)
Serial = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in an INTEGER column
Seconds = Float(53)


class Base(DeclarativeBase):
    type_annotation_map = {str: String(64), float: Seconds, int: BigInteger, dict[str, Any]: JSON}  # noqa: RUF012


class MetaRow(Base):
    """``changes`` counts moves of heads; ``installation_key`` (hex) keys the hashes of external ids.

    ``base`` holds the digest of the base that was opened last, ``base:<hash>`` of the one last opened by that name,
    ``population`` the id of the user who owns the population adapter.
    """

    __tablename__ = "meta"
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(default=0)
    text: Mapped[str] = mapped_column(String(128), default="")


class UserRow(Base):
    """``external_hash`` and ``key`` are emptied at once when erasing starts; the row goes last.

    The owner of the population adapter has no external id either: no name that anybody could give hashes to it.
    """

    __tablename__ = "users"
    user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    external_hash: Mapped[str | None] = mapped_column(unique=True)
    key: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_s: Mapped[float]
    learning: Mapped[str] = mapped_column(String(8), default="active")
    consent: Mapped[bool | None]
    epoch: Mapped[int] = mapped_column(default=0)
    erasing: Mapped[bool] = mapped_column(default=False, index=True)
    last_number: Mapped[int] = mapped_column(default=0)
    num_turns: Mapped[int] = mapped_column(default=0)
    num_updates: Mapped[int] = mapped_column(default=0)
    turn_bytes: Mapped[int] = mapped_column(default=0)


class ApiKeyRow(Base):
    """``secret_hash``: SHA-256 of a 256-bit random secret, so neither salt nor stretching adds anything."""

    __tablename__ = "api_keys"
    key_id: Mapped[str] = mapped_column(String(12), primary_key=True)
    secret_hash: Mapped[str]
    scope: Mapped[str] = mapped_column(String(8))
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.user_id"), index=True)
    label: Mapped[str] = mapped_column(String(100), default="")
    created_s: Mapped[float]
    revoked_s: Mapped[float | None]


class ConsentRow(Base):
    __tablename__ = "consents"
    seq: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id"), index=True)
    granted: Mapped[bool]
    text_version: Mapped[str]
    actor: Mapped[str] = mapped_column(String(100))
    created_s: Mapped[float]


class TurnRow(Base):
    """``root_id`` names the conversation: its first turn."""

    __tablename__ = "turns"
    turn_id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id"))
    request_id: Mapped[str] = mapped_column(String(100), index=True)
    parent_id: Mapped[str | None] = mapped_column(Id)
    root_id: Mapped[str] = mapped_column(Id)
    created_s: Mapped[float] = mapped_column(index=True)
    finish_reason: Mapped[str] = mapped_column(String(16))
    adapter_number: Mapped[int | None]
    base_digest: Mapped[str]
    prompt_key: Mapped[str | None] = mapped_column(String(128))
    prefix_key: Mapped[str | None] = mapped_column(String(128))
    reply_key: Mapped[str | None] = mapped_column(String(128))
    reply_chars: Mapped[int]
    outcome: Mapped[str]
    update_id: Mapped[str | None] = mapped_column(Id)
    num_bytes: Mapped[int]
    __table_args__ = (
        Index("ix_turns_prompt", "user_id", "prompt_key", "created_s"),
        Index("ix_turns_prefix", "user_id", "prefix_key", "created_s"),
        Index("ix_turns_reply", "user_id", "reply_key", "created_s"),
        Index("ix_turns_root", "user_id", "root_id", "created_s"),
    )


class UpdateRow(Base):
    """The durable queue.

    ``outcome`` is "queued" until it is final; ``fence`` is set while a process runs it. ``attempts`` counts starts,
    ``unfinished`` the starts that neither finished nor were given back: those ended in a crash. ``expires_s`` is when
    it has waited for too long; None waits for ever.
    """

    __tablename__ = "updates"
    seq: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    update_id: Mapped[str] = mapped_column(Id, unique=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id"))
    turn_id: Mapped[str] = mapped_column(Id)
    request_id: Mapped[str] = mapped_column(String(100), index=True)
    outcome: Mapped[str] = mapped_column(default="queued")
    fence: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    unfinished: Mapped[int] = mapped_column(default=0)
    version: Mapped[int | None]
    created_s: Mapped[float]
    expires_s: Mapped[float | None]
    finished_s: Mapped[float | None]
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    __table_args__ = (
        UniqueConstraint("user_id", "turn_id", name="uq_updates_turn"),
        Index("ix_updates_queue", "outcome", "user_id", "seq"),
        Index("ix_updates_user", "user_id", "seq"),
    )


class VersionRow(Base):
    __tablename__ = "versions"
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent: Mapped[int | None]
    digest: Mapped[str]
    base_digest: Mapped[str]
    rank: Mapped[int]
    num_bytes: Mapped[int]
    created_s: Mapped[float]
    pinned: Mapped[bool] = mapped_column(default=False)
    origin: Mapped[str] = mapped_column(String(16))
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[dict[str, Any]] = mapped_column(default=dict)
    moments_digest: Mapped[str | None]


class HeadRow(Base):
    """A row without a number says: reset, starts from the base; no row: this base was never begun."""

    __tablename__ = "heads"
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id"), primary_key=True)
    base_digest: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int | None]


class HeadMoveRow(Base):
    """Whose head took the change counter to ``number``; the newest few thousand are kept.

    No foreign key: a row outlives ``forget``, so that other processes see that this head is gone too.
    """

    __tablename__ = "head_moves"
    number: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=False)
    user_id: Mapped[str] = mapped_column(Id)


class PopulationRow(Base):
    """What one version of the population adapter was made from.

    It stays when the version goes: users' own versions may have begun with it. ``sources`` are ``LogSource`` as plain
    values.
    """

    __tablename__ = "populations"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(100))
    base_digest: Mapped[str]
    created_s: Mapped[float]
    sources: Mapped[list[Any]] = mapped_column(JSON)
    num_people: Mapped[int]
    num_forgotten: Mapped[int] = mapped_column(default=0)


class PopulationPersonRow(Base):
    """Somebody whose conversations a source held; ``person`` is hashed as ``UserRow.external_hash``.

    ``source`` is the place of the log in ``PopulationRow.sources``. ``forget`` deletes the person's rows.
    """

    __tablename__ = "population_people"
    number: Mapped[int] = mapped_column(ForeignKey("populations.number"), primary_key=True, autoincrement=False)
    source: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    person: Mapped[str] = mapped_column(primary_key=True, index=True)
    num_conversations: Mapped[int]
    num_lessons: Mapped[int]


class LeaseRow(Base):
    """``fence`` grows whenever another process takes the lease."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    instance: Mapped[str] = mapped_column(Id)
    fence: Mapped[int]
    expires_s: Mapped[float]


class AuditRow(Base):
    __tablename__ = "audit"
    number: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=False)
    created_s: Mapped[float]
    actor: Mapped[str] = mapped_column(String(100))
    action: Mapped[str]
    object_id: Mapped[str] = mapped_column(String(100))
    detail: Mapped[dict[str, Any]]
    digest: Mapped[str]
