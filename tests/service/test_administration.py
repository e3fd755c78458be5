"""A store managed while no model is loaded, and what a service running on it makes of that."""

import asyncio
import contextlib
import zipfile

import pytest

from adapters_store.sqlite import driver
from personalize.backends.echo import BASE_DIGEST, MODULES, EchoBackend, write_folder
from personalize.config import EngineSettings, ServiceSettings, Settings
from personalize.errors import AdapterCorrupt, AdapterMismatch, Cancelled, Conflict, InvalidParameter, NotFound
from personalize.service import Administration, Personalizer
from personalize.types import Outcome
from tests.service.support import ask, says, taught, until


def settings(home, **service) -> Settings:
    return Settings(model="echo", backend="echo", home=home, service=ServiceSettings(**service))


def run(home, work, **service):
    """Run ``work(app)`` on a service that is opened in the way of every user of the SDK."""

    async def main():
        async with Personalizer.open(settings=settings(home, **service)) as app:
            return await work(app)

    return asyncio.run(main())


@pytest.fixture
def home(tmp_path):
    """A home in which alice has a version."""
    run(tmp_path / "home", taught)
    return tmp_path / "home"


@pytest.fixture
def no_model(monkeypatch):
    """A block in which no model can be opened."""

    def refuse(settings):
        raise AssertionError("a model is opened")

    @contextlib.contextmanager
    def block():
        with monkeypatch.context() as patch:
            patch.setattr("personalize.service.personalizer.open_backend", refuse)
            yield

    return block()


def test_everything_works_from_the_store_alone(home, no_model, tmp_path):
    with no_model, Administration.open(Settings(home=home)) as store:
        (alice,) = store.users()
        assert store.user("alice") == alice and alice.head == 1
        assert store.undo("alice") is None and store.rollback("alice", 1).is_head
        assert store.pin("alice", 1).pinned and not store.pin("alice", 1, False).pinned
        store.reset("alice")
        assert store.user("alice").head is None
        path = store.export_version("alice", 1, tmp_path / "v.zip")
        imported = store.import_("bob", path)
        assert (imported.number, imported.origin, imported.base_digest) == (1, "import", BASE_DIGEST)
        assert imported.digest == store.versions("alice")[0].digest
        with zipfile.ZipFile(store.export("alice", tmp_path / "alice.zip")) as archive:
            assert "user.json" in archive.namelist()
        assert store.prune().num_versions == 0
        assert store.forget("alice").num_versions == 1
        assert [user.head for user in store.users()] == [1]
        actions = [line.action for line in store.audit()]
        assert actions[0] == "user.forget" and {"version.undo", "version.export", "version.import"} <= set(actions)
        store.check_audit()
    assert run(home, lambda app: ask(app, "hello", user="bob")).adapter_version == 1


def test_it_says_what_it_cannot_know(tmp_path):
    with Administration.open(Settings(home=tmp_path)) as store:
        assert store.users() == ()
        store.consent("alice", True)
        assert store.user("alice").head is None
        write_folder(tmp_path / "in", "seed")
        for call in (
            lambda: store.undo("alice"),
            lambda: store.reset("alice"),
            lambda: store.import_("a", tmp_path / "in"),
        ):
            with pytest.raises(NotFound, match="no model has been opened"):
                call()
        with pytest.raises(InvalidParameter, match="limit = 0"):
            store.audit(0)


def test_a_model_is_meant_by_name_and_an_unknown_one_is_refused(home):
    with Administration.open(Settings(home=home, model="echo"), "echo") as store:
        assert store.user("alice").head == 1
    with (
        pytest.raises(NotFound, match="'other' was never opened"),
        Administration.open(Settings(home=home, model="other"), "other"),
    ):
        pass


def test_without_the_shapes_of_the_base_nothing_is_imported(home, tmp_path):
    write_folder(tmp_path / "in", "seed")
    for file in (home / "bases").iterdir():
        file.unlink()
    with Administration.open(Settings(home=home)) as store:
        with pytest.raises(NotFound, match="open the model once"):
            store.import_("alice", tmp_path / "in")
        assert store.undo("alice") is None
    run(home, lambda app: ask(app, "hi"))
    with Administration.open(Settings(home=home)) as store:
        assert store.import_("alice", tmp_path / "in").number == 2


@pytest.mark.parametrize("through", ["service", "administration"])
def test_a_folder_for_another_base_is_refused_at_import(home, tmp_path, monkeypatch, through):
    """The folder is sound; only its shapes say that it was made for something else."""
    with monkeypatch.context() as patch:
        patch.setattr("personalize.backends.echo._WIDTH", 6)
        write_folder(tmp_path / "wide", "seed")
        patch.setattr("personalize.backends.echo._MODULE", "base_model.model.model.layers.7.self_attn.q_proj")
        write_folder(tmp_path / "deep", "seed")
    assert list(MODULES.values()) == [(4, 4)]

    async def serviced(app, folder):
        with pytest.raises(AdapterMismatch):
            await app.import_("alice", folder)
        assert (await ask(app, "hello")).adapter_version == 1
        assert not list(home.glob("staging/*/*"))

    for folder in ("wide", "deep"):
        (tmp_path / folder / "optimizer.safetensors").unlink()
        if through == "service":
            run(home, lambda app, folder=folder: serviced(app, tmp_path / folder))
            continue
        with Administration.open(Settings(home=home)) as store, pytest.raises(AdapterMismatch, match=r"4, 4|no module"):
            store.import_("alice", tmp_path / folder)


def test_a_rank_that_is_not_served_is_refused_at_import(tmp_path):
    write_folder(tmp_path / "in", "seed")

    async def main():
        small = Settings(model="echo", backend="echo", home=tmp_path / "home", engine=EngineSettings(max_lora_rank=1))
        async with Personalizer.open(settings=small) as app:
            with pytest.raises(AdapterMismatch, match="r = 2; allowed here: 1 to 1"):
                await app.import_("alice", tmp_path / "in")

    asyncio.run(main())


def test_a_zip_file_is_bounded_and_a_folder_is_the_operators(home, tmp_path):
    write_folder(tmp_path / "in", "seed")
    (tmp_path / "in" / "optimizer.safetensors").unlink()
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in (tmp_path / "in").iterdir():
            archive.writestr(file.name, file.read_bytes() + b" " * 2000 * (file.suffix == ".json"))

    async def work(app):
        with pytest.raises(AdapterCorrupt, match="up to 1024 bytes"):
            await app.import_("alice", tmp_path / "in.zip")
        assert (await app.import_("alice", tmp_path / "in")).number == 2

    run(home, work, max_import_bytes=1024)


def test_a_damaged_audit_log_is_told(home):
    with Administration.open(Settings(home=home)) as store:
        store.pin("alice", 1)
        store.rollback("alice", 1)
        store.check_audit()
        with contextlib.closing(driver.connect(home / "index.sqlite")) as database, database:
            database.execute("DROP TRIGGER audit_no_UPDATE")
            database.execute("UPDATE audit SET actor = 'nobody'")
        with pytest.raises(Conflict, match="audit log"):
            store.check_audit()


def test_a_running_service_sees_every_change_at_its_next_request(home, tmp_path):
    write_folder(tmp_path / "in", "another seed")

    async def work(app):
        with Administration.open(Settings(home=home)) as store:
            assert (await ask(app, "hello")).adapter_version == 1
            await asyncio.to_thread(store.undo, "alice")
            assert (await ask(app, "hello")).adapter_version is None
            await asyncio.to_thread(store.rollback, "alice", 1)
            assert (await ask(app, "hello")).adapter_version == 1
            await asyncio.to_thread(store.import_, "alice", tmp_path / "in")
            assert (await ask(app, "hello")).adapter_version == 2
            await asyncio.to_thread(store.set_learning, "alice", "paused")
            first = await ask(app, "hello")
            assert (await ask(app, "hello", first.text, "shorter")).outcome is Outcome.SKIPPED_PAUSED
            assert app.status()["lease_held"], "whoever administers takes no lease"

    run(home, work)


def test_a_rollback_from_outside_cancels_the_update_under_way(home):
    class Slow(EchoBackend):
        started, release = asyncio.Event(), asyncio.Event()

        async def run_update(self, lessons, parents, out_dirs):
            self.started.set()
            await self.release.wait()
            return await super().run_update(lessons, parents, out_dirs)

    async def work(app):
        backend = Slow()
        app._consumer._school.trainer.run_update = backend.run_update
        first = await ask(app, "hello")
        after = await ask(app, "hello", first.text, "shorter")
        await backend.started.wait()
        with Administration.open(Settings(home=home)) as store:
            await asyncio.to_thread(store.rollback, "alice", 1)
        backend.release.set()
        assert await app.settled("alice", 20)
        assert await app.outcome(after.request_id) is Outcome.CANCELLED_ROLLBACK
        assert (await app.user("alice")).head == 1

    run(home, work)


def test_a_running_service_lets_go_of_whom_another_process_forgets(home):
    """Streams are cut and slots emptied, although nobody told this process."""

    async def work(app):
        backend = app._opened.inference
        await taught(app, user="bob")
        user_id = app.store.find_user("alice").user_id
        backend._delay_s = 0.02
        async with contextlib.aclosing(app.stream(says("a long story " * 20))) as chunks:
            for _ in range(5):
                await anext(chunks)
            assert any(user_id in name for name in backend.loaded_adapters())
            with Administration.open(Settings(home=home)) as store:
                await asyncio.to_thread(store.forget, "alice")
            with pytest.raises(Cancelled, match="forgotten"):
                while True:
                    await anext(chunks)
        backend._delay_s = 0.0
        await until(lambda: not any(user_id in name for name in backend.loaded_adapters()))
        assert user_id in app._forgotten
        assert len(backend.loaded_adapters()) == 1, "the neighbour's version stays where it is"
        assert not backend.in_use and not list(home.glob(f"users/{user_id}"))
        assert (await ask(app, "hello")).outcome is Outcome.SKIPPED_FIRST_MESSAGE

    run(home, work)
