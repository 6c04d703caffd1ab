"""Set Aozora up and run it: ``python3 bootstrap.py VERB ...``.

Needs nothing but Python: it makes ``.venv`` beside this file, installs the versions pinned in
``constraints.txt``, and runs the verb with them. Later starts find a stamp and skip all that.

Any Python from 3.6 must be able to read this file, so that it can say which newer one to install:
no newer syntax here, and annotations of newer types stand in quotes.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import namedtuple

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "aozora-setup.json")
PIP_LOG = os.path.join(VENV, "aozora-pip.log")
IS_WINDOWS = os.name == "nt"

OLDEST, NEWEST = (3, 11), (3, 13)
BAD_INPUT, FAILED = 2, 3
PROBE_SECONDS = 4.0
TORCH_WHEELS = "https://download.pytorch.org/whl/"
# First driver releases that run programs built with CUDA 13 and CUDA 12.
CUDA_13_DRIVER, CUDA_12_DRIVER = 580, 525
# CUDA 13 builds start at Turing (7.5); CUDA 12.6 builds end before Blackwell (10.0).
CUDA_13_OLDEST_CARD, CUDA_12_FIRST_MISSING_CARD = (7, 5), (10, 0)
FLASH_OLDEST_CARD = (8, 0)
# The longest path in Windows, and the longest of PyTorch's files within site-packages.
WINDOWS_LONGEST_PATH, TORCH_LONGEST_NAME = 259, 173
SITE_PACKAGES = "\\.venv\\Lib\\site-packages\\"
SHORTER_PATH = (
    "Move Aozora to a folder with a shorter path, such as C:\\Aozora, or let Windows take long "
    "paths (as administrator: reg add HKLM\\SYSTEM\\CurrentControlSet\\Control\\FileSystem "
    "/v LongPathsEnabled /t REG_DWORD /d 1 /f), then start again."
)

USAGE = """usage: python3 bootstrap.py VERB [ARGUMENTS]

  demo       make a small model and pictures, train them, and show the result
  test       run the tests
  gui        open the window (--check: only say whether it could; --screenshots DIR: pictures)
  setup      install or update everything now (--attention sdpa|flash|xformers;
             flash on Windows: --wheel FILE)
  doctor     say what this computer has and lacks
  train, cache, check, inspect, presets, ...   any other verb of Aozora; --help lists them
"""

# What Qt loads at start, and the Debian package that holds it. The second list is what a window on
# a screen needs in addition; drawing without a screen, as tests do, gets by with the first.
QT_DRAWING = (
    ("libGL.so.1", "libgl1"),
    ("libEGL.so.1", "libegl1"),
    ("libxkbcommon.so.0", "libxkbcommon0"),
    ("libglib-2.0.so.0", "libglib2.0-0"),
    ("libgthread-2.0.so.0", "libglib2.0-0"),
    ("libfreetype.so.6", "libfreetype6"),
    ("libfontconfig.so.1", "libfontconfig1"),
    ("libdbus-1.so.3", "libdbus-1-3"),
)
QT_WINDOW = (
    ("libxcb-cursor.so.0", "libxcb-cursor0"),
    ("libxkbcommon-x11.so.0", "libxkbcommon-x11-0"),
    ("libxcb-icccm.so.4", "libxcb-icccm4"),
    ("libxcb-keysyms.so.1", "libxcb-keysyms1"),
    ("libxcb-shape.so.0", "libxcb-shape0"),
    ("libxcb-image.so.0", "libxcb-image0"),
    ("libxcb-render-util.so.0", "libxcb-render-util0"),
    ("libxcb-randr.so.0", "libxcb-randr0"),
    ("libxcb-xkb.so.1", "libxcb-xkb1"),
)

Card = namedtuple("Card", "name driver capability")
TorchSource = namedtuple("TorchSource", "requirement index why")


class SetupError(Exception):
    """Something the user has to see to; shown plainly, without a traceback."""

    def __init__(self, message, hint="", code=FAILED):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


def say(text):
    """Print to stderr: a verb's standard output may be read by a program."""
    sys.stderr.write("[setup] " + text + "\n")
    sys.stderr.flush()


# Pythons


def is_suitable(version):
    """Return whether Aozora runs on Python ``version``."""
    return OLDEST <= tuple(version[:2]) <= NEWEST


def unsuitable_python_message(version, system):
    """Return what to say and what to do on a Python that is too old or too new."""
    age = "too old" if tuple(version[:2]) < OLDEST else "newer than what Aozora was tested with"
    message = "Python {}.{} is {}; Aozora needs Python 3.11, 3.12 or 3.13.".format(
        version[0], version[1], age
    )
    hints = {
        "Windows": "Install Python 3.12 (64-bit) from https://www.python.org/downloads/windows/ "
        "with 'py launcher' ticked, then start again.",
        "Darwin": "Install Python 3.12 from https://www.python.org/downloads/macos/ "
        "(or: brew install python@3.12), then start again with python3.12 bootstrap.py.",
        "Linux": "Install it with your package manager (Debian, Ubuntu: apt-get install python3.12 "
        "python3.12-venv, or python3.11; Fedora: dnf install python3.12), or from "
        "https://www.python.org/downloads/, then start again with python3.12 bootstrap.py.",
    }
    return message, hints.get(system, "Install Python 3.12 from https://www.python.org/downloads/.")


def other_python_commands(is_windows):
    """Return the commands under which a suitable Python may be found, best tested first."""
    versions = ("3.11", "3.12", "3.13")
    commands = [["py", "-" + version] for version in versions] if is_windows else []
    return commands + [["python" + version] for version in versions]


def python_answers(command):
    """Return whether ``command`` starts a suitable 64-bit Python."""
    code = "import sys; print(sys.version_info[0], sys.version_info[1], sys.maxsize > 2**32)"
    try:
        text = subprocess.check_output(
            [*command, "-c", code], stderr=subprocess.DEVNULL, universal_newlines=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    parts = text.split()
    return len(parts) == 3 and parts[2] == "True" and is_suitable((int(parts[0]), int(parts[1])))


def python_for_venv():
    """Return the command of the Python to make the environment with.

    Raises:
        SetupError: when there is none that fits.
    """
    if is_suitable(sys.version_info) and sys.maxsize > 2**32:
        return [sys.executable]
    for command in other_python_commands(IS_WINDOWS):
        if python_answers(command):
            say("using {} instead of Python {}.{}".format(" ".join(command), *sys.version_info[:2]))
            return command
    message, hint = unsuitable_python_message(sys.version_info, platform.system())
    if is_suitable(sys.version_info):
        message = "This Python is a 32-bit one; PyTorch exists only for 64-bit Pythons."
    raise SetupError(message, hint, BAD_INPUT)


# Long paths in Windows


def characters_too_many(folder, takes_long_paths):
    """Return by how much the path ``folder`` is too long for Windows to hold PyTorch in it."""
    longest = len(folder) + len(SITE_PACKAGES) + TORCH_LONGEST_NAME
    return 0 if takes_long_paths else max(0, longest - WINDOWS_LONGEST_PATH)


def takes_long_paths():
    """Return whether this Windows takes longer paths than 259 characters; by itself it does not."""
    try:
        import winreg

        name = r"SYSTEM\CurrentControlSet\Control\FileSystem"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, name) as key:
            return winreg.QueryValueEx(key, "LongPathsEnabled")[0] == 1
    except (ImportError, OSError):
        return False


def need_short_path():
    """Refuse a folder in which pip would fail after it has fetched gigabytes.

    Raises:
        SetupError: when its path is too long for this Windows.
    """
    excess = characters_too_many(ROOT, takes_long_paths()) if IS_WINDOWS else 0
    if excess:
        raise SetupError(
            "The path of this folder is too long for Windows by {} characters: {}".format(
                excess, ROOT
            ),
            SHORTER_PATH,
            BAD_INPUT,
        )


# The environment


def venv_python(name="python"):
    """Return the path of the environment's interpreter."""
    if IS_WINDOWS:
        return os.path.join(VENV, "Scripts", name + ".exe")
    return os.path.join(VENV, "bin", name)


def read_venv_config(venv):
    """Return the entries of ``pyvenv.cfg`` in ``venv``; empty when there is none."""
    try:
        with open(os.path.join(venv, "pyvenv.cfg"), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def venv_fault(config, interpreter, is_windows):
    """Return what is wrong with an environment, or "" when it can be used."""
    if not config:
        return "it is incomplete"
    version = config.get("version", config.get("version_info", ""))
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or not is_suitable((int(numbers.group(1)), int(numbers.group(2)))):
        return "its Python {} does not fit".format(version or "(unknown)")
    real = os.path.realpath(interpreter)
    if not os.path.exists(real):
        return "the Python it was made with is gone"
    if is_windows and not os.path.exists(os.path.join(config.get("home", ""), "python.exe")):
        return "the Python it was made with is gone"
    named = re.match(r"python(\d+\.\d+)$", os.path.basename(real))
    if named and named.group(1) != "{}.{}".format(*numbers.groups()):
        return "the Python it was made with was replaced by {}".format(named.group(1))
    return ""


def make_venv():
    """Make the environment, or make it anew when it cannot be used.

    Raises:
        SetupError: when that fails.
    """
    if os.path.isdir(VENV) and os.listdir(VENV):
        config = read_venv_config(VENV)
        fault = venv_fault(config, venv_python(), IS_WINDOWS)
        if not fault and not pip_answers():
            fault = "pip in it does not start"
        if not fault:
            return
        if not config:
            raise SetupError(
                "{} is there but is no Python environment.".format(VENV), "Move it away.", BAD_INPUT
            )
        say("making .venv anew: " + fault)
    else:
        say("making .venv")
    command = python_for_venv()
    need_ensurepip(command)
    done = subprocess.run(
        [*command, "-m", "venv", "--clear", VENV],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if done.returncode:
        raise SetupError(
            "Could not make {}:\n{}".format(VENV, done.stdout.strip()), explain(done.stdout)
        )


def pip_answers():
    """Return whether pip starts in the environment; it does not after an interrupted set-up."""
    command = [venv_python(), "-m", "pip", "--version"]
    return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def need_ensurepip(command):
    """Make sure that ``command`` can put pip into an environment; Debian ships that separately."""
    code = "import ensurepip, sys; print(sys.version_info[1])"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if subprocess.call([*command, "-c", code], **quiet) == 0:
        return
    minor = subprocess.check_output(
        [*command, "-c", "import sys; print(sys.version_info[1])"], universal_newlines=True
    ).strip()
    install_packages(["python3.{}-venv".format(minor)], "Python's venv module needs")
    if subprocess.call([*command, "-c", code], **quiet):
        raise SetupError("This Python has no ensurepip, so it cannot make environments.")


# What is installed


def extras_for(verb):
    """Return the optional parts of pyproject.toml that ``verb`` needs."""
    return {"dev"} if verb == "test" else set()


def wanted_stamp(python_version, extras):
    """Return what the stamp has to say for nothing to be left to install."""
    digest = hashlib.sha256()
    for name in ("constraints.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return {
        "inputs": digest.hexdigest(),
        "python": python_version,
        "root": ROOT,
        "extras": sorted(extras),
    }


def read_stamp(path):
    """Return what the stamp says; empty when there is none or it is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            stamp = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(path, stamp):
    """Write the stamp; the last act of an installation."""
    partial = path + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(stamp, file, indent=2)
    os.replace(partial, path)


def is_ready(stamp, wanted):
    """Return whether ``stamp`` covers ``wanted``; parts installed beyond that do no harm."""
    same = all(stamp.get(key) == wanted[key] for key in ("inputs", "python", "root"))
    return same and set(wanted["extras"]) <= set(stamp.get("extras", []))


def pinned(name):
    """Return the version of ``name`` in constraints.txt."""
    with open(os.path.join(ROOT, "constraints.txt"), encoding="utf-8") as file:
        found = re.search(r"^{}==(\S+)".format(re.escape(name)), file.read(), re.MULTILINE)
    if found is None:
        raise SetupError("constraints.txt does not pin {}.".format(name))
    return found.group(1)


def installed_version(name, venv):
    """Return the version of ``name`` in the environment ``venv``, or ""."""
    folder = os.path.join(venv, "Lib" if IS_WINDOWS else "lib")
    for top, folders, _ in os.walk(folder):
        for entry in folders:
            found = re.match(r"{}-(.+)\.dist-info$".format(re.escape(name)), entry)
            if found:
                return found.group(1)
        # site-packages is all that matters; what lies in it is huge.
        if os.path.basename(top) == "site-packages":
            folders[:] = []
    return ""


# torch


def parse_cards(text):
    """Return the cards in the answer of ``nvidia-smi`` (name, driver_version, compute_cap)."""
    cards = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        driver = re.match(r"\d+", parts[1]) if len(parts) == 3 else None
        capability = re.match(r"(\d+)\.(\d+)$", parts[2]) if len(parts) == 3 else None
        if driver and capability:
            numbers = (int(capability.group(1)), int(capability.group(2)))
            cards.append(Card(parts[0], int(driver.group()), numbers))
    return cards


def nvidia_cards():
    """Return the NVIDIA cards whose driver answers."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        text = subprocess.check_output(
            command, stderr=subprocess.DEVNULL, universal_newlines=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_cards(text)


def is_reachable(url, seconds=PROBE_SECONDS):
    """Return whether ``url`` answers within ``seconds``, name look-up included."""
    answers = []

    def ask():
        try:
            with urllib.request.urlopen(url, timeout=seconds) as reply:
                answers.append(reply.status == 200)
        except (OSError, urllib.error.URLError, ValueError):
            answers.append(False)

    # A look-up of a name has no time limit of its own, hence the thread.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    return bool(answers) and answers[0]


def cuda_build(cards):
    """Return the label of the CUDA build for ``cards``.

    Raises:
        SetupError: when the driver is too old for the card or for any build.
    """
    driver = min(card.driver for card in cards)
    newest = max(card.capability for card in cards)
    oldest = min(card.capability for card in cards)
    if driver >= CUDA_13_DRIVER and oldest >= CUDA_13_OLDEST_CARD:
        return "cu130"
    too_new = newest >= CUDA_12_FIRST_MISSING_CARD
    if driver < CUDA_12_DRIVER or too_new:
        raise SetupError(
            "The NVIDIA driver {} is too old for {}.".format(
                driver, "this card" if too_new else "any current PyTorch"
            ),
            "Install driver {} or newer (nvidia.com/drivers) and start again.".format(
                CUDA_13_DRIVER
            ),
            BAD_INPUT,
        )
    return "cu126"


def choose_torch(version, cards, reachable, system):
    """Return where torch comes from.

    Args:
        version: The pinned version, without a local label.
        cards: NVIDIA cards whose driver answers.
        reachable: Function of an index address that says whether it answers.
        system: ``platform.system()``.

    Raises:
        SetupError: when there is a card and no way to get a build for it.
    """
    plain = "torch==" + version
    if system == "Darwin":
        return TorchSource(plain, None, "the build for macOS")
    label = cuda_build(cards) if cards else "cpu"
    index = TORCH_WHEELS + label
    if reachable(index + "/torch/"):
        why = "for " + cards[0].name if cards else "no NVIDIA driver answers"
        return TorchSource(plain + "+" + label, index, "{} build, {}".format(label, why))
    if cards and system == "Windows":
        raise SetupError(
            "PyTorch for {} cannot be fetched: {} does not answer.".format(cards[0].name, index),
            "Check the network or proxy (HTTPS_PROXY) and start again.",
        )
    return TorchSource(plain, None, "PyTorch's own index does not answer; using pip's")


def torch_fits(installed, version, cards):
    """Return whether the ``installed`` torch does: a card wants its build, else any will do.

    A version without a label comes from pip's own index, taken where PyTorch's does not answer.
    """
    number, _, label = installed.partition("+")
    return number == version and (not cards or label in ("", cuda_build(cards)))


# pip


def explain(log):
    """Return what to do about a failure, judged by pip's own words."""
    causes = (
        (r"WinError 206|Long Path support", SHORTER_PATH),
        (
            r"No space left on device|Errno 28|not enough space|WinError 112",
            "The disk is full: free some gigabytes and run the same command again.",
        ),
        (
            r"WinError 32|being used by another process",
            "A file is in use: close Aozora and every other Python program, then run it again.",
        ),
        (
            r"Permission denied|Errno 13|Access is denied|WinError 5\b|Read-only file system",
            "No permission to write there: use a folder of your own, and check who owns .venv.",
        ),
        (
            r"NewConnectionError|ConnectTimeout|Read timed out|Max retries|ProxyError|SSLError|"
            r"CERTIFICATE_VERIFY_FAILED|Temporary failure in name resolution|getaddrinfo failed|"
            r"ConnectionResetError|IncompleteRead|ProtocolError",
            "The network failed: check connection, proxy (HTTPS_PROXY) and pip's configuration, "
            "then run the same command again; what is there already is kept.",
        ),
        (
            r"No matching distribution found|Could not find a version",
            "The package index in use lacks this version: check pip's configuration "
            "(python -m pip config list).",
        ),
    )
    for pattern, remedy in causes:
        if re.search(pattern, log, re.IGNORECASE):
            return remedy
    return "Run the same command again; if it fails again, the lines above say why."


def pip_install(arguments, what):
    """Install ``arguments`` with pip, its output on stderr.

    Raises:
        SetupError: when pip fails.
    """
    say("installing " + what)
    command = [venv_python(), "-m", "pip", "install", "--no-input", "--log", PIP_LOG]
    command += [] if sys.stderr.isatty() else ["--quiet", "--progress-bar", "off"]
    command += ["--constraint", os.path.join(ROOT, "constraints.txt"), *arguments]
    # A configured --user would be refused inside an environment.
    environment = dict(os.environ, PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    if os.path.exists(PIP_LOG):
        os.remove(PIP_LOG)
    if subprocess.call(command, stdout=sys.stderr, env=environment, cwd=ROOT):
        log = ""
        if os.path.exists(PIP_LOG):
            with open(PIP_LOG, encoding="utf-8", errors="replace") as file:
                log = file.read()
        free = shutil.disk_usage(ROOT).free / 2**30
        raise SetupError(
            "Could not install {} ({:.1f} GB free on this disk; pip's log: {}).".format(
                what, free, PIP_LOG
            ),
            explain(log[-20000:]),
        )


def install(extras, wheel=None):
    """Install everything that is missing and write the stamp."""
    if os.path.exists(STAMP):
        os.remove(STAMP)
    install_torch(nvidia_cards())
    pip_install(["setuptools==" + pinned("setuptools")], "setuptools")
    parts = sorted(extras - {"flash"})
    # Relative to the repository: its path may hold characters that pip takes for its own.
    names = ".[{}]".format(",".join(parts)) if parts else "."
    pip_install(["--no-build-isolation", "--editable", names], "Aozora and what it needs")
    # Holds the tokenizer's vocabulary; its own requirements (torchvision, timm) are not wanted.
    requirement = "open_clip_torch==" + pinned("open-clip-torch")
    pip_install(["--no-deps", requirement], "the tokenizer's vocabulary")
    if "flash" in extras and (wheel or not installed_version("flash_attn", VENV)):
        install_flash(wheel)
    version = read_venv_config(VENV).get("version", "")
    write_stamp(STAMP, wanted_stamp(version, extras))


def install_torch(cards):
    """Install the build of torch that fits the ``cards``, unless it is there."""
    version, installed = pinned("torch"), installed_version("torch", VENV)
    if torch_fits(installed, version, cards):
        return
    source = choose_torch(version, cards, is_reachable, platform.system())
    more = ["--extra-index-url", source.index] if source.index else []
    # By its exact version: left to the other packages, pip would take the largest build.
    pip_install([source.requirement, *more], "torch ({})".format(source.why))


def no_flash_package():
    """Return the error of a FlashAttention that Windows can get from nowhere but a wheel."""
    return SetupError(
        "FlashAttention 2 has no ready-made Windows package in pip's index.",
        "Pass a wheel built for this Python and torch (setup --attention flash --wheel FILE), "
        "or use --attention sdpa, which needs nothing more.",
        BAD_INPUT,
    )


def can_get_flash(wheel):
    """Return whether FlashAttention 2 is there already or can be installed on this system."""
    return bool(wheel) or not IS_WINDOWS or bool(installed_version("flash_attn", VENV))


def install_flash(wheel):
    """Install FlashAttention 2 from ``wheel``, or build it.

    Raises:
        SetupError: on Windows without a wheel, and when pip fails.
    """
    if wheel is None and IS_WINDOWS:
        raise no_flash_package()
    if wheel:
        # Forced: another build of the version that is there would be taken for the same.
        source, how = ["--force-reinstall", wheel], "from a file"
    else:
        source = ["--no-build-isolation", "flash-attn==" + pinned("flash-attn")]
        how = "by compiling it, which needs CUDA's nvcc and may take an hour"
    pip_install(["--no-deps", *source], "FlashAttention 2 " + how)
    pip_install(["einops==" + pinned("einops")], "einops")


# System libraries


def qt_libraries(verb):
    """Return the (library, Debian package) pairs that ``verb`` needs."""
    if verb == "gui":
        return QT_DRAWING + QT_WINDOW
    return QT_DRAWING if verb == "test" else ()


def can_load(library):
    """Return whether the system finds the shared ``library``."""
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_packages(libraries, loads):
    """Return the packages of the ``libraries`` that ``loads`` does not find, each once."""
    missing = (package for library, package in libraries if not loads(library))
    return list(dict.fromkeys(missing))


def is_debian(path="/etc/os-release"):
    """Return whether this system is Debian, Ubuntu or one built on them."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return False
    names = re.findall(r"^ID(?:_LIKE)?=(.*)$", text, re.MULTILINE)
    words = " ".join(names).replace('"', " ").split()
    return "debian" in words or "ubuntu" in words


def apt_commands(packages):
    """Return the two commands that install ``packages`` on Debian."""
    return (
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", *packages],
    )


def install_packages(packages, who):
    """Install Debian ``packages`` as root, or say how to.

    Raises:
        SetupError: when that is the user's to do, or fails.
    """
    update, install_them = apt_commands(packages)
    by_hand = "sudo {} && sudo {}".format(" ".join(update), " ".join(install_them))
    missing = "{} system packages that are missing: {}.".format(who, " ".join(packages))
    if not is_debian():
        raise SetupError(
            missing,
            "These are Debian's names; install their counterparts with your package manager.",
            BAD_INPUT,
        )
    if os.geteuid() != 0:
        raise SetupError(missing, "Run this, then start again:\n  " + by_hand, BAD_INPUT)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    say("installing system packages: " + " ".join(packages))
    for command in (update, install_them):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            env=environment,
        )
        # A failed update need not matter: the lists at hand may do.
        if done.returncode and command is install_them:
            raise SetupError(missing + "\n" + done.stdout[-2000:].strip(), "Run: " + by_hand)


def need_qt_libraries(verb):
    """See to the system libraries that Qt needs for ``verb``; only Linux leaves them to others."""
    if not sys.platform.startswith("linux"):
        return
    packages = missing_packages(qt_libraries(verb), can_load)
    if packages:
        install_packages(packages, "Qt needs")


# Verbs


def prepare(verb, extras, wheel=None, force=False):
    """Bring the environment to what ``verb`` needs; without pip when the stamp says it is there."""
    need_qt_libraries(verb)
    config = read_venv_config(VENV)
    stamp = read_stamp(STAMP)
    # What was chosen once (an attention backend, the tests) stays chosen.
    extras = set(extras) | extras_for(verb) | set(stamp.get("extras", []))
    usable = not venv_fault(config, venv_python(), IS_WINDOWS)
    wanted = wanted_stamp(config.get("version", ""), extras)
    if force or not usable or not is_ready(stamp, wanted):
        need_short_path()
        make_venv()
        install(extras, wheel)
        say("ready")


def command_for(verb, arguments):
    """Return the command that runs ``verb`` in the environment."""
    python = venv_python()
    if verb == "test":
        # Two files at a time; each computes with one thread, so that its bits are always the same.
        # In their order: files of few tests, which go last otherwise, may be long ones.
        workers = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
        if {"-n", "--pdb"} & set(arguments):
            workers = []
        return [python, "-m", "pytest", *workers, *arguments]
    # -P: what lies in the folder the user is in must not be taken for a part of Aozora.
    if verb == "gui":
        return [python, "-P", "-m", "gui", *arguments]
    return [python, "-P", "-m", "aozora", verb, *arguments]


def run(command):
    """Become ``command`` where the system can, else wait for it; return its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if not IS_WINDOWS:
        os.execv(command[0], command)
    # The console sends Ctrl+Break to both too, which would end this one before the verb has saved.
    signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The console sends Ctrl+C to both; the verb decides what it means.
            continue


def supports_flash(cards):
    """Return whether FlashAttention 2 works on one of the ``cards``."""
    return any(card.capability >= FLASH_OLDEST_CARD for card in cards)


def attention_choices(cards, wheel=None):
    """Return the attention backends to offer, with what to say about each.

    Args:
        cards: NVIDIA cards whose driver answers.
        wheel: The FlashAttention wheel the user gave; None when there is none.
    """
    choices = [("sdpa", "PyTorch's own; for every card, nothing more to install (recommended)")]
    if supports_flash(cards) and can_get_flash(wheel):
        choices.append(
            ("flash", "FlashAttention 2; RTX 30 and newer; compiled here or from a wheel")
        )
    if cards:
        choices.append(("xformers", "xFormers' memory-efficient attention"))
    return choices


def ask_attention(choices):
    """Ask on the terminal which of ``choices`` to use; plain Enter takes the first."""
    sys.stderr.write("Which attention backend?\n")
    for number, (name, about) in enumerate(choices, 1):
        sys.stderr.write("  {}  {:9} {}\n".format(number, name, about))
    while True:
        sys.stderr.write("Number [1]: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        answer = line.strip() or "1"
        if answer.isdigit() and 1 <= int(answer) <= len(choices):
            return choices[int(answer) - 1][0]
        if not line:
            return choices[0][0]
        sys.stderr.write("Please type a number from 1 to {}.\n".format(len(choices)))


def setup(arguments):
    """Install or update everything; asks for the attention backend when a choice exists.

    Raises:
        SetupError: when the backend cannot be had here, before anything is installed; when the
            installation fails.
    """
    parser = argparse.ArgumentParser(prog="bootstrap.py setup")
    parser.add_argument("--attention", choices=["sdpa", "flash", "xformers"])
    parser.add_argument("--wheel", metavar="FILE", help="a FlashAttention wheel to install")
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    options = parser.parse_args(arguments)
    if options.wheel and options.attention in ("sdpa", "xformers"):
        parser.error("--wheel is a file of FlashAttention; give it with --attention flash")
    if options.wheel and not os.path.isfile(options.wheel):
        raise SetupError(
            "--wheel {}: there is no such file.".format(options.wheel),
            "Give the path of a .whl file of FlashAttention 2.",
            BAD_INPUT,
        )
    cards = nvidia_cards()
    choices = attention_choices(cards, options.wheel)
    attention = options.attention or ("flash" if options.wheel else None)
    if attention is None:
        is_asked = len(choices) > 1 and sys.stdin is not None and sys.stdin.isatty()
        attention = ask_attention(choices) if is_asked else "sdpa"
    if attention == "flash" and supports_flash(cards) and not can_get_flash(options.wheel):
        raise no_flash_package()
    if attention not in dict(choices):
        raise SetupError(
            "--attention {}: no card here supports it.".format(attention),
            "FlashAttention 2 needs an NVIDIA card of compute capability 8.0 (RTX 30) or newer, "
            "xFormers an NVIDIA card; --attention sdpa runs everywhere.",
            BAD_INPUT,
        )
    wheel = os.path.abspath(options.wheel) if options.wheel else None
    extras = {attention} - {"sdpa"} | ({"dev"} if options.dev else set())
    prepare("setup", extras, wheel, force=True)
    if attention != "sdpa":
        say("to train with it: --set model.attention={}".format(attention))
    say("done. Next: python3 bootstrap.py demo")
    return 0


def start(verb, arguments):
    """Prepare and run ``verb``; return its exit code."""
    if not re.match(r"[a-z][a-z-]*$", verb):
        raise SetupError(verb + ": not a verb.", "See: python3 bootstrap.py --help", BAD_INPUT)
    if verb == "setup":
        return setup(arguments)
    prepare(verb, set())
    if verb == "test":
        os.chdir(ROOT)
    return run(command_for(verb, arguments))


def main(arguments):
    """Run ``arguments``; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stderr.write(USAGE)
        return 0 if arguments else BAD_INPUT
    try:
        return start(arguments[0], arguments[1:])
    except SetupError as error:
        sys.stderr.write("Error: {}\n".format(error.message))
        if error.hint:
            sys.stderr.write("What to do: {}\n".format(error.hint))
        return error.code
    except OSError as error:
        sys.stderr.write("Error: {}\nWhat to do: {}\n".format(error, explain(str(error))))
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; the same command goes on where it stopped.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
