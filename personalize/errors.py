"""Every error that a caller of the SDK can meet.

PersonalizeError
├── InvalidRequest (ValueError)      the caller sent something that cannot be honoured
│   ├── InvalidParameter             a value outside its range
│   ├── UnsupportedParameter         a known field that this service does not honour
│   ├── ContextTooLong               the prompt does not fit the model's context
│   └── TemplateError                the model's chat template refuses these messages, or there is none
├── NotFound (LookupError)           user, version, update, key, model
│   └── Gone                         it was there once; retention has removed it
├── PermissionDenied (PermissionError)  the principal may not do this
├── Unauthenticated                  no key, or one that is not valid
├── Conflict                         the state has moved on
├── AdapterError                     an adapter folder that cannot be served
│   ├── AdapterCorrupt               damaged, incomplete or hostile
│   └── AdapterMismatch              made for another base, rank or set of modules
├── ModelError                       the base model cannot be used
├── Overloaded                       refused early; `retry_after_s` says when to come back
│   └── TooManyRequests              this user has too many replies under way; others are served
├── StorageUnavailable               the store cannot write now
├── Unreachable                      the server does not answer (remote client only)
└── Cancelled                        the caller went away, or the service is closing
"""


class PersonalizeError(Exception):
    """Root of all errors of this SDK.

    Attributes:
        code: stable machine-readable name, the ``code`` of the OpenAI error envelope.
        param: the parameter it is about, where there is one.
    """

    code = "error"

    def __init__(self, message: str, *, param: str | None = None):
        super().__init__(message)
        self.message = message
        self.param = param

    def __reduce__(self):
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(cls: type[PersonalizeError], message: str, state: dict) -> PersonalizeError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class InvalidRequest(PersonalizeError, ValueError):
    code = "invalid_request"


class InvalidParameter(InvalidRequest):
    """A value outside its range; the message names the value and the allowed range."""

    code = "invalid_parameter"

    def __init__(self, param: str, value: object, allowed: str):
        super().__init__(f"{param} = {_short(value)} is not allowed; allowed: {allowed}", param=param)
        self.value = value
        self.allowed = allowed


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class ContextTooLong(InvalidRequest):
    code = "context_length_exceeded"


class TemplateError(InvalidRequest):
    code = "template_error"


class NotFound(PersonalizeError, LookupError):
    code = "not_found"


class Gone(NotFound):
    """It was there once; retention has removed it, or a part that is needed of it."""

    code = "gone"


class PermissionDenied(PersonalizeError, PermissionError):
    code = "permission_denied"


class Unauthenticated(PersonalizeError):
    code = "invalid_api_key"


class Conflict(PersonalizeError):
    code = "conflict"


class AdapterError(PersonalizeError):
    code = "adapter_error"


class AdapterCorrupt(AdapterError):
    code = "adapter_corrupt"


class AdapterMismatch(AdapterError):
    code = "adapter_mismatch"


class ModelError(PersonalizeError):
    code = "model_error"


class Overloaded(PersonalizeError):
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float = 1.0):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyRequests(Overloaded):
    """One user has as many replies waiting or running as one user may have."""

    code = "rate_limit_exceeded"


class StorageUnavailable(PersonalizeError):
    code = "storage_unavailable"


class Unreachable(PersonalizeError):
    code = "unreachable"


class Cancelled(PersonalizeError):
    code = "cancelled"


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
