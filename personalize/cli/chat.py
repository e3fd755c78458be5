"""``personalize chat``: talk as one user, and watch what every message teaches."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from personalize.cli.options import Backend, Device, Home, Model, User, is_whole, settings
from personalize.cli.printing import console
from personalize.errors import InvalidRequest, PersonalizeError
from personalize.service import SyncPersonalizer
from personalize.types import ChatRequest, Message, Outcome, Reply, SamplingParams

TYPING_S = 3.0
"""A person needs about that long for the next message; a queued follow-up is watched no longer."""
HELP = "/new starts another chat, /undo takes back the last update, /quit ends"


class Talk:
    """One user's conversation in a terminal.

    Args:
        learn: False: messages teach nothing.
        temporary: neither the user's adapter nor a record of the turns.
    """

    def __init__(
        self,
        app: SyncPersonalizer,
        user: str,
        screen: Console,
        sampling: SamplingParams,
        *,
        learn: bool = True,
        temporary: bool = False,
    ):
        self._app = app
        self._user = user
        self._screen = screen
        self._sampling = sampling
        self._learn = learn
        self._temporary = temporary
        self._messages: list[Message] = []

    def run(self, lines: Iterable[str]) -> None:
        """Take messages and commands until /quit or the end."""
        for line in lines:
            text = line.strip()
            if text == "/quit":
                return
            if text == "/new":
                self._messages.clear()
                self._screen.print("a new chat", style="dim")
            elif text == "/undo":
                self._undo()
            elif text.startswith("/"):
                self._screen.print(HELP, style="dim")
            elif text:
                self._say(text)

    def _undo(self) -> None:
        try:
            version = self._app.undo(self._user)
        except PersonalizeError as error:
            self._tell(error)
            return
        self._screen.print(f"head is {_version(None if version is None else version.number)}", style="dim")

    def _say(self, text: str) -> None:
        """Send one message; a message that is refused leaves the conversation as it was."""
        messages = (*self._messages, Message("user", text))
        request = ChatRequest(messages, self._user, self._sampling, learn=self._learn, temporary=self._temporary)
        try:
            reply = self._answer(request)
        except PersonalizeError as error:
            self._tell(error)
            return
        self._messages = [*messages, Message("assistant", reply.text)]

    def _tell(self, error: PersonalizeError) -> None:
        self._screen.print(Text(f"{error.code}: {error.message}", style="red"))

    def _answer(self, request: ChatRequest) -> Reply:
        """Stream one reply into a panel, then watch the outcome for as long as a person would be typing."""
        said, shown, reply = request.messages[-1].content, "", None
        live = self._screen.is_terminal
        with Live(console=self._screen, auto_refresh=False, transient=not live) as view:
            for chunk in self._app.stream(request):
                shown += chunk.text
                reply = chunk.reply or reply
                if live:
                    view.update(panel(self._user, said, shown, "…", reply), refresh=True)
            assert reply is not None, "a stream ends with its reply"
            outcome = reply.outcome
            for outcome in self._watch(reply):
                if live:
                    view.update(panel(self._user, said, reply.text, str(outcome), reply), refresh=True)
        if not live:
            self._screen.print(panel(self._user, said, reply.text, str(outcome), reply))
        return reply

    def _watch(self, reply: Reply) -> Iterator[Outcome]:
        """Yield the outcome until it is final or the time is up."""
        deadline = time.monotonic() + TYPING_S
        outcome = reply.outcome
        yield outcome
        while outcome is Outcome.QUEUED and time.monotonic() < deadline:
            time.sleep(0.05)
            outcome = self._app.outcome(reply.request_id)
            yield outcome


def panel(user: str, said: str, answer: str, outcome: str, reply: Reply | None) -> Panel:
    """Return one turn: who said what, the answer, what the message taught, and which version answered."""
    body = Text.assemble((f"{user}: ", "bold cyan"), said, "\n", ("model: ", "bold green"), answer)
    served = "" if reply is None else f" · served by {_served(reply)}"
    return Panel(body, subtitle=Text(f"{outcome}{served}", style="dim"), subtitle_align="right")


def _served(reply: Reply) -> str:
    if reply.population_version is not None:
        return f"version {reply.population_version} of the population adapter"
    return _version(reply.adapter_version)


def _version(number: int | None) -> str:
    return "the base model" if number is None else f"version {number}"


def chat(
    user: User,
    home: Home = None,
    model: Model = None,
    device: Device = None,
    backend: Backend = "local",
    temperature: Annotated[float, typer.Option(help="0 is greedy")] = 1.0,
    max_tokens: Annotated[int | None, typer.Option(help="longest reply")] = None,
    learn: Annotated[bool, typer.Option(help="learn from what is said here")] = True,
    temporary: Annotated[bool, typer.Option(help="use no adapter and keep nothing")] = False,
) -> None:
    """Talk as USER; every message teaches about the reply before it."""
    screen = console()
    sampling = SamplingParams(temperature=temperature, max_tokens=max_tokens)
    with SyncPersonalizer.open(settings=settings(home, model, device, backend)) as app:
        screen.print(HELP, style="dim")
        Talk(app, user, screen, sampling, learn=learn, temporary=temporary).run(_lines(screen))


def _lines(screen: Console) -> Iterator[str]:
    """Yield what is typed, or piped in, until it ends.

    Raises:
        InvalidRequest: it is not text in the encoding of the standard input.
    """
    prompt = "[bold cyan]›[/] " if sys.stdin.isatty() else ""
    while True:
        try:
            line = screen.input(prompt)
        except (EOFError, KeyboardInterrupt):
            return
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"what is typed or piped in is not {error.encoding} text") from error
        if not is_whole(line):  # in a locale that names no encoding Python lets every byte pass
            raise InvalidRequest("what is typed or piped in is not utf-8 text")
        yield line
