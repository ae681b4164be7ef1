"""What must hold before `sidecar run` takes traffic: directories, a tmpfs for the queue, a plan that loads.

Raises SettingsError with every problem at once; what can be lived with comes back as warnings. A Redis or a billing
API that is down is neither: traffic flows without them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from sidecar.policy.current import FORMER_MAX, CurrentPlan
from sidecar.policy.loading import LoadedPlan, PlanError, builtin_plan, load_plan
from sidecar.settings import PREFIX, TLS_FILES, Settings, SettingsError
from sidecar.settings_types import EMBEDDED

# sockaddr_un holds 108 bytes; the longest name in the runtime directory is observer.sock.
_SOCKET_PATH_MAX = 107
_LAST_GOOD = "plan.last-good.yaml"
_FORMER = "plans"  # by digest
TMPFS = {"tmpfs", "ramfs", "devtmpfs"}


def runtime_dir(settings: Settings) -> Path:
    """Where the queue and the sockets of this data directory live: `{queue_dir}/sidecar-{digest}`."""
    digest = hashlib.sha256(str(settings.data_dir.resolve()).encode()).hexdigest()[:12]
    return settings.queue_dir.resolve() / f"sidecar-{digest}"


def read_plan(settings: Settings) -> LoadedPlan:
    """The plan that the sidecar starts with; raises SettingsError with every error of the file, by line."""
    return builtin_plan() if settings.plan is None else _load(settings.plan, "SIDECAR_PLAN")


def read_candidate(settings: Settings) -> CurrentPlan | None:
    """The plan that is judged beside it, if there is one; raises SettingsError likewise."""
    path = settings.plan_candidate
    return None if path is None else CurrentPlan(_load(path, "SIDECAR_PLAN_CANDIDATE"), path)


def _load(path: Path, variable: str) -> LoadedPlan:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise SettingsError([f"{variable}: {path} cannot be read: {error.strerror}"]) from None
    try:
        return load_plan(source, str(path))
    except PlanError as error:
        raise SettingsError([f"{variable}: {problem}" for problem in error.problems]) from None


def last_good_plan(settings: Settings) -> LoadedPlan:
    """The plan as it was when it last loaded: for a restarted observer whose plan file broke meanwhile."""
    return load_plan((settings.data_dir / _LAST_GOOD).read_bytes(), str(settings.plan))


def remember_plan(settings: Settings, plan: LoadedPlan) -> None:
    """Keep the bytes of a plan that came into force: as the last good one, and for the sessions that it opens."""
    folder = settings.data_dir / _FORMER
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in (settings.data_dir / _LAST_GOOD, folder / f"{plan.digest.removeprefix('sha256:')}.yaml"):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(plan.source)
        fresh.replace(path)
    for old in _former_files(settings)[FORMER_MAX + 1 :]:
        old.unlink(missing_ok=True)


def former_plans(settings: Settings) -> list[LoadedPlan]:
    """Plans that were in force before, the last one first; those that a newer release refuses are left out."""
    found = []
    for path in _former_files(settings):
        with contextlib.suppress(PlanError, OSError):
            found.append(load_plan(path.read_bytes(), str(path)))
    return found


def _former_files(settings: Settings) -> list[Path]:
    files = (settings.data_dir / _FORMER).glob("*.yaml")
    return sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def check(settings: Settings, environ: Mapping[str, str]) -> tuple[LoadedPlan, list[str]]:
    """Read the plan, look at everything named, make the directories; returns the plan and the warnings.

    `environ` has the variables of the embedded billing service. Raises SettingsError.
    """
    plan, problems, warnings = examine(settings, environ)
    if not problems:
        _private_directory(settings.data_dir, "SIDECAR_DATA_DIR", problems)
        _private_directory(runtime_dir(settings), "SIDECAR_QUEUE_DIR", problems)
    if problems or plan is None:
        raise SettingsError(problems)
    return plan, warnings


def examine(settings: Settings, environ: Mapping[str, str]) -> tuple[LoadedPlan | None, list[str], list[str]]:
    """The plan, every problem and every warning; nothing is made or changed."""
    problems: list[str] = []
    warnings: list[str] = []
    plan: LoadedPlan | None = None
    try:
        plan = read_plan(settings)
        problems += retention(settings, plan)
    except SettingsError as error:
        problems += error.problems
    try:
        read_candidate(settings)
    except SettingsError as error:
        problems += error.problems
    if settings.billing_url == EMBEDDED:
        problems += _embedded_billing(settings, environ)
    problems += _no_directory(settings.data_dir, "SIDECAR_DATA_DIR")
    if not settings.queue_dir.is_dir():
        problems.append(_no_queue_dir(settings))
    else:
        if filesystem(settings.queue_dir) not in TMPFS:
            warnings.append(
                f"SIDECAR_QUEUE_DIR ({settings.queue_dir}) is not a tmpfs: the queue holds traffic as it is, "
                "prompts and keys included, and will be written to that disk",
            )
        if len(str(runtime_dir(settings) / "observer.sock")) > _SOCKET_PATH_MAX:
            problems.append(f"SIDECAR_QUEUE_DIR: {settings.queue_dir} is too long a path for the sockets in it")
    for field in TLS_FILES:
        path = getattr(settings, field)
        if path is not None and not path.is_file():
            problems.append(f"{PREFIX}{field.upper()}: {path} is not a file")
    return plan, problems, warnings


def hold(settings: Settings) -> int:
    """Take the data directory for this process and what it becomes by exec; raises SettingsError.

    Two sidecars on one journal would each take the other's facts for their own. The lock (flock) goes with the process
    however it ends: with the file descriptor that is returned, which no child may inherit.
    """
    path = settings.data_dir / "lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
        os.close(handle)
        raise SettingsError(
            [
                f"SIDECAR_DATA_DIR: {settings.data_dir} is in use by another sidecar (process {holder} where it runs): "
                "give each sidecar a directory of its own, or stop that one"
            ]
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    os.set_inheritable(handle, True)
    return handle


def filesystem(path: Path) -> str:
    """The type of the filesystem that holds `path`, by the longest mount point that leads to it."""
    found, length = "unknown", -1
    resolved = path.resolve()
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        mount = Path(line.split(" ")[1].encode().decode("unicode_escape"))
        if resolved.is_relative_to(mount) and len(mount.parts) >= length:
            found, length = line.split(" ")[2], len(mount.parts)
    return found


def retention(settings: Settings, plan: LoadedPlan) -> list[str]:
    """What is wrong when the journal is kept for a shorter time than the plan's sessions can change."""
    needed_hours = (plan.terms.timeout_ms + plan.terms.settle_ms + plan.terms.reversal_ms) / 3_600_000
    if settings.journal_hours >= needed_hours:
        return []
    return [
        f"SIDECAR_JOURNAL_HOURS: {settings.journal_hours:g} is less than what the plan {plan.name!r} needs to rebuild "
        f"a session: timeout, settling and reversal together are {needed_hours:g} hours",
    ]


def _embedded_billing(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """What `sidecar billing` would refuse of the environment that it will be started in."""
    # Here, since it brings the ledger's libraries along, which the observer has no use for.
    from sidecar.billing.settings import BillingSettingsError, load_billing_settings  # noqa: PLC0415

    try:
        load_billing_settings({**environ, "SIDECAR_DATA_DIR": str(settings.data_dir)})
    except BillingSettingsError as error:
        return [problem for problem in error.problems if problem.startswith("SIDECAR_BILLING_")]
    return []


def _no_directory(path: Path, variable: str) -> list[str]:
    """Why `path` cannot become a directory, if it can be known without trying."""
    resolved = path.resolve()
    nearest = next(parent for parent in (resolved, *resolved.parents) if parent.exists())
    return [] if nearest.is_dir() else [f"{variable}: {nearest} is a file, and no directory can be made there"]


def _private_directory(path: Path, variable: str, problems: list[str]) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        problems.append(f"{variable}: {path} cannot be made a private directory: {error.strerror}")
        return
    if not os.access(path, os.W_OK | os.X_OK):
        problems.append(f"{variable}: {path} is not writable for this user")


def _no_queue_dir(settings: Settings) -> str:
    return (
        f"SIDECAR_QUEUE_DIR: {settings.queue_dir} is not a directory. The queue needs a tmpfs of at least "
        f"{settings.queue_bytes // 2**20 + 1} MiB: mount one there (in Kubernetes an emptyDir with medium: Memory), "
        "or name another directory (one on disk is allowed, and holds traffic as it is)"
    )
