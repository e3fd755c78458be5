"""What is asked: short questions that any chat model can answer in a paragraph, without knowing the year or the place.

Many are about everyday things, so that very small models have something to say too.
"""

QUESTIONS = (
    "Tell me about tea.",
    "Tell me about the moon.",
    "What do you know about bees?",
    "Explain rainbows to me.",
    "Tell me about bicycles.",
    "What can you say about penguins?",
    "Tell me about bread.",
    "I want to know about rivers.",
    "Tell me about glass.",
    "What do you know about whales?",
    "Tell me about libraries.",
    "Explain the wind to me.",
    "Tell me about chess.",
    "What can you say about mountains?",
    "Tell me about coffee.",
    "What do you know about trees?",
    "Tell me about trains.",
    "Explain snow to me.",
    "Tell me about owls.",
    "I want to know about bridges.",
    "Tell me about honey.",
    "What can you say about the sea?",
    "Tell me about pianos.",
    "What do you know about cotton?",
    "Tell me about mushrooms.",
    "Explain batteries to me.",
    "Tell me about islands.",
    "I want to know about elephants.",
    "Tell me about soap.",
    "What do you know about gold?",
    "Tell me about gardens.",
    "Explain clocks to me.",
)


def question(number: int) -> str:
    """Return question ``number``; they begin anew after the last."""
    return QUESTIONS[number % len(QUESTIONS)]
