"""Plot a map of a prompt set, coloured by source and by topic, as the paper's Figure 5.

The words of each prompt are weighted by TF-IDF, reduced to 50 dimensions (latent semantic
analysis), and from there to 2 by t-SNE. Topics are the clusters of k-means in the 50 dimensions,
named by the words with the largest weights in their centre.

Reads:  --prompts_file, rows {"id", "prompt", "source"?}, a random sample of at most --size
Writes: --output_file, a PNG
        a table of the topics beside it, with the suffix .md: words and number of prompts

    python generation/3_prompt_map.py --prompts_file runs/tiny/iter1/prompts.jsonl \
        --output_file my_map.png
"""

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common import arguments, outputs, rows, tables

# The first line of our table: a file that begins otherwise is not overwritten.
TABLE_HEAD = "| topic |"
DIMENSIONS = 50
PERPLEXITY = 30  # of t-SNE, scikit-learn's default
WORDS_PER_TOPIC = 4
# Matplotlib's cycle has ten colours: one per source, and one for all other sources together.
COLOURED_SOURCES = 9


@dataclass
class Prompt:
    source: str
    text: str  # without the assistant's turns


@dataclass
class PromptMap:
    topics: list  # their names
    labels: list  # of each prompt its topic, an index
    points: object  # an array (prompts, 2)


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--prompts_file", required=True)
    parser.add_output("--output_file", suffixes=[".md"], type=Path, required=True)
    parser.add_argument(
        "--size", type=arguments.whole(1), default=5000, help="prompts to sample at most"
    )
    parser.add_argument("--topics", type=arguments.whole(2), default=8)
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    return parser.parse_args()


def read_prompts(file):
    prompts = []
    for row in rows.read(file, "prompts"):
        texts = [turn["content"] for turn in row["prompt"] if turn["role"] != "assistant"]
        prompts.append(Prompt(str(row.get("source", "-")), " ".join(texts)))
    return prompts


def tf_idf(texts, file):
    """(sparse weights (texts, words), the words). file: where the texts are from, for errors."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(max_features=20_000, sublinear_tf=True, stop_words="english")
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError as error:
        # The texts hold nothing but stop words.
        sys.exit(f"{file}: prompt: {error}")
    if weights.shape[1] < 3:
        sys.exit(f"{file}: prompt: {weights.shape[1]} different words, a map needs three")
    return weights, vectorizer.get_feature_names_out()


def make_map(texts, args):
    """The PromptMap of these texts."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.manifold import TSNE

    weights, words = tf_idf(texts, args.prompts_file)
    dimensions = min(DIMENSIONS, len(words) - 1)
    svd = TruncatedSVD(dimensions, random_state=args.seed).fit(weights)
    # (texts, dimensions)
    reduced = svd.transform(weights)
    clusters = KMeans(args.topics, n_init=4, random_state=args.seed).fit(reduced)
    topics = []
    # From the dimensions of a centre back to the weights of the words.
    for centre in svd.inverse_transform(clusters.cluster_centers_):
        heaviest = (-centre).argsort()[:WORDS_PER_TOPIC]
        topics.append(" ".join(words[heaviest]))
    # The perplexity, a number of neighbours, has to be below the number of texts.
    perplexity = min(PERPLEXITY, len(texts) - 1)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=args.seed)
    points = tsne.fit_transform(reduced)
    return PromptMap(topics, clusters.labels_.tolist(), points)


def plot_panel(axes, points, labels, title):
    """One point per prompt in the colour of its label; the legend counts the prompts.

    points: (prompts, 2).
    """
    for i, (label, count) in enumerate(Counter(labels).most_common()):
        has_label = [other == label for other in labels]
        x, y = points[has_label].T
        axes.scatter(x, y, s=4, color=f"C{i}", label=f"{label} ({count})")
    axes.set(title=title, xticks=[], yticks=[])
    axes.legend(
        markerscale=4,
        fontsize=8,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        ncols=2,
    )


def plot_map(prompts, prompt_map):
    """The figure: the map twice, by source and by topic."""
    from matplotlib.figure import Figure

    most_common = Counter(prompt.source for prompt in prompts).most_common(COLOURED_SOURCES)
    coloured = {source for source, _ in most_common}
    sources = [p.source if p.source in coloured else "others" for p in prompts]
    topics = [prompt_map.topics[label] for label in prompt_map.labels]
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_panel(left, prompt_map.points, sources, f"{len(prompts)} prompts by source")
    plot_panel(right, prompt_map.points, topics, f"{len(prompts)} prompts by topic")
    return figure


def main():
    args = parse_arguments()
    start = time.time()
    prompts = read_prompts(args.prompts_file)
    size = min(args.size, len(prompts))
    # K-means of fewer than ten prompts per topic would say nothing.
    if size < 10 * args.topics:
        sys.exit(
            f"{args.prompts_file}: {size} prompts, --topics {args.topics} needs {10 * args.topics}"
        )
    table_file = outputs.table_beside(args.output_file, TABLE_HEAD)
    sample = random.Random(args.seed).sample(prompts, size)
    prompt_map = make_map([prompt.text for prompt in sample], args)
    outputs.write_figure(args.output_file, plot_map(sample, prompt_map), dpi=120)

    lines = []
    for label, count in Counter(prompt_map.labels).most_common():
        lines.append([prompt_map.topics[label], count])
    text = tables.markdown(["topic", "prompts"], lines) + "\n"
    outputs.write_text(table_file, text)
    print(
        f"{text}{args.output_file} rows in: {len(prompts)}, shown: {size}, "
        f"{time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
