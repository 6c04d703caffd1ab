"""Windows: the name of the program and the taskbar's progress, through ctypes.

The interface ITaskbarList3 is called through its table of functions: 0-2 are IUnknown's, 3 is
HrInit, 9 SetProgressValue and 10 SetProgressState.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gui.engine.desktop import ProgressLook

log = logging.getLogger(__name__)

_CLSID_TASKBAR = "{56FDF344-FD6D-11D0-958A-006097C9A090}"
_IID_TASKBAR_3 = "{EA1AFB91-9E28-4B86-90E9-9E9F8A5EEFAF}"
_CLSCTX_INPROC_SERVER = 1
_HR_INIT, _SET_VALUE, _SET_STATE = 3, 9, 10
_STEPS = 1000
_STATES: dict[ProgressLook, int] = {
    "none": 0,
    "unknown": 1,
    "normal": 2,
    "error": 4,
    "paused": 8,
}


def name_program(name: str) -> None:
    """Let the taskbar and notifications call this process ``name``; by itself it is Python."""
    if sys.platform == "win32":
        shell = ctypes.windll.shell32
        code = shell.SetCurrentProcessExplicitAppUserModelID(ctypes.c_wchar_p(name))
        if code != 0:
            log.info("The taskbar goes on calling this Python (%#010x)", code & 0xFFFFFFFF)


def progress_state(look: ProgressLook) -> int:
    """Return the taskbar's number for a look."""
    return _STATES[look]


class Guid(ctypes.Structure):
    """A GUID as COM wants it."""

    _fields_ = (
        ("data1", ctypes.c_uint32),
        ("data2", ctypes.c_uint16),
        ("data3", ctypes.c_uint16),
        ("data4", ctypes.c_uint8 * 8),
    )

    @classmethod
    def of(cls, text: str) -> Guid:
        """Return the GUID written in ``text``."""
        digits = text.strip("{}").replace("-", "")
        tail = (ctypes.c_uint8 * 8)(*bytes.fromhex(digits[16:]))
        return cls(int(digits[:8], 16), int(digits[8:12], 16), int(digits[12:16], 16), tail)


class WindowsTaskbar:
    """The progress on the button of the window ``handle``; silent where Explorer is not there."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._interface: ctypes.c_void_p | None = None
        try:
            self._interface = _create_taskbar()
        except OSError as error:
            log.info("The taskbar shows no progress: %s", error)

    def show(self, look: ProgressLook, share: float) -> None:
        """Show ``share`` in a look."""
        window = ctypes.c_void_p(self._handle)
        self._call(_SET_STATE, [ctypes.c_void_p, ctypes.c_int], window, progress_state(look))
        if look in ("normal", "paused", "error"):
            kinds = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
            self._call(_SET_VALUE, kinds, window, round(share * _STEPS), _STEPS)

    def _call(self, number: int, kinds: list[Any], *values: Any) -> None:
        if self._interface is not None:
            _method(self._interface, number, kinds)(self._interface, *values)


def _method(interface: ctypes.c_void_p, number: int, kinds: list[Any]) -> Any:
    """Return function ``number`` of a COM object."""
    table = ctypes.cast(interface, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p))).contents
    kind = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p, *kinds)
    if sys.platform == "win32":
        kind = ctypes.WINFUNCTYPE(ctypes.c_long, ctypes.c_void_p, *kinds)
    address = table[number]
    assert address is not None
    return kind(address)


def _create_taskbar() -> ctypes.c_void_p | None:
    if sys.platform != "win32":
        return None
    ole = ctypes.windll.ole32
    ole.CoInitialize(None)
    interface = ctypes.c_void_p()
    code = ole.CoCreateInstance(
        ctypes.byref(Guid.of(_CLSID_TASKBAR)),
        None,
        _CLSCTX_INPROC_SERVER,
        ctypes.byref(Guid.of(_IID_TASKBAR_3)),
        ctypes.byref(interface),
    )
    if code != 0:
        raise OSError(f"CoCreateInstance gave {code & 0xFFFFFFFF:#010x}")
    _method(interface, _HR_INIT, [])(interface)
    return interface
