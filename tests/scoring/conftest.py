"""The embedded model and data, exported once."""

from pathlib import Path

import pytest

from delta_attnmask.embedded import export
from delta_attnmask.modeling.load import LoadedModel, load_model


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model/, images/ and pool.json."""
    return export(tmp_path_factory.mktemp("embedded"))


@pytest.fixture(scope="session")
def embedded_model(embedded: Path) -> LoadedModel:
    return load_model(str(embedded / "model"), dtype="float32", device="cpu")
