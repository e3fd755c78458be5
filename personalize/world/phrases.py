"""The words for every preference: phrases that frames turn into sentences, and wordings that are never trained.

``verbs`` fit "Please …", ``nouns`` fit "I want …", ``complaints`` are whole sentences. ``held_out`` wordings recombine
trained words and are the only ones that simulated users speak.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from personalize.world.preferences import Preference


@dataclass(frozen=True, slots=True)
class Phrases:
    """How one preference can be put."""

    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    complaints: tuple[str, ...]
    held_out: tuple[str, ...]


def _split(line: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in line.split("|"))


def _phrases(verbs: str, nouns: str, complaints: str, held_out: str) -> Phrases:
    return Phrases(_split(verbs), _split(nouns), _split(complaints), _split(held_out))


PHRASES: Mapping[Preference, Phrases] = {
    Preference("length", "normal"): _phrases(
        "use the normal length | answer at medium length | go back to three facts | give full answers again"
        " | write answers of the usual length | return to the normal length",
        "the normal length | answers of medium length | three facts | full answers again | the usual length",
        "That was too short. | One fact is not enough. | This is the wrong length. | The length is not normal."
        " | I miss the usual length. | Your answers are too short for me.",
        "Normal length again, please. | Could you go back to the usual length? | I prefer answers of normal length."
        " | Full answers of three facts, please. | Please return to medium length.",
    ),
    Preference("length", "short"): _phrases(
        "keep it short | be brief | answer in one sentence | use fewer words | tell me only one fact"
        " | make it shorter | keep your answers short | be much shorter",
        "short answers | a shorter answer | one sentence | only one fact | brief replies | fewer words | less text"
        " | shorter answers | shorter texts | less to read"
        " | a shorter reply | shorter messages | replies of one sentence",
        "That was too long. | You write too much. | This is far too much text. | Too many words."
        " | One sentence is enough. | I do not have time for long answers. | Your answers are too long for me."
        " | That was far too much text. | It was too much for me. | There is too much to read."
        " | That was a lot of text. | So much text is too much for me. | That was too much text."
        " | Too much text for me. | It was too much text for me to read.",
        "Could you keep your answers brief? | Shorter replies, please. | Fewer words would be enough."
        " | That was too much text for me. | Next time only one short sentence.",
    ),
    Preference("length", "long"): _phrases(
        "tell me more | give more detail | write longer answers | go deeper | give me five facts | make it longer"
        " | explain it in more detail | write much more",
        "long answers | a longer answer | more detail | five facts | detailed replies | many more facts"
        " | longer texts | more details | more to read | a longer reply | longer messages | replies with more detail",
        "I want to know much more. | That leaves out a lot. | There must be more to say."
        " | You left out the details. | I need many more facts. | This needs more detail. | It could be longer."
        " | Longer answers would be better. | Your replies should be longer.",
        "Longer replies, please. | Could you give many more details? | I want much more detail."
        " | Please write longer, with five facts. | Your answers need more detail.",
    ),
    Preference("format", "prose"): _phrases(
        "write in sentences | use a plain paragraph | write one paragraph | stop using lists | leave out the list"
        " | answer without a list | drop the bullets | drop the numbers",
        "plain sentences | a paragraph | no lists | text without a list | sentences instead of lists | no bullets"
        " | no numbers",
        "I do not like lists. | Lists are ugly. | No more lists. | A list is hard to read."
        " | That should be a paragraph. | No more bullets. | No more numbers.",
        "Could you write a plain paragraph? | Sentences without a list, please. | Please stop using bullets."
        " | I do not like bullets or numbers. | No list, a paragraph instead.",
    ),
    Preference("format", "bullets"): _phrases(
        "use bullet points | write a bullet list | put the facts in bullets | answer with bullets"
        " | make a list with bullets | put dashes before the facts",
        "bullet points | a bullet list | bullets | a list with bullets | the facts as bullet points | dashes"
        " | replies with bullets",
        "That should be a bullet list. | Where are the bullet points? | Bullets are easier to read."
        " | I read faster with bullet points. | There were no bullets. | You forgot the bullets.",
        "Could you answer with bullet points? | A list of bullets, please. | Bullets would be easier for me."
        " | I want the answer as a bullet list. | Please use dashes or bullets.",
    ),
    Preference("format", "numbered"): _phrases(
        "number the facts | use a numbered list | write numbered lines | put numbers before the facts"
        " | count the facts | answer with numbered points",
        "a numbered list | numbered points | numbered facts | numbers before the facts | numbered lines"
        " | replies with numbers | the points numbered | the answer numbered | everything numbered",
        "The facts have no numbers. | Where are the numbers? | That should be a numbered list."
        " | I cannot count the facts. | Numbered points are easier to follow. | You forgot the numbers.",
        "Could you answer with a numbered list? | Numbered lines would be easier. | I want the facts numbered."
        " | Please write numbered points. | Put numbers before the lines, please.",
    ),
    Preference("emoji", "none"): _phrases(
        "leave out the emoji | stop using emoji | drop the smiley | answer without emoji | remove the emoji",
        "no emoji | answers without emoji | no smiley | text without a smiley | replies without emoji",
        "I do not like emoji. | The emoji is silly. | No more emoji. | Emoji are for children."
        " | That smiley annoys me. | I do not need a smiley.",
        "Could you stop using the smiley? | Replies without a smiley, please. | No more smiley for me."
        " | Please drop the emoji. | That emoji annoys me.",
    ),
    Preference("emoji", "emoji"): _phrases(
        "add an emoji | use emoji | end with an emoji | put a smiley at the end | include an emoji | add a smiley",
        "an emoji | emoji | an emoji at the end | a smiley | some emoji | answers with an emoji | replies with emoji",
        "There was no emoji. | I miss the emoji. | Your answers need an emoji. | Where is the smiley?"
        " | They look dull without emoji. | You forgot the emoji. | Your replies are dull without an emoji."
        " | It looks dull without a smiley.",
        "Could you end with a smiley? | A smiley at the end, please. | I miss a smiley."
        " | Please include some emoji. | Your answers look dull without an emoji.",
    ),
    Preference("closing", "none"): _phrases(
        "stop asking questions | leave out the question | end without a question | drop the closing question"
        " | skip the final question | stop asking me things",
        "no questions | no closing question | answers without a question | no question at the end | no final question",
        "Your questions annoy me. | You ask too much. | No more questions. | I do not like the question at the end."
        " | You do not have to ask me anything. | The closing question is not needed.",
        "Could you leave out the closing question? | Answers without questions, please. | The final question annoys me."
        " | Please end without questions. | No more closing questions for me.",
    ),
    Preference("closing", "question"): _phrases(
        "end with a question | ask me something at the end | ask if I want to know more | close with a question"
        " | finish with a question | ask a closing question",
        "a question at the end | a closing question | a final question | answers that end with a question",
        "You never ask me anything. | There was no question at the end. | You forgot to ask a question."
        " | Where is the closing question? | I like it when you ask me something. | I miss a final question."
        " | You forgot the final question. | You left out the closing question. | The closing question was missing.",
        "Could you finish with a closing question? | A final question at the end, please. | Please ask me a question."
        " | You forgot the closing question. | I like answers that close with a question.",
    ),
    Preference("greeting", "none"): _phrases(
        "stop greeting me | skip the greeting | leave out the hello | start without a greeting | drop the hello"
        " | answer without hello",
        "no greeting | no hello | answers without a greeting | no greeting at the start | no more hello",
        "You do not have to greet me. | No more greetings. | The hello is not needed. | I do not like the greeting."
        " | You say hello every time. | The greeting annoys me.",
        "Could you leave out the greeting? | Answers without a hello, please. | The greeting is not needed."
        " | Please start without a hello. | You do not have to say hello every time.",
    ),
    Preference("greeting", "greeting"): _phrases(
        "greet me first | say hello first | start with a greeting | begin with a hello | say hello before you answer",
        "a greeting first | a friendly hello | a hello at the start | a greeting at the start | a friendly greeting",
        "You did not say hello. | You forgot the greeting. | Where is my hello? | I miss a friendly greeting."
        " | You did not greet me. | It is rude to start without a greeting.",
        "Could you begin with a greeting? | A friendly hello first, please. | You forgot to say hello."
        " | Please greet me at the start. | I miss a hello at the start.",
    ),
    Preference("example", "none"): _phrases(
        "leave out the example | stop giving examples | skip the example | answer without an example"
        " | drop the examples",
        "no example | no examples | answers without examples | replies without an example | no more examples",
        "I do not need examples. | The example was useless. | No more examples. | I do not like the example."
        " | Examples waste my time. | The example is not needed.",
        "Could you skip the examples? | Replies without examples, please. | The examples are not needed."
        " | Please stop giving an example. | I do not like examples.",
    ),
    Preference("example", "example"): _phrases(
        "give an example | add an example | include an example | show me an example | finish with an example",
        "an example | one example | answers with an example | an example at the end | a good example"
        " | replies with an example",
        "There was no example. | I learn best with an example. | You forgot the example. | Where is the example?"
        " | It is hard to see without an example. | I miss an example.",
        "Could you include one example? | A good example at the end, please. | Please show one example."
        " | I learn best when you give an example. | You forgot to add an example.",
    ),
    Preference("tone", "plain"): _phrases(
        "use a neutral tone | be neutral | go back to a neutral tone | drop the special tone | sound neutral"
        " | leave out the opening line",
        "a plain tone | a neutral tone | a neutral style | no special tone | no opening line",
        "Your tone is strange. | The opening line is not needed. | No more opening lines. | I do not like your tone."
        " | The tone should be neutral. | The special tone annoys me.",
        "Could you sound neutral again? | A plain and neutral style, please. | The tone is strange."
        " | Please drop the opening line. | I prefer no special tone.",
    ),
    Preference("tone", "casual"): _phrases(
        "be casual | talk like a friend | use a relaxed tone | loosen up | sound more casual | speak in a relaxed way",
        "a casual tone | a relaxed style | casual answers | the tone of a friend | a relaxed tone | relaxed replies",
        "You sound too stiff. | That was stiff. | Relax a little. | You sound like a robot."
        " | We are friends here. | You are not casual enough.",
        "Could you speak like a friend? | A relaxed and casual tone, please. | That was too stiff for me."
        " | Please sound more relaxed. | I want casual replies.",
    ),
    Preference("tone", "formal"): _phrases(
        "be formal | use a formal tone | sound more formal | speak like a professor | write in a serious style"
        " | be more serious",
        "a formal tone | formal answers | a serious style | formal language | the tone of a professor | formal replies",
        "You are not formal enough. | This is a serious matter. | That was too sloppy. | I expect formal language."
        " | You sound like a child. | You are not serious enough.",
        "Could you speak in a formal way? | A serious and formal tone, please. | That was sloppy."
        " | Please sound more serious. | I expect a formal style.",
    ),
    Preference("heading", "none"): _phrases(
        "leave out the title | skip the heading | stop writing titles | answer without a heading | drop the title",
        "no title | no heading | answers without a title | no heading on top | no more titles",
        "I do not need a title. | The heading is useless. | No more headings. | I do not like the title."
        " | The title is not needed. | The heading annoys me.",
        "Could you skip the title? | Answers without a heading, please. | The heading is not needed."
        " | Please drop the heading. | I do not need titles.",
    ),
    Preference("heading", "heading"): _phrases(
        "add a title | start with a heading | put a heading on top | give it a title | write a title above the text"
        " | add a heading",
        "a title | a heading | a title on top | a heading above the text | answers with a title"
        " | replies with a heading",
        "There was no title. | You forgot the heading. | Where is the title? | I miss a heading."
        " | It is hard to find without a title. | Your answers need a title.",
        "Could you put a title on top? | A heading above the text, please. | Please start with a title."
        " | You forgot the title. | Your answers need a heading.",
    ),
    Preference("signoff", "none"): _phrases(
        "stop signing your answers | leave out the signature | drop the best wishes | end without a signature"
        " | skip the signature",
        "no signature | no best wishes | answers without a signature | no name at the end | no more signatures",
        "You do not have to sign. | The signature is silly. | No more best wishes. | I do not like the signature."
        " | I know your name. | The best wishes are not needed.",
        "Could you leave out the best wishes? | Answers without best wishes, please. | The signature is not needed."
        " | Please stop signing. | You do not have to sign your answers.",
    ),
    Preference("signoff", "signoff"): _phrases(
        "sign your answers | end with best wishes | add a signature | write your name at the end"
        " | sign with your name | close with best wishes | sign below | sign at the bottom",
        "a signature | best wishes at the end | your name at the end | answers with a signature | a signature below",
        "You forgot to sign. | There was no signature. | Where are my best wishes? | I miss your signature."
        " | You did not sign. | Your answers need a signature. | You should sign with your name at the end.",
        "Could you sign at the end? | Best wishes and your name, please. | You forgot the signature."
        " | Please close with a signature. | I miss the best wishes at the end.",
    ),
}
