"""The public preference datasets of the paper's Table 5: names on the hub, and loading."""

from common import rows

# The helpful part of HH-RLHF stands in three directories.
HH_RLHF = [
    "Anthropic/hh-rlhf:helpful-base",
    "Anthropic/hh-rlhf:helpful-rejection-sampled",
    "Anthropic/hh-rlhf:helpful-online",
]
MIX1 = [
    *HH_RLHF,
    "stanfordnlp/SHP",
    "openbmb/UltraFeedback",
    "openai/summarize_from_feedback:comparisons",
]
MIX2 = [
    *HH_RLHF,
    "stanfordnlp/SHP",
    "nvidia/HelpSteer",
    "PKU-Alignment/PKU-SafeRLHF-30K",
    "openbmb/UltraFeedback",
    "openbmb/UltraInteract_pair",
    "coseal/CodeUltraFeedback",
    "argilla/distilabel-math-preference-dpo",
    "argilla/distilabel-intel-orca-dpo-pairs",
    # Of the two Capybara sets the one of 14,811 pairs.
    "argilla/Capybara-Preferences-Filtered",
]
# mix2 as its authors publish it, in one format and cleaned: Table 5's 848,965 pairs.
STANDARD = [
    "RLHFlow/HH-RLHF-Helpful-standard",
    "RLHFlow/SHP-standard",
    "RLHFlow/Helpsteer-preference-standard",
    "RLHFlow/PKU-SafeRLHF-30K-standard",
    "RLHFlow/UltraFeedback-preference-standard",
    "RLHFlow/UltraInteract-filtered-standard",
    "RLHFlow/CodeUltraFeedback-standard",
    "RLHFlow/Argilla-Math-DPO-standard",
    "RLHFlow/Orca-distibalel-standard",
    "RLHFlow/Capybara-distibalel-Filter-standard",
]
MIXES = {"mix1": MIX1, "mix2": MIX2, "standard": STANDARD}
REVISIONS = {
    # Its main branch holds a loading script, which the datasets library refuses to run.
    "openai/summarize_from_feedback": "refs/convert/parquet",
}


def load(source, split):
    """Rows, unchecked, of a file or of a hub dataset.

    source: a file (JSON lines or JSON, gzipped or not, Parquet), NAME, or NAME:DIRECTORY.
    """
    if rows.is_file(source):
        return rows.of_file(source)
    name, _, directory = source.partition(":")
    revision = REVISIONS.get(name)
    return rows.of_library(source, name, split, data_dir=directory or None, revision=revision)
