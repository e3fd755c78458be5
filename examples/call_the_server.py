"""Talk to a running server with the stock ``openai`` client: an answer, a complaint, the next answer.

personalize serve                          # prints an admin key once
PERSONALIZE_API_KEY=... python examples/call_the_server.py
"""

import os
import time
from typing import Any

import httpx2
from openai import OpenAI

BASE_URL = os.environ.get("PERSONALIZE_BASE_URL", "http://127.0.0.1:8000")
API_KEY = os.environ["PERSONALIZE_API_KEY"]


def main() -> None:
    client = OpenAI(base_url=f"{BASE_URL}/v1", api_key=API_KEY)
    model = client.models.list().data[0].id
    messages: list[Any] = [{"role": "user", "content": "Tell me about tea."}]
    messages.append({"role": "assistant", "content": say(client, model, messages)})

    messages.append({"role": "user", "content": "Shorter, please. One sentence."})  # teaches about the reply above
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=messages, safety_identifier="alice", max_tokens=200
    )
    print("reply:", raw.parse().choices[0].message.content)
    print("learning:", raw.headers["x-learning"], "| version:", raw.headers["x-adapter-version"])
    print("in the end:", final_outcome(raw.headers["x-request-id"]))

    fresh: list[Any] = [{"role": "user", "content": "Tell me about rivers."}]
    print("a new chat:", say(client, model, fresh))


def say(client: OpenAI, model: str, messages: list[Any]) -> str:
    """Stream one answer of alice's current version to the terminal and return it."""
    stream = client.chat.completions.create(
        model=model, messages=messages, safety_identifier="alice", max_tokens=200, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    print("reply:", "".join(pieces))
    return "".join(pieces)


def final_outcome(request_id: str, timeout_s: float = 30.0) -> str:
    """Ask until learning from a request has ended; the answers never wait for it."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    deadline = time.monotonic() + timeout_s
    while True:
        answer = httpx2.get(f"{BASE_URL}/v1/outcomes/{request_id}", headers=headers)
        outcome = answer.raise_for_status().json()["outcome"]
        if outcome != "queued" or time.monotonic() > deadline:
            return outcome
        time.sleep(0.2)


if __name__ == "__main__":
    main()
