"""The folder of the storage, and the lock that lets one process at a time use it."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from exporter.storage.errors import NO_ROOM, StorageError, StorageFull, StorageHeld

FILE: Final = "websocket-exporter.db"
LOCK: Final = "lock"

_DENIED: Final = (errno.EACCES, errno.EPERM)


class Lock:
    """An exclusive flock(2), held until `release` or the end of the process. Its file stays: deleting it would race."""

    def __init__(self, folder: Path) -> None:
        """Take it. Raises StorageHeld, or StorageError when the folder cannot be written."""
        try:
            self._descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise _refusal(folder, folder / LOCK, fault) from fault
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            os.close(self._descriptor)
            if isinstance(fault, BlockingIOError):
                raise StorageHeld(f"cannot store in {folder}: another process holds its lock") from fault
            raise _refusal(folder, folder / LOCK, fault) from fault

    def release(self) -> None:
        """Let the next process in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def prepare(folder: Path) -> None:
    """Create `folder` for this user alone if only it is missing, and see that it can be written.

    Raises StorageError.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise StorageError(f"cannot store in {folder}: it is not a folder") from None
    except FileNotFoundError:
        raise StorageError(f"cannot store in {folder}: {folder.parent} does not exist") from None
    except NotADirectoryError:
        raise StorageError(f"cannot store in {folder}: {folder.parent} is not a folder") from None
    except OSError as fault:
        raise _refusal(folder, folder.parent, fault) from fault
    check_access(folder, folder)


def check_access(folder: Path, path: Path) -> None:
    """See that this user may write `path`: `folder` itself or a file in it. Raises StorageError.

    Root may write anything, except on a read-only file system.
    """
    try:
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        mode = os.R_OK | os.W_OK | (os.X_OK if path == folder else 0)
        if not os.access(path, mode, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as fault:
        raise _refusal(folder, path, fault) from fault


def _refusal(folder: Path, path: Path, fault: OSError) -> StorageError:
    if fault.errno == errno.EROFS:
        why = "its file system is read-only"
    elif fault.errno in _DENIED:
        why = f"user {os.geteuid()} may not write {path}{_ownership(path)}"
    else:
        why = (fault.strerror or str(fault)).lower()
    kind = StorageFull if fault.errno in NO_ROOM else StorageError
    return kind(f"cannot store in {folder}: {why}")


def _ownership(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # in a folder that may not even be searched
        return ""
    return f", which belongs to user {status.st_uid} (mode {status.st_mode & 0o7777:04o})"
