"""Recorded conversations: log files to messages, messages to lessons. Pure: no store, no model."""

from personalize.logs.conversation import BrokenLine, Interaction, LoggedConversation, interactions
from personalize.logs.file import LogFile
from personalize.logs.reader import read_line, read_log

__all__ = ["BrokenLine", "Interaction", "LogFile", "LoggedConversation", "interactions", "read_line", "read_log"]
