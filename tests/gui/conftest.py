"""What several slow tests of the window share."""

from __future__ import annotations

import gc
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from aozora import api
from aozora.config.codec import apply_settings
from aozora.config.schema import TrainConfig
from gui.collector import GarbageCollector

HERE = Path(__file__).parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Destroy what a test left behind in the tests' own thread, as the program does."""
    gc.disable()
    try:
        return (yield)
    finally:
        if nextitem is not None and nextitem.path == item.path:
            gc.collect(1)
        else:
            gc.collect()
            gc.enable()


@pytest.fixture(scope="session", autouse=True)
def collector(qapp):
    """Give the program's own collector, whose turn comes whenever a test runs the event loop."""
    with GarbageCollector() as made:
        yield made


@dataclass(frozen=True)
class SmallDemo:
    """The demo's model and pictures, encoded already.

    Attributes:
        folder: Holds the model and the pictures.
        config: The demo's settings for them.
        cache_home: The user's cache folder that what is encoded is in.
    """

    folder: Path
    config: TrainConfig
    cache_home: Path


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory):
    from aozora.demo.pictures import draw_pictures
    from aozora.demo.run import demo_config, prepare_demo

    folder = tmp_path_factory.mktemp("demo") / "made"
    cache_home = tmp_path_factory.mktemp("cache")
    prepare_demo(folder)
    # A few small pictures, without what goes with the others: encoding is most of the time.
    pictures = folder / "pictures"
    shutil.rmtree(pictures)
    draw_pictures(pictures, 10)
    smaller = ("buckets.resolution=128", "buckets.max_side=256", "training.batch_size=1")
    config = apply_settings(
        demo_config(folder), ["validation.pictures=0", "cache.folder=", *smaller]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        api.cache(config, lambda event: None, api.RunControl())
    return SmallDemo(folder, config, cache_home)
