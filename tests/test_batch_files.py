"""The .bat files, run by wine's cmd with stand-ins for Python that write down how they were called.

Stand-ins are small Windows programs, because cmd neither waits for a script nor gets its exit code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPILER = "x86_64-w64-mingw32-gcc"
PROGRAM = r"""
#include <windows.h>
#include <stdio.h>
#include <wchar.h>
/* Appends its folder and its command line to STUB_LOG in UTF-8. For bootstrap.py it ends with
   STUB_CODE. */
int WINAPI WinMain(HINSTANCE a, HINSTANCE b, LPSTR c, int d) {
    WCHAR *line = GetCommandLineW();
    WCHAR folder[4096];
    char text[8192], place[8192];
    GetCurrentDirectoryW(4096, folder);
    WideCharToMultiByte(CP_UTF8, 0, line, -1, text, sizeof text, NULL, NULL);
    WideCharToMultiByte(CP_UTF8, 0, folder, -1, place, sizeof place, NULL, NULL);
    FILE *log = fopen(getenv("STUB_LOG"), "ab");
    fprintf(log, "%s|%s\n", place, text);
    fclose(log);
    const char *code = getenv("STUB_CODE");
    return code != NULL && wcsstr(line, L"bootstrap.py") != NULL ? atoi(code) : 0;
}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("wine") is None, reason="wine is not installed"),
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed"),
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A Windows of its own and a stand-in program."""
    root = tmp_path_factory.mktemp("wine")
    (root / "stub.c").write_text(PROGRAM, encoding="utf-8")
    command = [COMPILER, "-include", "stdlib.h", "-o", str(root / "stub.exe"), str(root / "stub.c")]
    subprocess.run(command, check=True, timeout=60)
    environment = os.environ | {
        "WINEPREFIX": str(root / "prefix"),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree=;mshtml=",
        "LC_ALL": "C.UTF-8",
    }
    environment.pop("DISPLAY", None)
    subprocess.run(["wineboot", "-i"], env=environment, timeout=120, capture_output=True)
    yield root, environment
    subprocess.run(["wineserver", "-k"], env=environment, timeout=30, capture_output=True)


@pytest.fixture
def folder(workplace, tmp_path):
    """The program's folder, with spaces and letters of no code page."""
    folder = tmp_path / "mit Lücke und 雪"
    scripts = folder / ".venv" / "Scripts"
    scripts.mkdir(parents=True)
    for name in ("setup.bat", "start_gui.bat"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(workplace[0] / "stub.exe", scripts / "pythonw.exe")
    return folder


@pytest.fixture
def run(workplace, folder, tmp_path):
    """Return a function that runs a .bat file; it returns exit code, text and recorded calls."""
    root, environment = workplace

    def run_file(name, *arguments, pythons=("py",), code="0", cwd=folder):
        path = tmp_path / "path"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for python in pythons:
            shutil.copy(root / "stub.exe", path / f"{python}.exe")
        log = tmp_path / "calls.txt"
        log.unlink(missing_ok=True)
        settings = {"WINEPATH": f"Z:{path}", "STUB_LOG": f"Z:{log}", "STUB_CODE": code}
        # Without a folder wine's cmd takes start_gui.bat for its own word "start".
        file = os.path.join(".", os.path.relpath(folder / name, cwd)).replace("/", "\\")
        done = subprocess.run(
            ["wine", "cmd", "/c", file, *arguments],
            env=environment | settings,
            cwd=cwd,
            input=b"\r\n",
            capture_output=True,
            timeout=60,
        )
        if "gui" in name and code == "0" and pythons:
            # What `start` began may still be on its way.
            subprocess.run(["wineserver", "-w"], env=environment | settings, timeout=60)
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        calls = [line.rstrip() for line in lines]
        return done.returncode, done.stdout.decode("utf-8", "replace"), calls

    return run_file


def program(folder):
    return "Z:" + str(folder / "bootstrap.py").replace("/", "\\")


def test_setup_is_run_with_its_arguments(run, folder):
    code, text, calls = run("setup.bat", "--attention", "flash")
    assert code == 0
    assert "Aozora is ready" in text
    assert calls[-1].endswith(f'-3 "{program(folder)}" setup --attention flash')


def test_a_setup_that_fails_says_so(run):
    code, text, _ = run("setup.bat", code="3")
    assert code == 3
    assert "did not finish" in text


@pytest.mark.parametrize("name", ["setup.bat", "start_gui.bat"])
def test_without_python_it_says_what_to_install(run, name):
    code, text, calls = run(name, pythons=())
    assert code == 2
    assert calls == []
    assert "Python was not found" in text
    assert "python.org" in text


@pytest.mark.parametrize("python", ["python", "python3"])
def test_other_names_of_python_do(run, folder, python):
    code, _, calls = run("setup.bat", pythons=(python,))
    assert code == 0
    assert calls[-1].endswith(f'"{program(folder)}" setup')
    assert python in calls[-1].split("|")[1].split()[0]


def test_the_window_opens_after_a_check(run, folder):
    code, _, calls = run("start_gui.bat", r"C:\my run\a.json")
    assert code == 0
    assert calls[-2].endswith(f'"{program(folder)}" gui --check')
    assert "pythonw.exe" in calls[-1]
    assert "-P -m gui" in calls[-1]
    assert r"C:\my run\a.json" in calls[-1]


def test_the_window_opens_in_the_programs_folder(run, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, _, calls = run("start_gui.bat", cwd=elsewhere)
    assert code == 0
    places = [call.split("|")[0].replace("\\", "/") for call in calls[-2:]]
    assert places == [f"Z:{elsewhere}", f"Z:{folder}"]


def test_a_window_that_cannot_open_says_so(run):
    code, text, calls = run("start_gui.bat", code="3")
    assert code == 3
    assert "The window cannot open" in text
    assert not any("pythonw" in call for call in calls)
