from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import aozora

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("aozora", "gui", "optimizers", "presets")
LARGEST_BYTES = 1_000_000
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Pieced together, so that this file does not hold what it looks for.
UNWANTED = re.compile(
    "|".join(
        [
            r"(?<![\w.])/(?:home|Users|root|work)/\w",
            r"[A-Z]:\\\\?Users\\\\?\w",
            "files.python" + "hosted",
            "pypi" + r"\.org",
            "registry" + r"\.npmjs",
            "deb" + r"\.debian",
        ]
    )
)


def _tracked_files():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def _text_files():
    for path in _tracked_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path, content


def _pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def _requirements():
    project = PYPROJECT["project"]
    listed = [*PYPROJECT["build-system"]["requires"], *project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        listed += extra
    return [Requirement(text) for text in listed]


# Text


def test_batch_files_end_lines_for_windows_and_all_others_do_not():
    wrong = []
    for path, content in _text_files():
        lines, windows_lines = content.count(b"\n"), content.count(b"\r\n")
        wanted = lines if path.suffix == ".bat" else 0
        if windows_lines != wanted:
            wrong.append(path.name)
    assert wrong == []


def test_batch_files_are_plain_ascii_and_set_nothing_with_a_trailing_space():
    for path in ROOT.glob("*.bat"):
        text = path.read_text(encoding="ascii")
        for line in re.findall(r"(?im)\bset\s+.*", text):
            assert re.match(r'set "\w+=[^"]*"', line), f"{path.name}: {line}"


def test_no_file_names_a_place_of_one_machine_or_a_package_host():
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, content in _text_files()
        for match in UNWANTED.finditer(content.decode("utf-8"))
    ]
    assert found == []


def test_no_tracked_file_is_large():
    assert [path.name for path in _tracked_files() if path.stat().st_size > LARGEST_BYTES] == []


def test_text_ends_with_one_line_end():
    wrong = [
        path.name
        for path, content in _text_files()
        if content and (not content.endswith(b"\n") or content.endswith(b"\n\n"))
    ]
    assert wrong == []


# Versions


def test_the_version_is_the_same_everywhere():
    assert PYPROJECT["project"]["version"] == aozora.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{aozora.__version__}]" in changelog


def test_every_requirement_is_pinned_within_its_range():
    pins = _pins()
    for requirement in _requirements():
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{requirement} excludes {pins[name]}"


def test_pins_carry_no_local_label():
    assert [name for name, version in _pins().items() if "+" in version] == []


def test_pythons_of_bootstrap_and_project_agree():
    text = (ROOT / "bootstrap.py").read_text(encoding="utf-8")
    assert "OLDEST, NEWEST = (3, 11), (3, 13)" in text
    assert PYPROJECT["project"]["requires-python"] == ">=3.11,<3.14"


# What is said


def test_readme_starts_with_the_two_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.startswith("python3 ")]
    assert commands[:2] == ["python3 bootstrap.py demo", "python3 bootstrap.py test"]
    assert lines.index(commands[1]) < 6


def test_verbs_in_documents_exist():
    from aozora.__main__ import _parser

    usage = _parser().format_help()
    own = {"demo", "test", "gui", "setup"}
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for verb in re.findall(r"(?:bootstrap\.py|`aozora) ([a-z][a-z-]*)", text):
            assert verb in own or re.search(rf"^ +{verb}\b", usage, re.MULTILINE), verb


def test_presets_in_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--preset (\S+)", text)) | set(re.findall(r"preset\s+`([\w-]+)`", text))
    assert named
    assert named <= {path.stem for path in (ROOT / "presets").glob("*.json")}


# Packaging


def _copy_of_the_tree(target):
    for name in PACKAGES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)


def test_a_wheel_holds_every_package_and_all_data(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    _copy_of_the_tree(tree)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(tmp_path), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {"aozora/py.typed"}
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*"):
            if path.suffix in (".py", ".json"):
                wanted.add(path.relative_to(ROOT).as_posix())
    assert held == {re.sub(r"^presets/", "aozora/presets_data/", name) for name in wanted}


# Floors


def _lint_imports(tree):
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-cache"], cwd=tree, capture_output=True, encoding="utf-8", check=False
    )


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("aozora/data/planted.py", "import aozora.model", "the floors of aozora"),
        ("aozora/config/planted.py", "import torch", "config is free of torch"),
        ("optimizers/planted.py", "import aozora.errors", "optimizers know only torch"),
        ("aozora/training/planted.py", "import PySide6", "Qt lives in gui only"),
        ("gui/planted.py", "import aozora.training", "gui sees the front rooms only"),
    ],
)
def test_a_planted_import_against_the_floors_is_found(tmp_path, file, line, contract):
    _copy_of_the_tree(tmp_path)
    (tmp_path / file).write_text(f"def late() -> None:\n    {line}\n", encoding="utf-8")
    done = _lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = re.findall(r"^(.+) BROKEN", done.stdout, re.MULTILINE)
    assert broken == [contract]
