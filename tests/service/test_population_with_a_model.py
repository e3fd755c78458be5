"""The population adapter on a real model with random weights: whose logits move, and whose do not by a bit."""

import asyncio
import json
from dataclasses import replace

import pytest

from personalize import LoraSettings, Personalizer
from tests.service.support import says
from tests.service.test_recordings_with_a_model import CHAT, settings, tiny

USERS = ("new", "other", "own")
OWN = says("Tell me about Paris.", "Paris is the capital of France.", "no, in one short sentence").messages


def digests(found: dict[str, str]) -> dict[str, str]:
    return {user: one.rpartition(":")[2] for user, one in found.items()}


@pytest.mark.slow  # loads torch, transformers and a model, and takes four updates
def test_off_not_a_bit_moves_and_on_only_who_has_not_begun(tmp_path):
    model, log = tiny(tmp_path / "model", "trimmed", 0), tmp_path / "log.jsonl"
    messages = [{"role": one.role, "content": one.content} for one in CHAT]
    log.write_text(json.dumps({"messages": messages, "user": "alice"}) + "\n")
    plain = settings(model, tmp_path / "home")
    off = replace(plain, service=replace(plain.service, review_every=0))  # a random model passes no review
    on = replace(off, service=replace(off.service, population=True), lora=LoraSettings(r=2))

    async def main():
        async with Personalizer.open(settings=off) as app:
            await app.learn_from("own", OWN)
            assert await app.settled("own", 60) and len(await app.versions("own")) == 1
            before = await app.fingerprint(USERS)
            report = await app.build_population([log])
            assert (report.version, report.outcomes) == (1, {"applied": 2})
            assert await app.fingerprint(USERS) == before
            owner = app.store.ensure_population_owner().user_id
            assert not (app.store.path(app.store.version(owner, 1)) / "optimizer.safetensors").exists()
        async with Personalizer.open(settings=on) as app:
            served = digests(await app.fingerprint(USERS))
            assert served["own"] == digests(before)["own"]
            assert served["new"] != digests(before)["new"]
            (known,) = await app.population()
            await app.learn_from("new", OWN)
            assert await app.settled("new", 60)
            (version,) = await app.versions("new")
            assert (version.number, version.parent, version.metrics["population"]) == (1, None, 1)
            assert version.rank == 8, "the rank of what the line began with, not of new adapters"
            after = digests(await app.fingerprint(USERS))
            assert (after["other"], after["own"]) == (served["other"], served["own"])
            assert after["new"] != served["new"]
            assert [use.number for use in (await app.forget("new")).population] == [known.number]

    asyncio.run(main())
