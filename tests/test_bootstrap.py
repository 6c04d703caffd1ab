from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _load_bootstrap():
    spec = importlib.util.spec_from_file_location("aozora_bootstrap", ROOT / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = _load_bootstrap()
RTX_20 = bootstrap.Card("RTX 2070", 581, (7, 5))
RTX_40 = bootstrap.Card("RTX 4090", 581, (8, 9))


def _answers(url):
    return True


def _is_silent(url):
    return False


# Pythons


def test_python_3_6_can_read_the_file():
    ast.parse((ROOT / "bootstrap.py").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize(
    ("version", "suits"),
    [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False), ((2, 7), False)],
)
def test_pythons_from_3_11_to_3_13_suit(version, suits):
    assert bootstrap.is_suitable(version) is suits


@pytest.mark.parametrize("system", ["Windows", "Linux", "Darwin", "FreeBSD"])
def test_an_unsuitable_python_is_told_which_to_install(system):
    message, hint = bootstrap.unsuitable_python_message((3, 8, 1), system)
    assert "Python 3.8 is too old" in message
    assert "3.11, 3.12 or 3.13" in message
    assert "3.12" in hint
    assert "python.org" in hint


def test_an_old_python_without_a_better_one_is_refused(monkeypatch):
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(bootstrap, "python_answers", lambda command: False)
    with pytest.raises(bootstrap.SetupError, match=r"3\.9 is too old") as caught:
        bootstrap.python_for_venv()
    assert caught.value.code == 2


def test_an_old_python_uses_a_better_one_that_is_there(monkeypatch):
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(bootstrap, "python_answers", lambda command: command == ["python3.12"])
    assert bootstrap.python_for_venv() == ["python3.12"]


@pytest.mark.parametrize(
    ("length", "takes_long_paths", "excess"), [(61, False, 0), (62, False, 1), (200, True, 0)]
)
def test_a_folder_must_leave_room_for_the_longest_of_pytorchs_files(
    length, takes_long_paths, excess
):
    folder = "C:\\" + "x" * (length - 3)
    assert bootstrap.characters_too_many(folder, takes_long_paths) == excess


def test_a_folder_too_long_for_windows_is_refused_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr(bootstrap, "IS_WINDOWS", True)
    monkeypatch.setattr(bootstrap, "ROOT", "C:\\" + "x" * 68)
    monkeypatch.setattr(bootstrap, "read_stamp", lambda path: {})
    monkeypatch.setattr(bootstrap, "wanted_stamp", lambda version, extras: {})
    monkeypatch.setattr(bootstrap, "takes_long_paths", lambda: False)
    monkeypatch.setattr(bootstrap, "make_venv", lambda: pytest.fail("too late"))
    with pytest.raises(
        bootstrap.SetupError, match="too long for Windows by 10 characters"
    ) as caught:
        bootstrap.prepare("demo", set(), force=True)
    assert "C:\\Aozora" in caught.value.hint
    assert "LongPathsEnabled" in caught.value.hint
    assert caught.value.code == 2


def test_windows_asks_the_launcher_first():
    assert bootstrap.other_python_commands(True)[0] == ["py", "-3.11"]
    assert ["py", "-3.11"] not in bootstrap.other_python_commands(False)


# torch


def test_cards_are_read_from_nvidia_smi_and_other_lines_are_not():
    text = "NVIDIA GeForce RTX 2070, 581.15, 7.5\nOld, 390.1, [N/A]\nfailed\n"
    assert bootstrap.parse_cards(text) == [bootstrap.Card("NVIDIA GeForce RTX 2070", 581, (7, 5))]


@pytest.mark.parametrize(
    ("cards", "reachable", "system", "requirement"),
    [
        ([], _answers, "Linux", "torch==2.13.0+cpu"),
        ([], _is_silent, "Linux", "torch==2.13.0"),
        ([], _is_silent, "Windows", "torch==2.13.0"),
        ([], _answers, "Darwin", "torch==2.13.0"),
        ([RTX_40], _answers, "Windows", "torch==2.13.0+cu130"),
        ([RTX_40], _is_silent, "Linux", "torch==2.13.0"),
    ],
)
def test_torch_comes_from_where_card_network_and_system_say(cards, reachable, system, requirement):
    assert bootstrap.choose_torch("2.13.0", cards, reachable, system).requirement == requirement


def test_a_card_on_windows_without_pytorchs_index_is_refused_rather_than_left_unused():
    with pytest.raises(bootstrap.SetupError, match="RTX 4090"):
        bootstrap.choose_torch("2.13.0", [RTX_40], _is_silent, "Windows")


@pytest.mark.parametrize(
    ("driver", "capability", "label"),
    [
        (580, (7, 5), "cu130"),
        (580, (6, 1), "cu126"),
        (560, (8, 9), "cu126"),
        (580, (12, 0), "cu130"),
    ],
)
def test_the_cuda_build_fits_driver_and_card(driver, capability, label):
    assert bootstrap.cuda_build([bootstrap.Card("card", driver, capability)]) == label


@pytest.mark.parametrize(("driver", "capability"), [(572, (12, 0)), (470, (8, 6))])
def test_a_driver_too_old_for_the_card_is_named(driver, capability):
    with pytest.raises(bootstrap.SetupError, match=f"driver {driver} is too old") as caught:
        bootstrap.cuda_build([bootstrap.Card("card", driver, capability)])
    assert "580" in caught.value.hint


@pytest.mark.parametrize(
    ("installed", "cards", "fits"),
    [
        ("2.13.0+cpu", [], True),
        ("2.13.0+cu130", [], True),
        ("2.13.0+cpu", [RTX_20], False),
        ("2.13.0+cu130", [RTX_20], True),
        ("2.13.0", [RTX_20], True),
        ("2.12.0+cpu", [], False),
        ("", [], False),
    ],
)
def test_a_torch_that_fits_is_not_fetched_again(installed, cards, fits):
    assert bootstrap.torch_fits(installed, "2.13.0", cards) is fits


def test_a_probe_that_cannot_connect_says_no():
    assert not bootstrap.is_reachable("http://127.0.0.1:1/", seconds=1)


# The environment and its stamp


def _config(**changes):
    return {"home": "/nowhere", "version": "3.11.7", **changes}


def test_an_environment_without_fault_is_used(tmp_path):
    interpreter = tmp_path / "python3.11"
    interpreter.touch()
    assert bootstrap.venv_fault(_config(), str(interpreter), False) == ""


@pytest.mark.parametrize(
    ("config", "name", "is_windows", "fault"),
    [
        ({}, "python3.11", False, "incomplete"),
        (_config(version="3.9.1"), "python3.11", False, "does not fit"),
        (_config(), "missing", False, "gone"),
        (_config(), "python3.11", True, "gone"),
        (_config(version="3.12.1"), "python3.11", False, "replaced by 3.11"),
    ],
)
def test_an_environment_that_cannot_be_used_says_why(tmp_path, config, name, is_windows, fault):
    (tmp_path / "python3.11").touch()
    assert fault in bootstrap.venv_fault(config, str(tmp_path / name), is_windows)


def test_a_stamp_read_back_is_ready_and_a_damaged_one_is_not(tmp_path):
    wanted = bootstrap.wanted_stamp("3.11.7", {"dev"})
    path = tmp_path / "stamp.json"
    bootstrap.write_stamp(str(path), wanted)
    assert bootstrap.is_ready(bootstrap.read_stamp(str(path)), wanted)
    path.write_text('{"inputs": ', encoding="utf-8")
    assert bootstrap.read_stamp(str(path)) == {}
    assert not bootstrap.is_ready({}, wanted)


def test_what_is_installed_beyond_the_need_keeps_the_stamp_ready():
    more = bootstrap.wanted_stamp("3.11.7", {"dev", "xformers"})
    assert bootstrap.is_ready(more, bootstrap.wanted_stamp("3.11.7", {"dev"}))
    assert not bootstrap.is_ready(bootstrap.wanted_stamp("3.11.7", set()), more)


def test_the_stamp_follows_python_place_and_pins(monkeypatch, tmp_path):
    for name in ("constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text("a", encoding="utf-8")
    before = bootstrap.wanted_stamp("3.11.7", set())
    assert not bootstrap.is_ready(before, bootstrap.wanted_stamp("3.12.1", set()))
    monkeypatch.setattr(bootstrap, "ROOT", str(tmp_path))
    moved = bootstrap.wanted_stamp("3.11.7", set())
    assert not bootstrap.is_ready(before, moved)
    (tmp_path / "constraints.txt").write_text("b", encoding="utf-8")
    assert not bootstrap.is_ready(moved, bootstrap.wanted_stamp("3.11.7", set()))


def _prepare(monkeypatch, tmp_path, stamp):
    """Run prepare("test") over an environment with ``stamp``; return what it did."""
    done = []
    path = tmp_path / "stamp.json"
    path.write_text(json.dumps(stamp), encoding="utf-8")
    monkeypatch.setattr(bootstrap, "STAMP", str(path))
    monkeypatch.setattr(bootstrap, "read_venv_config", lambda venv: {"version": "3.11.7"})
    monkeypatch.setattr(bootstrap, "venv_fault", lambda *_: "")
    monkeypatch.setattr(bootstrap, "need_qt_libraries", lambda verb: None)
    monkeypatch.setattr(bootstrap, "make_venv", lambda: None)
    monkeypatch.setattr(bootstrap, "install", lambda extras, wheel: done.append(sorted(extras)))
    bootstrap.prepare("test", set())
    return done


def test_a_second_start_installs_nothing(monkeypatch, tmp_path):
    assert _prepare(monkeypatch, tmp_path, bootstrap.wanted_stamp("3.11.7", {"dev"})) == []


def test_an_update_keeps_the_parts_chosen_before(monkeypatch, tmp_path):
    stale = {**bootstrap.wanted_stamp("3.11.7", {"xformers"}), "inputs": "older"}
    assert _prepare(monkeypatch, tmp_path, stale) == [["dev", "xformers"]]


def test_an_installation_that_fails_leaves_no_stamp(monkeypatch, tmp_path):
    stamp = tmp_path / "stamp.json"
    stamp.write_text("{}", encoding="utf-8")

    def fail(arguments, what):
        raise bootstrap.SetupError("no network")

    monkeypatch.setattr(bootstrap, "STAMP", str(stamp))
    monkeypatch.setattr(bootstrap, "VENV", str(tmp_path))
    monkeypatch.setattr(bootstrap, "nvidia_cards", list)
    monkeypatch.setattr(bootstrap, "is_reachable", _is_silent)
    monkeypatch.setattr(bootstrap, "pip_install", fail)
    with pytest.raises(bootstrap.SetupError):
        bootstrap.install(set())
    assert not stamp.exists()


# System libraries


def test_missing_libraries_name_each_package_once_in_order():
    missing = {"libglib-2.0.so.0", "libgthread-2.0.so.0", "libGL.so.1"}
    packages = bootstrap.missing_packages(bootstrap.QT_DRAWING, lambda name: name not in missing)
    assert packages == ["libgl1", "libglib2.0-0"]


def test_tests_need_less_of_the_system_than_the_window_and_training_nothing():
    assert set(bootstrap.qt_libraries("test")) < set(bootstrap.qt_libraries("gui"))
    assert bootstrap.qt_libraries("train") == ()


def test_whoever_is_not_root_gets_the_exact_command(monkeypatch):
    monkeypatch.setattr(bootstrap, "is_debian", lambda: True)
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(bootstrap.SetupError) as caught:
        bootstrap.install_packages(["libgl1", "libegl1"], "Qt needs")
    command = "sudo apt-get install -y --no-install-recommends libgl1 libegl1"
    assert command in caught.value.hint


def test_other_systems_are_told_the_names(monkeypatch):
    monkeypatch.setattr(bootstrap, "is_debian", lambda: False)
    with pytest.raises(bootstrap.SetupError, match="libgl1"):
        bootstrap.install_packages(["libgl1"], "Qt needs")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ID=debian\n", True),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', True),
        ("ID=fedora\n", False),
    ],
)
def test_debian_is_known_by_its_release_file(tmp_path, text, expected):
    path = tmp_path / "os-release"
    path.write_text(text, encoding="utf-8")
    assert bootstrap.is_debian(str(path)) is expected
    assert not bootstrap.is_debian(str(tmp_path / "missing"))


# Verbs and errors


def test_only_the_tests_install_what_developers_need():
    assert bootstrap.extras_for("test") == {"dev"}
    assert bootstrap.extras_for("demo") == bootstrap.extras_for("gui") == set()


@pytest.mark.parametrize(
    ("verb", "module"),
    [("demo", "aozora"), ("gui", "gui"), ("test", "pytest"), ("train", "aozora")],
)
def test_verbs_run_their_module_with_their_arguments(verb, module):
    command = bootstrap.command_for(verb, ["--x", "a b"])
    assert command[command.index("-m") + 1] == module
    assert command[-2:] == ["--x", "a b"]


def test_a_verb_is_not_that_of_a_folder_where_the_user_is(tmp_path):
    (tmp_path / "aozora").mkdir()
    (tmp_path / "aozora" / "__init__.py").touch()
    (tmp_path / "aozora" / "__main__.py").write_text("print('not Aozora')", encoding="utf-8")
    command = [sys.executable, *bootstrap.command_for("presets", ["--help"])[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "usage: aozora presets" in done.stdout, done.stderr


def test_on_windows_the_verb_is_waited_for_whatever_is_pressed(monkeypatch):
    calls = []

    class Process:
        def __init__(self, command):
            calls.append(command)

        def wait(self):
            calls.append("wait")
            if calls.count("wait") == 1:
                raise KeyboardInterrupt
            return 7

    monkeypatch.setattr(bootstrap, "IS_WINDOWS", True)
    monkeypatch.setattr(bootstrap.subprocess, "Popen", Process)
    monkeypatch.setattr(bootstrap.signal, "SIGBREAK", 21, raising=False)
    monkeypatch.setattr(bootstrap.signal, "signal", lambda *call: calls.append(call))
    assert bootstrap.run(["a"]) == 7
    assert calls == [(21, bootstrap.signal.SIG_IGN), ["a"], "wait", "wait"]


@pytest.mark.parametrize(
    ("log", "word"),
    [
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("NewConnectionError: Temporary failure in name resolution", "network"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "permission"),
        ("[WinError 32] The process cannot access the file", "close Aozora"),
        ("ERROR: No matching distribution found for torch==2.13.0", "index"),
        ("[WinError 206] The filename or extension is too long", "shorter path"),
        ("HINT: this system does not have Windows Long Path support enabled", "shorter path"),
        ("something else", "again"),
    ],
)
def test_failures_are_explained_by_what_pip_said(log, word):
    assert word in bootstrap.explain(log)


def test_flash_attention_is_offered_from_compute_capability_8():
    names = [name for name, _ in bootstrap.attention_choices([RTX_20])]
    assert names == ["sdpa", "xformers"]
    assert "flash" in dict(bootstrap.attention_choices([RTX_40]))
    assert list(dict(bootstrap.attention_choices([]))) == ["sdpa"]


@pytest.fixture
def windows(monkeypatch, tmp_path):
    """Let bootstrap see Windows, an RTX 40 and an empty environment; return what it prepares."""
    prepared = []
    monkeypatch.setattr(bootstrap, "IS_WINDOWS", True)
    monkeypatch.setattr(bootstrap, "VENV", str(tmp_path))
    monkeypatch.setattr(bootstrap, "nvidia_cards", lambda: [RTX_40])
    monkeypatch.setattr(
        bootstrap, "prepare", lambda verb, extras, wheel, force: prepared.append((extras, wheel))
    )
    return prepared


def test_windows_is_offered_flash_attention_only_with_a_wheel_or_where_it_is_there(
    windows, tmp_path
):
    assert list(dict(bootstrap.attention_choices([RTX_40]))) == ["sdpa", "xformers"]
    assert "flash" in dict(bootstrap.attention_choices([RTX_40], "flash.whl"))
    assert "flash" not in dict(bootstrap.attention_choices([RTX_20], "flash.whl"))
    (tmp_path / "Lib" / "site-packages" / "flash_attn-2.8.3.dist-info").mkdir(parents=True)
    assert "flash" in dict(bootstrap.attention_choices([RTX_40]))


def test_flash_attention_without_a_wheel_is_refused_on_windows_before_anything_is_installed(
    windows, tmp_path
):
    with pytest.raises(bootstrap.SetupError, match="no ready-made Windows package") as caught:
        bootstrap.setup(["--attention", "flash"])
    assert caught.value.code == 2
    assert "--wheel" in caught.value.hint
    assert windows == []
    wheel = tmp_path / "flash.whl"
    wheel.touch()
    assert bootstrap.setup(["--attention", "flash", "--wheel", str(wheel)]) == 0
    assert bootstrap.setup(["--wheel", str(wheel)]) == 0
    assert windows == [({"flash"}, str(wheel))] * 2


def test_a_wheel_that_is_missing_or_not_wanted_is_refused_before_anything_is_installed(
    windows, tmp_path, capsys
):
    with pytest.raises(bootstrap.SetupError, match="no such file") as caught:
        bootstrap.setup(["--attention", "flash", "--wheel", str(tmp_path / "missing.whl")])
    assert caught.value.code == 2
    with pytest.raises(SystemExit):
        bootstrap.setup(["--attention", "sdpa", "--wheel", "flash.whl"])
    assert "--attention flash" in capsys.readouterr().err
    assert windows == []


@pytest.mark.parametrize("installed", ["", "2.8.3"])
def test_a_wheel_that_is_given_is_installed_whatever_is_there(monkeypatch, installed):
    asked = []
    monkeypatch.setattr(bootstrap, "IS_WINDOWS", False)
    monkeypatch.setattr(bootstrap, "pip_install", lambda arguments, what: asked.append(arguments))
    monkeypatch.setattr(bootstrap, "install_torch", lambda cards: None)
    monkeypatch.setattr(bootstrap, "nvidia_cards", list)
    monkeypatch.setattr(bootstrap, "STAMP", "/nowhere/stamp")
    monkeypatch.setattr(bootstrap, "write_stamp", lambda path, content: None)
    monkeypatch.setattr(bootstrap, "installed_version", lambda name, folder: installed)
    bootstrap.install({"flash"}, "/x/flash.whl")
    assert ["--no-deps", "--force-reinstall", "/x/flash.whl"] in asked
    asked.clear()
    bootstrap.install({"flash"})
    assert any("flash-attn==" in part for step in asked for part in step) == (not installed)


def test_a_card_without_flash_attention_is_not_told_to_find_a_wheel(windows, monkeypatch):
    monkeypatch.setattr(bootstrap, "nvidia_cards", lambda: [RTX_20])
    with pytest.raises(bootstrap.SetupError, match="no card here supports it"):
        bootstrap.setup(["--attention", "flash"])


def test_a_backend_the_card_does_not_support_is_refused(monkeypatch):
    monkeypatch.setattr(bootstrap, "nvidia_cards", lambda: [RTX_20])
    with pytest.raises(bootstrap.SetupError, match="flash") as caught:
        bootstrap.setup(["--attention", "flash"])
    assert caught.value.code == 2


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["../x"], 2)])
def test_the_program_says_how_it_is_used(arguments, code):
    done = subprocess.run(
        [sys.executable, str(ROOT / "bootstrap.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout == ""
    assert "bootstrap.py" in done.stderr


def test_pins_are_found_by_name():
    assert bootstrap.pinned("torch") == "2.13.0"
    with pytest.raises(bootstrap.SetupError, match="no-such-package"):
        bootstrap.pinned("no-such-package")
