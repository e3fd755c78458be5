"""The population adapter as an operator looks at it: manifests, whom they concern, removal; plain blocking calls."""

from adapters_store import Store, Version
from adapters_store import sources as stored
from adapters_store.types import Receipt
from personalize.errors import InvalidParameter
from personalize.service.validation import check_user, is_number
from personalize.types import ForgetReceipt, LogSource, PopulationInfo, PopulationUse, UserId
from personalize.updates.storage import translated


class Population:
    """What can be asked about the population adapter and done to it without a model.

    Its owner is a user whom nobody can name: there is no external id, and the random id is refused wherever a user is
    named. What happens to the adapter happens here.
    """

    def __init__(self, store: Store):
        self._store = store

    def versions(self) -> tuple[PopulationInfo, ...]:
        """Return the manifests of all versions that ever were, the newest first."""
        with translated():
            return tuple(_info(one) for one in self._store.populations())

    def uses(self, user: str) -> tuple[PopulationUse, ...]:
        """Return the versions that a person is part of, or whose line the person's own versions go on.

        Args:
            user: an external id; a person of the logs need not be a user. A ``UserId`` names nobody in a log.
        """
        check_user(user)
        if user is None or isinstance(user, UserId):
            raise InvalidParameter("user", user, "the application's own id for the person")
        with translated():
            found = self._store.find_user(user)
            uses = self._store.population_uses(self._store.person(user), found.user_id if found else None)
        return tuple(map(_use, uses))

    def remove(self, *numbers: int) -> tuple[Version, ...]:
        """Delete versions, weights and all, without a number every one; the manifests stay.

        Raises:
            NotFound: there is no such version (any more); nothing was deleted.
        """
        for number in numbers:
            if not is_number(number):
                raise InvalidParameter("version", number, "the number of one of the population adapter's versions")
        with translated():
            return tuple(self._store.remove_populations(numbers or None))


def as_receipt(receipt: Receipt) -> ForgetReceipt:
    """Return the store's receipt in the SDK's words."""
    return ForgetReceipt(
        receipt.num_turns,
        receipt.num_versions,
        receipt.num_updates,
        receipt.num_bytes,
        receipt.finished_s,
        tuple(map(_use, receipt.population)),
    )


def _use(use: stored.PopulationUse) -> PopulationUse:
    return PopulationUse(**{name: getattr(use, name) for name in PopulationUse.__dataclass_fields__})


def _info(one: stored.Population) -> PopulationInfo:
    fields = {name: getattr(one, name) for name in PopulationInfo.__dataclass_fields__}
    return PopulationInfo(**{**fields, "sources": tuple(map(as_source, one.sources))})


def as_source(source: stored.LogSource) -> LogSource:
    return LogSource(**{name: getattr(source, name) for name in LogSource.__dataclass_fields__})
