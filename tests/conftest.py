"""What the tests share: skipping, by name, what this machine lacks."""

import os

import hypothesis
import pytest
import torch

from steadydescent.engine import data
from steadydescent.study.paths import DATA

# No deadline: this machine may be busy. The same examples each time: a failure can be run again.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
# Fuzzing takes 500 cases, and 10 000 other ones each time with STEADY_FUZZ=nightly.
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=10_000)
hypothesis.settings.load_profile(
    "nightly" if os.environ.get("STEADY_FUZZ") == "nightly" else "steady"
)

# torch's own test helpers, once imported, would forbid the settings that our engine makes in every
# test after.
torch.backends.disable_global_flags = lambda: None

if os.environ.get("PYTEST_XDIST_WORKER"):  # test processes share the cores
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fashion_mnist():
    """Fashion-MNIST's folder, or a skip that says why it is not to be had."""
    try:
        return data.fetch("fashion-mnist", DATA, print)
    except data.DataUnavailable as error:
        pytest.skip(f"Fashion-MNIST is not to be had here: {error}")


@pytest.fixture(autouse=True)
def _needs(request):
    if request.node.get_closest_marker("needs_fashion"):
        request.getfixturevalue("fashion_mnist")
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU here")


@pytest.fixture
def toy(tmp_path):
    """The small experiment in place of the study."""
    from fabricated import experiments_from, write_experiments

    write_experiments(tmp_path / "experiments")
    with experiments_from(tmp_path / "experiments"):
        yield tmp_path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The small study in a folder of its own, where results are read and written."""
    from fabricated import experiments_from, write_experiments
    from steadydescent.study import reproduce
    from steadydescent.study.book import edition, findings, saved_results, verdict_rows
    from steadydescent.study.training import notebooks

    write_experiments(tmp_path / "experiments")
    places = {
        "ROOT": "",
        "RESULTS": "results",
        "GENERATED": "generated",
        "EXPERIMENTS": "experiments",
    }
    places |= {"PUBLISHED": "results/published", "REPRODUCED": "results/reproduced"}
    book = (findings, edition, saved_results, verdict_rows)
    for module in (*book, notebooks, reproduce):
        for name, place in places.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, tmp_path / place)
    for name in ("PROFILE", "DEVICE", "ONLY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STEADY_COMMAND", "steady test")
    with experiments_from(tmp_path / "experiments"):
        yield tmp_path
