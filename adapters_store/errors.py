"""Every error that the store raises; each carries a stable ``code``.

StoreError
├── NotFound (LookupError)       user, turn, update, version, key, or data that retention has removed
├── InvalidValue (ValueError)    an argument outside its range
├── HeadMoved                    the head is no longer the parent that the version was made from
│   └── UpdateClosed             the update has its final outcome already, or another process claimed it
├── Erased                       the user was forgotten while the work was under way
├── LeaseLost                    another process holds the learning lease
├── AdapterInvalid               a folder that is no servable adapter
│   ├── AdapterCorrupt           damaged, incomplete or hostile
│   └── AdapterMismatch          sound, but not for this base or not of a kind that is served
├── StorageUnavailable           the disk or the database refuses to work
│   ├── StoreFull                no space left
│   │   └── QuotaExceeded        the user's own limit
│   ├── SchemaTooNew             the database was written by newer code
│   └── StoreClosed              the store was closed
"""


class StoreError(Exception):
    """Root of all errors of this package."""

    code = "store_error"


class NotFound(StoreError, LookupError):
    code = "not_found"


class InvalidValue(StoreError, ValueError):
    """The message names the value and the allowed range."""

    code = "invalid_value"

    def __init__(self, name: str, value: object, allowed: str):
        super().__init__(name, value, allowed)
        self.name, self.value, self.allowed = name, value, allowed

    def __str__(self) -> str:
        shown = repr(self.value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return f"{self.name} = {shown} is not allowed; allowed: {self.allowed}"


class HeadMoved(StoreError):
    code = "head_moved"


class UpdateClosed(HeadMoved):
    code = "update_closed"


class Erased(StoreError):
    code = "erased"


class LeaseLost(StoreError):
    code = "lease_lost"


class AdapterInvalid(StoreError):
    code = "adapter_invalid"


class AdapterCorrupt(AdapterInvalid):
    code = "adapter_corrupt"


class AdapterMismatch(AdapterInvalid):
    code = "adapter_mismatch"


class StorageUnavailable(StoreError):
    code = "storage_unavailable"


class StoreFull(StorageUnavailable):
    code = "store_full"


class QuotaExceeded(StoreFull):
    code = "quota_exceeded"


class SchemaTooNew(StorageUnavailable):
    code = "schema_too_new"


class StoreClosed(StorageUnavailable):
    code = "store_closed"
