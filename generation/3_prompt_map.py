"""Draw a map of a prompt set, coloured by source and by topic, as the paper's Figure 5.

TF-IDF of each prompt's words, 50 dimensions of it (latent semantic analysis), from there 2 by t-SNE. Topics are the
clusters of k-means in the 50 dimensions, named by the words that weigh most in their middle.

Reads:  --prompts_file, rows {"id", "prompt", "source"?}, of which --size are drawn
Writes: --output_file, a PNG; beside it, with the suffix .md, the topics: prompts and words

    python generation/3_prompt_map.py --prompts_file runs/tiny/iter1/prompts.jsonl --output_file my_map.png
"""

import random
import sys
import time
from collections import Counter
from pathlib import Path

from common import arguments, outputs, rows


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--prompts_file", required=True)
    parser.add_output("--output_file", suffixes=[".md"], type=Path, required=True)
    parser.add_argument(
        "--size", type=arguments.whole(1), default=5000, help="prompts to draw at most"
    )
    parser.add_argument("--topics", type=arguments.whole(2), default=8)
    parser.add_argument("--seed", type=arguments.SEED, default=0)
    args = parser.parse_args()
    start, random_state = time.time(), random.Random(args.seed)
    prompts = []
    for row in rows.read(args.prompts_file, "prompts"):
        asked = " ".join(turn["content"] for turn in row["prompt"] if turn["role"] != "assistant")
        prompts.append((str(row.get("source", "-")), asked))
    shown = random_state.sample(prompts, min(args.size, len(prompts)))
    if len(shown) < 10 * args.topics:
        sys.exit(
            f"{args.prompts_file}: {len(shown)} prompts, --topics {args.topics} needs {10 * args.topics}"
        )

    table_file = outputs.table_beside(args.output_file, "| topic |")

    import numpy as np
    from matplotlib.figure import Figure
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.manifold import TSNE

    sources, texts = zip(*shown, strict=True)
    vectorizer = TfidfVectorizer(max_features=20_000, sublinear_tf=True, stop_words="english")
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError as error:  # only stop words
        sys.exit(f"{args.prompts_file}: prompt: {error}")
    if weights.shape[1] < 3:
        sys.exit(
            f"{args.prompts_file}: prompt: {weights.shape[1]} different words, a map needs three"
        )
    space = TruncatedSVD(min(50, weights.shape[1] - 1), random_state=args.seed).fit(weights)
    points = space.transform(weights)
    clusters = KMeans(args.topics, n_init=4, random_state=args.seed).fit(points)
    words, middles = (
        vectorizer.get_feature_names_out(),
        space.inverse_transform(clusters.cluster_centers_),
    )
    topics = [" ".join(words[i] for i in np.argsort(-middle)[:4]) for middle in middles]
    flat = TSNE(init="pca", random_state=args.seed).fit_transform(points)

    common = [name for name, _ in Counter(sources).most_common(9)]
    by_source = [name if name in common else "others" for name in sources]
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    for axes, title, labels in zip(
        figure.subplots(1, 2),
        ("source", "topic"),
        (by_source, [topics[i] for i in clusters.labels_]),
        strict=True,
    ):
        for i, (name, count) in enumerate(Counter(labels).most_common()):
            chosen = [label == name for label in labels]
            axes.scatter(*flat[chosen].T, s=4, color=f"C{i}", label=f"{name} ({count})")
        axes.set(title=f"{len(shown)} prompts by {title}", xticks=[], yticks=[])
        axes.legend(
            markerscale=4,
            fontsize=8,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            ncols=2,
        )
    outputs.write_figure(args.output_file, figure, dpi=120)
    lines = [
        f"| {topics[i]} | {count} |"
        for i, count in Counter(clusters.labels_.tolist()).most_common()
    ]
    text = "\n".join(["| topic | prompts |", "| --- | --- |", *lines]) + "\n"
    outputs.write_text(table_file, text)
    print(
        f"{text}{args.output_file} rows in: {len(prompts)}, shown: {len(shown)}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
