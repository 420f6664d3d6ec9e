"""Many small cases in one test: for pure code, where a test id for each case costs more than the case."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Test = Callable[..., None]


def each(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Test], Test]:
    """Run the test once for each case, as parametrize does, but under one test id.

    ``names`` is one argument, or a tuple of them; each case then is a tuple too. Every case runs,
    and the failure names each case that failed. Decorators can be stacked. A fixture is made once
    for all cases, so use none that a case changes.
    """
    every = [case if isinstance(names, tuple) else (case,) for case in cases]
    keys = names if isinstance(names, tuple) else (names,)
    assert every, "a test without a case shows nothing"

    def around(test: Test) -> Test:
        @functools.wraps(test)
        def run(**fixtures: object) -> None:
            failed = []
            for case in every:
                values = dict(zip(keys, case, strict=True))
                try:
                    test(**fixtures, **values)
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - it is raised below
                    failed.append((values, error))

            if failed:
                message = f"{len(failed)} of {len(every)} cases failed"
                shown = [f"{values}: {type(error).__name__}: {error}" for values, error in failed]
                raise AssertionError("\n".join([message, *shown])) from failed[0][1]

        # pytest reads the fixtures from here: what the cases give is none of them.
        signature = inspect.signature(test)
        left = [value for key, value in signature.parameters.items() if key not in keys]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run

    return around
