"""Every exception that this package raises on purpose.

Each has a domain name and a built-in base, so that callers may catch either. Messages say what was got, what was
expected and what to do.
"""

from __future__ import annotations


class SpocoBlocksError(Exception):
    """Base of all errors that a user can act on; the command line prints them without a traceback."""


class GridError(SpocoBlocksError, ValueError):
    """Boxes or blocks that do not fit each other, the volume or the store."""


class SettingsError(SpocoBlocksError, ValueError):
    """A configuration that cannot be meant."""


class VolumeError(SpocoBlocksError, ValueError):
    """A volume of the wrong shape, axes, data type or content."""


class VolumeNotFoundError(SpocoBlocksError, FileNotFoundError):
    """Nothing is stored where a volume was expected."""


class StoreError(SpocoBlocksError, OSError):
    """An object store that did not answer or refused; another attempt may go better."""


class LabelsError(SpocoBlocksError, ValueError):
    """Labels from which nothing can be learnt."""


class CheckpointError(SpocoBlocksError, ValueError):
    """A checkpoint that is missing, damaged, of another version or made for other data."""


class TrainingError(SpocoBlocksError, RuntimeError):
    """Training that cannot go on."""


class TrainingStoppedError(SpocoBlocksError, RuntimeError):
    """Training that was told to stop, saved its state, and continues when it is started again."""


class HandOverError(SpocoBlocksError, RuntimeError):
    """Work that ended itself before its job's time is over; what is done is kept, and it continues when started again.

    Attributes
    ----------
    advanced : bool
        Whether anything was finished: if not, as much time again will not do either.
    """

    def __init__(self, message: str, *, advanced: bool) -> None:
        super().__init__(message)
        self.advanced = advanced


class LedgerError(SpocoBlocksError, RuntimeError):
    """A ledger that is in use elsewhere or does not belong to this stage."""


class BlockError(SpocoBlocksError, RuntimeError):
    """Blocks that failed while the others were finished."""


class ExecutorError(SpocoBlocksError, RuntimeError):
    """Workers that cannot be used as asked, cannot be reached or were all lost."""


class ResourceError(SpocoBlocksError, MemoryError):
    """A plan that needs more memory or disk than it was given."""


class FetchError(SpocoBlocksError, RuntimeError):
    """Example data that could not be brought here."""
