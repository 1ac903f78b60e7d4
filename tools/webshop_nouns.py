"""Makes the noun table of a WebShop catalogue: `title_nouns.json` beside the products.

The reward of a purchase compares the nouns of two titles as a spaCy model tags them. The engine
reads them from this table; without it, it approximates. The original pins spaCy 3.7 and
`en_core_web_sm`; other versions of the model change a few rewards in a thousand.

    pip install spacy && python -m spacy download en_core_web_sm
    python tools/webshop_nouns.py items_shuffle_1000.json title_nouns.json [MODEL]
"""

import gzip
import json
import sys

import spacy


def read(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    source, target = sys.argv[1:3]
    model = sys.argv[3] if len(sys.argv) == 4 else "en_core_web_sm"
    tagger = spacy.load(model, disable=["parser", "ner"])
    titles = {}
    for product in read(source):
        # As in the loader, the first product of an ASIN counts.
        titles.setdefault(product["asin"], product["name"])
    nouns = {}
    documents = tagger.pipe(titles.values(), batch_size=256)
    for asin, document in zip(titles, documents):
        tags = ("NOUN", "PROPN")
        nouns[asin] = [token.text.lower() for token in document if token.pos_ in tags]
    name = f"{tagger.meta['lang']}_{tagger.meta['name']} {tagger.meta['version']}"
    table = {"model": f"{name}, spaCy {spacy.__version__}", "nouns": nouns}
    opener = gzip.open if target.endswith(".gz") else open
    with opener(target, "wt", encoding="utf-8") as file:
        json.dump(table, file)
    print(f"{len(nouns)} titles", file=sys.stderr)


if __name__ == "__main__":
    main()
