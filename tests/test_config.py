"""Settings: defaults that are promised, ranges, and the environment."""

from pathlib import Path

import pytest

from personalize.config import EngineSettings, LoraSettings, ServiceSettings, Settings, from_environment
from personalize.errors import InvalidParameter


def test_slots_are_twice_the_rows_by_default():
    assert EngineSettings(max_num_seqs=5).num_slots == 10
    assert EngineSettings(max_num_seqs=5, max_loras=5).num_slots == 5


def test_what_is_promised_without_any_setting():
    made = Settings()
    assert (made.model, made.backend, made.device) == ("pocket", "local", "auto")
    assert (made.service.learning, made.service.max_queued_updates) == ("on", 8)
    assert made.service.population is False
    assert (made.lora.r, made.lora.target_modules) == (8, "all-linear")


def test_the_index_lies_in_home_unless_a_database_is_named():
    assert Settings(home=Path("x")).url == "sqlite:///x/index.sqlite"
    assert Settings(database_url="postgresql+psycopg://host/db").url == "postgresql+psycopg://host/db"


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Settings(device="tpu"), "device = 'tpu' is not allowed; allowed: 'cpu', 'cuda' or 'auto'"),  # type: ignore[arg-type]
        (lambda: Settings(backend="magic"), "backend = 'magic'"),  # type: ignore[arg-type]
        (lambda: ServiceSettings(learning="off"), "learning = 'off'"),  # type: ignore[arg-type]
        (lambda: ServiceSettings(max_choices=0), "max_choices = 0"),
        (lambda: ServiceSettings(max_tokens=True), "max_tokens = True"),
        (lambda: ServiceSettings(population="on"), "population = 'on'"),  # type: ignore[arg-type]
        (lambda: LoraSettings(r=0), "r = 0"),
        (lambda: LoraSettings(lora_alpha=5000), "lora_alpha = 5000"),
        (lambda: EngineSettings(max_num_seqs=0), "max_num_seqs = 0"),
        (lambda: EngineSettings(max_lora_rank=1024), "max_lora_rank = 1024"),
    ],
)
def test_a_value_outside_its_range_is_named_with_the_range(make, named):
    with pytest.raises(InvalidParameter) as caught:
        make()
    assert named in caught.value.message
    assert caught.value.allowed


def test_only_known_variables_are_read():
    environ = {"PERSONALIZE_MODEL": "a/b", "PERSONALIZE_LEARNING": "ask", "PERSONALIZE_OTHER": "x", "MODEL": "y"}
    assert from_environment(environ) == {"model": "a/b", "learning": "ask"}
    assert from_environment({}) == {}


def test_a_home_may_be_a_string():
    assert Settings(home="place").home == Path("place")  # type: ignore[arg-type]
    assert Settings(home="place").url == f"sqlite:///{Path('place') / 'index.sqlite'}"  # type: ignore[arg-type]
