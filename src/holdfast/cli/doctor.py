"""`holdfast doctor`: what is wrong with a store, and what can be done about it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output
from holdfast.errors import HoldfastError, NotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast._core.settings import Settings
    from holdfast.backends.files.look.checkup import Finding
    from holdfast.backends.files.look.locks import LockSeen
    from holdfast.backends.files.reading import FilesReading

__all__ = ["doctor"]

SETTLE_TRIES: Final = 3  #: A torn tail that still grows is a write under way.
_STYLES: Final = {"error": "red", "warning": "yellow", "info": "dim"}


def doctor(
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Remove locks that the table calls dead, and strays that nobody needs.",
        ),
    ] = False,
    store: output.Store = None,
    config: output.Config = None,
    as_json: output.Json = False,
) -> None:
    """
    Look at a store: its medium, control store, owners, locks, transcripts.

    Changes nothing without --fix, and never what a live process owns.  Exit code 0: healthy;
    1: at least one error was found.

    \b
    holdfast doctor
    holdfast doctor --fix
    holdfast doctor --json
    """
    from holdfast.backends.files.reading import FilesReading

    settings, where = output.settings(config), os.path.abspath(output.where(store))
    reading, findings = None, []
    try:
        reading = FilesReading(where)
    except NotFoundError:
        raise
    except StoreError as error:
        findings.append(_broken(error))
    checkup = _Checkup(where, settings, reading, fix=fix)
    findings += list(checkup.run())
    ok = not any(each.severity == "error" and not each.fixed for each in findings)
    if as_json:
        told = {"ok": ok, "store": where, "findings": [each.to_json() for each in findings]}
        output.emit({**told, **checkup.facts})
    else:
        _print(where, checkup.facts, findings, ok=ok)
    if not ok:
        raise typer.Exit(1)


def _broken(error: StoreError) -> Finding:
    from holdfast.backends.files.look.checkup import Finding

    return Finding(error.code, "error", error.detail, error.hint, error.path)


class _Checkup:
    """One look at everything.  `facts` is complete when `run` is at its end."""

    def __init__(
        self, where: str, settings: Settings, reading: FilesReading | None, *, fix: bool
    ) -> None:
        self._where, self._settings, self._reading = where, settings, reading
        self._fix = fix
        self.facts: dict[str, Any] = {"control": {}, "locks": 0, "transcripts": 0}

    def run(self) -> Iterator[Finding]:
        from holdfast.backends.files.look import checkup

        yield from checkup.check_medium(
            self._where, allowed=self._settings.allow_shared_filesystem
        )
        if self._reading is not None:
            yield from checkup.check_control(self._reading)
            owners, findings = checkup.check_owners(self._reading)
            self.facts["control"] |= owners
            yield from findings
        log, findings = checkup.log_facts(self._where)
        self.facts["control"] |= log
        yield from findings
        yield from checkup.check_gate(self._where)
        yield from checkup.check_foreigners()
        try:
            yield from self._locks()
            yield from self._transcripts()
            yield from self._strays()
        except StoreError as error:
            yield _broken(error)

    # -------------------------------------------------------------------------- locks

    def _locks(self) -> Iterator[Finding]:
        from holdfast.backends.files.look.locks import locks_in

        for seen in locks_in(self._where, stale_ms=self._settings.write_lock_stale_ms):
            self.facts["locks"] += 1
            yield self._lock(seen)

    def _lock(self, seen: LockSeen) -> Finding:
        from holdfast.backends.files.look.checkup import Finding
        from holdfast.cli.locks import age_of, holder_of

        why = f"row {seen.row}: {seen.says}" if seen.row else seen.says
        detail = f"{holder_of(seen)}, {age_of(seen.age_ms) or 'age unknown'}, {why}"
        facts = {"lock": seen.to_json()}
        if seen.verdict == "reclaim":
            hint = f"{seen.outlook}; or remove it now: holdfast doctor --fix"
            found = Finding("dead_lock", "info", detail, hint, seen.path, facts=facts)
            return self._reclaimed(found, seen.path) if self._fix else found
        if seen.frozen:
            hint = f"{seen.outlook}: kill -CONT {seen.pid}"
            return Finding("frozen_holder", "error", detail, hint, seen.path, facts=facts)
        if seen.verdict == "report":
            hint = f"{seen.outlook}; look at it: holdfast locks show {seen.path}"
            return Finding("stale_lock", "error", detail, hint, seen.path, facts=facts)
        return Finding("lock", "info", detail, seen.outlook, seen.path, facts=facts)

    def _reclaimed(self, found: Finding, path: str) -> Finding:
        from holdfast.backends.files.look.mending import reclaim

        stale_ms = self._settings.write_lock_stale_ms
        try:
            return found.after_fix(fixed=reclaim(path, stale_ms=stale_ms))
        except (HoldfastError, OSError) as error:
            return found.after_fix(fixed=False, why=str(error))

    # --------------------------------------------------------------------- transcripts

    def _transcripts(self) -> Iterator[Finding]:
        from holdfast.backends.files.look.checkup import Finding
        from holdfast.backends.files.look.locks import TRANSCRIPT_SUFFIX, transcripts_in

        there: set[str] = set()
        for _, entries in transcripts_in(os.path.realpath(self._where)):
            for entry in entries:
                if entry.name.endswith(TRANSCRIPT_SUFFIX):
                    there.add(entry.path)
                    self.facts["transcripts"] += 1
                    yield from _damage(entry.path)
        for session in self._sessions():
            path = os.path.join(os.path.realpath(self._where), session.transcript)
            if session.end_offset and path not in there:
                yield Finding(
                    "missing",
                    "error",
                    f"it is gone, with {session.end_offset} bytes that were committed",
                    "put the file back from a backup",
                    path,
                )

    def _sessions(self) -> Iterator[Any]:
        try:
            if self._reading is not None:
                yield from (session for session, _ in self._reading.sessions())
        except StoreError:
            return  # `check_control` has told it.

    # -------------------------------------------------------------------------- strays

    def _strays(self) -> Iterator[Finding]:
        from holdfast.backends.files.look.checkup import Finding
        from holdfast.backends.files.look.strays import remove, strays_in

        for stray in strays_in(self._where):
            hint = "remove it by hand when no Holdfast runs on this store"
            found = Finding("stray", "info", stray.detail, hint, stray.path)
            if not self._fix:
                yield found
                continue
            try:
                yield found.after_fix(fixed=remove(stray))
            except StoreError as error:
                yield found.after_fix(fixed=False, why=error.detail)


def _damage(path: str) -> Iterator[Finding]:
    """What `sessions verify` says of one transcript, as at most two findings."""
    from holdfast._core.verify import verify
    from holdfast.backends.files.look.checkup import Finding
    from holdfast.backends.files.reading_files import read_transcript

    try:
        data = read_transcript(path)
        for _ in range(SETTLE_TRIES):
            if data.endswith(b"\n") or (again := read_transcript(path)) == data:
                break
            data = again
    except NotFoundError:
        return  # Removed while we looked.
    except StoreError as error:
        yield Finding("unreadable", "error", error.detail, error.hint, path)
        return
    problems = verify(data).problems
    torn = [problem for problem in problems if problem.code == "torn_tail"]
    if torn:
        hint = "nothing to do: the next append gives it its newline, and readers skip it"
        yield Finding("torn_tail", "warning", torn[0].detail, hint, path)
    if len(problems) > len(torn):
        first = next(problem for problem in problems if problem.code != "torn_tail")
        detail = f"line {first.line}: {first.code}: {first.detail}"
        more = len(problems) - len(torn) - 1
        detail += f", and {more} more" if more else ""
        hint = f"repair it, a copy is kept: holdfast sessions repair {path}"
        yield Finding("damaged", "error", detail, hint, path)


# ------------------------------------------------------------------------------- printing


def _print(where: str, facts: dict[str, Any], findings: list[Finding], *, ok: bool) -> None:
    control = facts["control"]
    output.say(f"{'store':<13}{where}")
    for each in findings:
        if each.code in {"medium", "read_only", "shared_filesystem"}:
            output.say(f"{'medium':<13}{each.detail}")
    output.say(f"{'log':<13}{_log(control)}")
    output.say(f"{'processes':<13}{_processes(control)}")
    output.say(f"{'locks':<13}{facts['locks']}")
    output.say(f"{'transcripts':<13}{facts['transcripts']}")
    told = [each for each in findings if each.code != "medium"]
    if told:
        output.say()
    for each in sorted(told, key=lambda one: [*_STYLES].index(one.severity)):
        _print_one(each)
    errors = sum(each.severity == "error" and not each.fixed for each in findings)
    output.say()
    verdict = "healthy" if ok else f"not healthy: {errors} error(s)"
    output.say(output.paint(verdict, "green" if ok else "red"))


def _print_one(each: Finding) -> None:
    severity = output.paint(f"{each.severity:<9}", _STYLES[each.severity])
    output.say(f"{severity}{each.code:<18}{each.detail}")
    if each.path is not None:
        output.say(f"{'':<27}{each.path}")
    if each.fixed:
        output.say(f"{'':<27}{output.paint('removed', 'green')}")
    elif each.fixed is False:
        output.say(f"{'':<27}left: {each.why or 'nobody can prove that nobody needs it'}")
    elif each.hint:
        output.say(f"{'':<27}→ {each.hint}")


def _log(control: dict[str, Any]) -> str:
    reader = control.get("oldest_reader")
    told = "no open reader"
    if reader is not None:
        known = reader["pid"] is not None
        told = f"oldest reader pid {reader['pid']}" if known else str(reader["detail"])
    return f"{control.get('wal_bytes', 0) / 1024:.0f} KB, {told}"


def _processes(control: dict[str, Any]) -> str:
    owners, runners = control.get("owners", {}), control.get("runners", [])
    told = ", ".join(f"{count} {life}" for life, count in sorted(owners.items())) or "none"
    serving = sorted({each["agent"] for each in runners if each["life"] != "dead"})
    return f"{told}; running {', '.join(serving)}" if serving else f"{told}; nobody runs turns"
