"""The command line.

Every verb ends with 0 (done, or stopped on request), 2 (bad input) or 3 (failed).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from aozora import __version__
from aozora.errors import AozoraError, NumericsError, OutOfMemory, SaveError
from aozora.runtime import guard_streams, kept_awake, let_go_of

if TYPE_CHECKING:
    from aozora.api import RunControl
    from aozora.config.schema import TrainConfig
    from aozora.events import Event

DONE, BAD_INPUT, FAILED, INTERRUPTED = 0, 2, 3, 130


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    guard_streams()
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    for handler in logging.getLogger().handlers:
        # A run's log file takes more; its events are shown on the terminal already.
        handler.setLevel(logging.WARNING)
    try:
        code: int = options.run(options)
    except (NumericsError, OutOfMemory, SaveError) as error:
        return _report(error, FAILED)
    except AozoraError as error:
        return _report(error, BAD_INPUT)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; there is nobody left to tell.
        sys.stdout = sys.stderr
        return FAILED
    except Exception:  # noqa: BLE001 - the program's end: whatever arrives here is a bug, shown whole
        _say(traceback.format_exc())
        _say("This is a bug in Aozora; please report it with the lines above.")
        return FAILED
    return code


def _report(error: AozoraError, code: int) -> int:
    _say(f"Error: {error.message}")
    if error.hint:
        _say(f"What to do: {error.hint}")
    return code


def _say(text: str) -> None:
    """Write a line to stderr; whoever reads it may have gone."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        let_go_of(sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aozora", description="Fine-tunes SDXL models.")
    parser.add_argument("--version", action="version", version=f"aozora {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    train = _verb(verbs, "train", _train, "train a model")
    _config_arguments(train)
    train.add_argument(
        "--resume", metavar="STATE", help="a .pt state file to go on from, or 'last'"
    )
    train.add_argument("--events", metavar="FILE", help="write events as JSON lines to FILE or -")
    train.add_argument("--control", choices=["-"], help="read commands as JSON lines from stdin")

    cache = _verb(verbs, "cache", _cache, "encode pictures and captions without training")
    _config_arguments(cache)

    check = _verb(verbs, "check", _check, "list problems, or say what a run would do")
    _config_arguments(check)
    check.add_argument("--json", action="store_true", help="print JSON")

    dataset = _verb(verbs, "dataset", _dataset, "count tokens of captions, and what is encoded")
    _config_arguments(dataset)
    dataset.add_argument("--json", action="store_true", help="print JSON, with every picture")

    fit = _verb(verbs, "fit", _fit, "say with which settings a run fits a computer")
    _config_arguments(fit)
    fit.add_argument("--vram", metavar="GIB", type=float, help="a card with that much memory")
    fit.add_argument("--ram", metavar="GIB", type=float, help="a computer with that much memory")
    fit.add_argument("--json", action="store_true", help="print JSON")

    inspect = _verb(verbs, "inspect", _inspect, "say what a model or state file is")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--layers", action="store_true", help="list the parameters of its UNet")
    inspect.add_argument("--json", action="store_true", help="print JSON")

    presets = _verb(verbs, "presets", _presets, "list presets, or print one")
    presets.add_argument("name", nargs="?")

    doctor = _verb(verbs, "doctor", _doctor, "say what this computer has and lacks")
    doctor.add_argument("--json", action="store_true", help="print JSON")

    document = _verb(verbs, "settings-doc", _settings_doc, "print the reference of all settings")
    document.add_argument("--output", type=Path, help="write to this file instead")

    demo = _verb(verbs, "demo", _demo, "make a small model and pictures and train them")
    demo.add_argument("--dir", type=Path, default=Path("aozora-demo"), help="folder to work in")
    return parser


def _verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int], help_text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_text, description=help_text)
    parser.set_defaults(run=run)
    return parser


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", type=Path, metavar="CONFIG", help="a .json config file"
    )
    parser.add_argument("--preset", metavar="NAME", help="start from a preset instead of a file")
    parser.add_argument("--model", metavar="FILE", help="base model (model.base)")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        action="append",
        default=[],
        help="folder with pictures; repeatable",
    )
    parser.add_argument("--output", metavar="FOLDER", help="folder for results (output.folder)")
    parser.add_argument("--name", metavar="NAME", help="name of the run (output.name)")
    parser.add_argument(
        "--set",
        metavar="section.field=value",
        action="append",
        default=[],
        dest="assignments",
        help="change one setting; repeatable",
    )


def _unwritable(path: str | Path, error: OSError, remedy: str) -> AozoraError:
    return AozoraError(f"{path} cannot be written: {error.strerror or error}", remedy)


def _config_of(options: argparse.Namespace, stored: dict[str, Any] | None = None) -> TrainConfig:
    """Return the configuration the arguments describe; ``stored`` stands in for a missing file."""
    from aozora.config.codec import apply_settings, decode_config, load_config, replace_at
    from aozora.config.presets import find_preset
    from aozora.config.schema import TrainConfig

    if options.config is not None:
        config = load_config(options.config)
    elif stored is not None and options.preset is None:
        config = decode_config(stored)
    else:
        config = TrainConfig()
    if options.preset is not None:
        config = find_preset(options.preset).applied_to(config)
    named = {
        "model.base": options.model,
        "output.folder": options.output,
        "output.name": options.name,
    }
    for path, value in named.items():
        if value is not None:
            config = replace_at(config, path, value)
    if options.data:
        config = replace_at(config, "data.folders", [{"path": folder} for folder in options.data])
    return apply_settings(config, options.assignments)


def _train(options: argparse.Namespace) -> int:
    from aozora import api

    stored = None
    resume: Path | Literal["last"] | None = None
    if options.resume is not None:
        resume = "last" if options.resume == "last" else Path(options.resume)
        if isinstance(resume, Path) and options.config is None:
            stored = api.stored_config(resume)
    config = _config_of(options, stored)
    control = api.RunControl()
    sink, close = _event_sink(options.events, control)
    if options.control:
        _listen(control)
    previous = _stop_on_signals(control)
    # Whoever commands the run, as the window does, also decides whether the computer may sleep.
    awake = contextlib.nullcontext() if options.control else kept_awake()
    try:
        with awake:
            api.train(config, sink, control, resume=resume)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        close()
    return DONE


def _event_sink(
    target: str | None, control: RunControl
) -> tuple[Callable[[Event], None], Callable[[], None]]:
    """Return a receiver for a terminal, a pipe or a file, and what closes it.

    A pipe nobody reads any more makes the run save and stop.

    Raises:
        AozoraError: when the file cannot be opened.
    """
    from aozora.console import ConsolePrinter
    from aozora.events import EventWriter

    printer = ConsolePrinter()
    if target is None:
        return printer, printer.close
    if target == "-":
        # Whatever else prints must not break the lines of the pipe.
        stream: TextIO = sys.stdout
        sys.stdout = sys.stderr
    else:
        try:
            stream = Path(target).open("a", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed by close()
        except OSError as error:
            remedy = "with --events, name a file in a folder that exists and can be written to"
            raise _unwritable(target, error, remedy) from error

    def lost(error: OSError) -> None:
        let_go_of(stream)
        reason = error.strerror or error
        _say(f"Events cannot be written ({reason}); the last finished step is saved, then it ends")
        control.stop_and_save()

    write = EventWriter(stream, lost)

    def sink(event: Event) -> None:
        write(event)
        if target != "-":
            printer(event)

    def close() -> None:
        printer.close()
        if target == "-":
            sys.stdout = stream
        else:
            stream.close()

    return sink, close


def _listen(control: RunControl) -> None:
    """Carry out commands from stdin in a thread; the end of input changes nothing."""

    def read() -> None:
        for line in sys.stdin:
            if not line.strip():
                continue
            try:
                control.send(json.loads(line)["command"])
            except (ValueError, KeyError, TypeError) as error:
                _say(f"Ignored a command that cannot be read: {error}")

    threading.Thread(target=read, name="control", daemon=True).start()


def _stop_on_signals(control: RunControl) -> dict[int, Any]:
    """Make the first Ctrl+C, Ctrl+Break or SIGTERM save and stop, the second abort.

    Returns the old handlers.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if control.should_stop:
            raise KeyboardInterrupt
        _say("\nStopping: the last finished step is being saved (again to abort)")
        control.stop_and_save()

    # SIGBREAK is Ctrl+Break, and exists on Windows alone.
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return {number: signal.signal(number, handle) for number in numbers}


def _cache(options: argparse.Namespace) -> int:
    from aozora import api
    from aozora.console import ConsolePrinter

    printer = ConsolePrinter()
    try:
        with kept_awake():
            api.cache(_config_of(options), printer, api.RunControl())
    finally:
        printer.close()
    return DONE


def _check(options: argparse.Namespace) -> int:
    from aozora import api

    config = _config_of(options)
    report = api.check(config)
    if options.json:
        print(json.dumps(report.to_plain(), indent=2, ensure_ascii=False))
    else:
        figures = [] if report.problems else api.dataset(config).lines()
        print(report.to_text(figures))
    return BAD_INPUT if report.problems else DONE


def _dataset(options: argparse.Namespace) -> int:
    from aozora import api

    report = api.dataset(_config_of(options))
    if options.json:
        print(json.dumps(report.to_plain(), ensure_ascii=False))
    else:
        print(report.to_text())
    return DONE


def _fit(options: argparse.Namespace) -> int:
    from aozora.training.fitting import fit_run

    result = fit_run(_config_of(options), vram=options.vram, ram=options.ram)
    if options.json:
        print(json.dumps(result.to_plain(), indent=2, ensure_ascii=False))
    else:
        print(result.to_text())
    return DONE if result.fits else BAD_INPUT


def _inspect(options: argparse.Namespace) -> int:
    from aozora import api

    facts: dict[str, Any] = dict((api.layers if options.layers else api.inspect)(options.file))
    if options.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        width = max(22, *map(len, facts))
        for key, value in facts.items():
            print(f"{key:{width}} {value}")
    return DONE


def _presets(options: argparse.Namespace) -> int:
    from aozora.config.presets import find_preset, load_preset, shipped_presets, user_preset_files

    if options.name:
        preset = find_preset(options.name)
        print(json.dumps(dict(preset.settings), indent=2, ensure_ascii=False))
        return DONE
    presets, is_any_broken = list(shipped_presets().values()), False
    for path in user_preset_files():
        try:
            presets.append(load_preset(path))
        except AozoraError as error:
            # One broken file must not hide the others.
            is_any_broken = True
            broken = AozoraError(f"{path}: {error.message}", "mend this file or remove it")
            _report(broken, BAD_INPUT)
    for preset in presets:
        print(f"{preset.name:24} {preset.title}\n{'':24} {preset.description}")
    return BAD_INPUT if is_any_broken else DONE


def _doctor(options: argparse.Namespace) -> int:
    from aozora.doctor import examine

    report = examine()
    if options.json:
        print(json.dumps(report.to_plain(), indent=2, ensure_ascii=False))
    else:
        print(report.to_text())
    return DONE


def _settings_doc(options: argparse.Namespace) -> int:
    from aozora.config.describe import settings_markdown
    from aozora.runtime import write_text_atomic

    text = settings_markdown()
    if options.output is None:
        sys.stdout.write(text)
    else:
        try:
            write_text_atomic(options.output, text)
        except OSError as error:
            remedy = "name another file with --output"
            raise _unwritable(options.output, error, remedy) from error
    return DONE


def _demo(options: argparse.Namespace) -> int:
    from aozora import api
    from aozora.console import ConsolePrinter

    printer = ConsolePrinter()
    control = api.RunControl()
    previous = _stop_on_signals(control)
    try:
        report = api.demo(options.dir, printer, control)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        printer.close()
    if report is None:
        _say("The demo was stopped")
        return DONE
    print(report.to_text())
    return DONE if report.passed else FAILED


if __name__ == "__main__":
    sys.exit(main())
