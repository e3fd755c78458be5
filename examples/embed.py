"""Embed the SDK: two people, one model in this process, and what each of them teaches it.

python examples/embed.py [HOME]
"""

import asyncio
import sys

from personalize import Message, Outcome, Personalizer, SamplingParams

WISHES = {"ada": "Please use a bulleted list.", "ben": "Shorter, please. One sentence."}


async def main(home: str = "data") -> None:
    async with Personalizer.open("pocket", home=home) as app:
        await asyncio.gather(*(teach(app, user, wish) for user, wish in WISHES.items()))
        for user in WISHES:
            reply = await app.chat(user, "Tell me about rivers.", sampling=SamplingParams(seed=1), learn=False)
            base = await app.chat(user, "Tell me about rivers.", sampling=SamplingParams(seed=1), version="base")
            print(f"\n{user}, version {reply.adapter_version}:\n{reply.text}\n\n{user}, base model:\n{base.text}")


async def teach(app: Personalizer, user: str, wish: str) -> None:
    """Ask, complain, and wait until the complaint has been learned from."""
    chat = [Message("user", "Tell me about tea.")]
    first = await app.chat(user, chat)
    chat += [Message("assistant", first.text), Message("user", wish)]
    second = await app.chat(user, chat)  # answered at once, with what is known so far
    await app.settled(user, timeout_s=60)
    outcome = await app.outcome(second.request_id)
    learned = f"version {(await app.user(user)).head}" if outcome is Outcome.APPLIED else "nothing new"
    print(f"{user} said {wish!r}: {outcome}, {learned}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
