"""Wikipedia's mark-up becomes the text that a reader sees, and the packaged articles have none of it left."""

import pytest

from atomlab.activations.corpora.wikipedia import WikipediaEmbedded, strip_markup, wikipedia_articles


@pytest.mark.parametrize(("markup", "text"), [
    ("An [[atom]] and [[Molecule|molecules]].", "An atom and molecules."),
    ("{{Infobox|a={{nested|b}}|c}}Text{{ref}}.", "Text."),
    ("Before{| class=x\n| cell {| inner |} |\n|}After", "BeforeAfter"),
    ("Fact.<ref name=a>Book, p. 1</ref> More.<ref name=a/>", "Fact. More."),
    ("<!-- a\ncomment -->'''Bold''' and ''italic''", "Bold and italic"),
    ("[[File:a.png|thumb|A [[linked]] caption]]Text [[Category:Atoms]]", "Text"),
    ("[http://example.org a page] and [https://example.org]", "a page and"),
    ("== Heading ==\n\n\n* item\n# first\n: indented", "Heading\nitem\nfirst\nindented"),
    ("<math>x^2</math>a&nbsp;b  c<br/>", "a b c"),
    ("__TOC__Plain, with {one} brace and 3 < 4.", "Plain, with {one} brace and 3 < 4."),
])  # fmt: skip
def test_markup_goes_and_text_stays(markup: str, text: str) -> None:
    assert strip_markup(markup) == text


def test_articles_are_long_distinct_and_free_of_markup() -> None:
    articles = dict(wikipedia_articles())
    assert len(articles) == 99
    assert min(map(len, articles.values())) >= 2000
    for mark in ("{{", "}}", "{|", "<ref", "__NOTOC__"):
        assert not any(mark in text for text in articles.values()), mark
    # a bracket that the page itself leaves open
    assert [title for title, text in articles.items() if "[[" in text] == ["Animal Farm", "Alkane"]


def test_processes_share_the_articles_in_their_order() -> None:
    whole = [(example.group, example.text) for example in WikipediaEmbedded().examples()]
    parts = [[(e.group, e.text) for e in WikipediaEmbedded().stream(rank, 3)] for rank in range(3)]
    assert [part == whole[rank::3] for rank, part in enumerate(parts)] == [True] * 3
    assert whole == list(wikipedia_articles())
