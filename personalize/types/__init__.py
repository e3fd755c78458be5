"""Plain values that cross borders: no tensors, no SQL, no web.

Everything here is frozen, compares by value and costs nothing to import. Other packages import it from here; the
modules are there to be read.
"""

from personalize.types.chat import ChatRequest, Reply, ReplyChunk, ReplyStart, Usage
from personalize.types.explanation import Drift, ExplainRequest, Explanation, Norms, Probe, TokenSignal, UpdateEffect
from personalize.types.generation import Completion, FinishReason, GenerateRequest, TokenChunk
from personalize.types.lessons import Experience, LearningState, Lesson
from personalize.types.messages import ROLES, Message, Role, visible_text
from personalize.types.outcomes import Outcome
from personalize.types.population import LogSource, PopulationInfo, PopulationReport, PopulationUse
from personalize.types.rebase import RebaseReport, RebaseStatus
from personalize.types.recordings import LoggedLesson
from personalize.types.reviews import Review, ReviewRequest
from personalize.types.sampling import SamplingParams
from personalize.types.undo import UndoReport, UndoStatus
from personalize.types.updates import UpdateInfo, UpdateReport, Window
from personalize.types.users import ForgetReceipt, UserId, UserInfo
from personalize.types.versions import ADAPTER_NAME, AdapterRef, VersionInfo

__all__ = [
    "ADAPTER_NAME",
    "ROLES",
    "AdapterRef",
    "ChatRequest",
    "Completion",
    "Drift",
    "Experience",
    "ExplainRequest",
    "Explanation",
    "FinishReason",
    "ForgetReceipt",
    "GenerateRequest",
    "LearningState",
    "Lesson",
    "LogSource",
    "LoggedLesson",
    "Message",
    "Norms",
    "Outcome",
    "PopulationInfo",
    "PopulationReport",
    "PopulationUse",
    "Probe",
    "RebaseReport",
    "RebaseStatus",
    "Reply",
    "ReplyChunk",
    "ReplyStart",
    "Review",
    "ReviewRequest",
    "Role",
    "SamplingParams",
    "TokenChunk",
    "TokenSignal",
    "UndoReport",
    "UndoStatus",
    "UpdateEffect",
    "UpdateInfo",
    "UpdateReport",
    "Usage",
    "UserId",
    "UserInfo",
    "VersionInfo",
    "Window",
    "visible_text",
]
