"""Regular expressions that are compiled when they are first used.

Compiling those of all modules at their import was a tenth of a command; most commands use few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from re import compile as pattern
else:

    class pattern:  # noqa: N801 - it stands for a function
        """What re.compile would make of this text."""

        def __init__(self, text: str | bytes, flags: int = 0) -> None:
            self._text = text
            self._flags = flags

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as re.Pattern has it
            import re  # noqa: PLC0415 - see above

            found = getattr(re.compile(self._text, self._flags), name)
            # The next time, nothing stands between the caller and the method.
            setattr(self, name, found)
            return found


__all__ = ["pattern"]
