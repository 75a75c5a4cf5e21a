"""Refusing settings that cannot be meant."""

from __future__ import annotations

from spoco_blocks.errors import SettingsError


def require_positive(settings: object, *names: str, zero: bool = False, at_most: float = float("inf")) -> None:
    """Check the range of some settings; None is left to the data.

    Parameters
    ----------
    settings : object
        Whose attributes to check.
    *names : str
        Which of them.
    zero : bool
        Whether 0 is allowed too.
    at_most : float
        The largest value allowed.

    Raises
    ------
    SettingsError
        When one is out of range.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and (not (0 <= value <= at_most) or (value == 0 and not zero)):
            least = "0 or more" if zero else "more than 0"
            most = "" if at_most == float("inf") else f" and at most {at_most}"
            raise SettingsError(f"{name} must be {least}{most}; got {value}.")
