"""XAPI's error codes as celltree's errors: what the caller does next, in words a tenant may read.

Texts hold no references, addresses or paths; the failure itself stays the cause, for the operator's log.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from cells.errors import CelltreeError, LeaseLost, Permanent, Refusal, Temporary
from cells.messages import RefusalCode
from xenapi_host.session import Session, TaskTimedOut, XenFailure

P = ParamSpec("P")
R = TypeVar("R")

_NO_ROOM = {
    "HOST_NOT_ENOUGH_FREE_MEMORY": "the host has not enough free memory",
    "HOST_NOT_ENOUGH_PCPUS": "the host has not enough processors",
    "NO_HOSTS_AVAILABLE": "no host of the pool can run the server now",
    "SR_FULL": "the host's storage is full",
    "SR_BACKEND_FAILURE_44": "the host's storage is full",
}

# code -> (what is wrong, seconds until it may be right again)
_TEMPORARY = {
    "CANNOT_CONTACT_HOST": ("the host does not answer", 15.0),
    "DEVICE_DETACH_REJECTED": ("a disk is still in use", 5.0),
    "DEVICE_DETACH_TIMEOUT": ("a disk is still in use", 10.0),
    "HANDLE_INVALID": ("something has changed on the host meanwhile", 1.0),
    "HOST_DISABLED": ("the host is under maintenance", 30.0),
    "HOST_IS_SLAVE": ("the pool is choosing a new master", 10.0),
    "HOST_NOT_LIVE": ("the host is down", 30.0),
    "HOST_OFFLINE": ("the host is down", 30.0),
    "HOST_STILL_BOOTING": ("the host is still starting", 15.0),
    "INTERNAL_ERROR": ("the host had an internal error", 5.0),
    "OTHER_OPERATION_IN_PROGRESS": ("another operation is under way", 2.0),
    "SESSION_AUTHENTICATION_FAILED": ("the pool does not accept the cell's credentials", 60.0),
    "SR_BACKEND_FAILURE_40": ("the host's storage is busy", 4.0),
    "SR_BACKEND_FAILURE_46": ("a disk is not available just now", 5.0),
    "SR_BACKEND_FAILURE_109": ("the disk has too many snapshot layers until storage has merged them", 30.0),
    "SR_HAS_NO_PBDS": ("the host's storage is not connected", 30.0),
    "SR_NO_PBDS": ("the host's storage is not connected", 30.0),
    "TASK_CANCELLED": ("the operation was cancelled on the host", 5.0),
    "TOO_MANY_PENDING_TASKS": ("the pool is overloaded", 10.0),
    "UUID_INVALID": ("something has changed on the host meanwhile", 1.0),
    "VDI_IN_USE": ("a disk is still in use", 2.0),
}

_PERMANENT = {
    "OPERATION_BLOCKED": "the operation is blocked on the host by its administrator",
    "OPERATION_NOT_ALLOWED": "the host does not allow the operation",
    "SR_BACKEND_FAILURE_79": "the disk's size is not one that the host's storage can give",
    "VM_BAD_POWER_STATE": "the server's power state does not allow it",
    "VM_HVM_REQUIRED": "the host cannot run this kind of guest",
    "VM_NO_SUSPEND_SR": "the host has no storage for a suspended server's memory",
    "VM_REQUIRES_NETWORK": "the host lacks the server's network",
    "VM_REQUIRES_SR": "the host cannot reach the server's disk",
    "XENAPI_MISSING_PLUGIN": "the host lacks celltree's plugins; its administrator installs them",
}


def told(what: str, failure: XenFailure) -> CelltreeError:
    """The error to raise for a failure met while trying to do `what`, such as 'build the server'."""
    code = failure.code
    if code in _NO_ROOM:
        return Refusal(RefusalCode.NO_ROOM, f"could not {what}: {_NO_ROOM[code]}")
    if code in _TEMPORARY:
        text, seconds = _TEMPORARY[code]
        return Temporary(f"could not {what}: {text}", retry_after=seconds)
    if code in _PERMANENT:
        return Permanent(f"could not {what}: {_PERMANENT[code]}")
    return Permanent(f"could not {what}: the host says {code}")


def told_to_stop(error: Permanent | Refusal) -> bool:
    """Whether the journal has stopped us: then another job does the rest, and we touch nothing."""
    return isinstance(error, LeaseLost) or (isinstance(error, Refusal) and error.code == RefusalCode.DELETED)


def telling(
    what: str,
) -> Callable[[Callable[Concatenate[Session, P], R]], Callable[Concatenate[Session, P], R]]:
    """Mark a driver function: whatever the pool refuses leaves it as Temporary, Permanent or Refusal."""

    def mark(function: Callable[Concatenate[Session, P], R]) -> Callable[Concatenate[Session, P], R]:
        @wraps(function)
        def told_function(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(session, *args, **kwargs)
            except XenFailure as failure:
                if failure.code in ("HANDLE_INVALID", "UUID_INVALID"):
                    session.known.clear()
                raise told(what, failure) from failure
            except TaskTimedOut as slow:
                raise Temporary(f"could not {what} in time", retry_after=5.0) from slow

        return told_function

    return mark
