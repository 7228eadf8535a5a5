"""What the comparison and the claims read of runs: DIRECTORY/seedS/NAME/eval/POLICY/kl.jsonl.

NAME is what compare.sh calls the run, POLICY one of its policies: iter1 and so on, or best_of_4.
"""

import json
import re
from pathlib import Path
from statistics import fmean

from common import rows, trajectories

# Tokens, in the log of a trainer that samples: of a response, of Nash-MD's opponent.
MEAN_LENGTH = "completions/mean_length"
OPPONENTS_LENGTH = "opponents/mean_length"
FIELDS = {
    "true_reward": "true_rewards",
    "proxy_reward": "rewards",
    "accuracy": "correct",
    "kl": "kl",
}


class Runs:
    """The answers of all policies to the test prompts, one answer for each prompt.

    answers: {(name, policy, seed): {metric: array, one number for each test prompt}}. The base's
    policy sft, which all runs start from, is there for every seed.
    """

    def __init__(self, directory):
        import numpy as np

        self.directory = Path(directory)
        self.answers = {}
        for path in sorted(self.directory.glob("seed*/*/eval/*/kl.jsonl")):
            seed, name, _, policy = path.relative_to(self.directory).parts[:4]
            # Each run has a link to the base's evaluation, which counts once.
            if policy == "sft" and name != "base":
                continue
            self.answers[name, policy, int(seed.removeprefix("seed"))] = read_metrics(path)
        # Only now all bases are read.
        for (_, _, seed), metrics in self.answers.items():
            base = self.answers["base", "sft", seed]["true_reward"]
            # A tie counts one half.
            metrics["win_rate"] = np.heaviside(metrics["true_reward"] - base, 0.5)

    def policies(self, name):
        """The policies of a run, the earliest round first."""
        policies = {policy for run, policy, _ in self.answers if run == name}
        return sorted(policies, key=lambda policy: int(re.sub(r"\D", "", policy) or 0))

    def seeds(self, name, policy):
        return sorted(seed for *key, seed in self.answers if key == [name, policy])

    def values(self, name, metric, policy=None):
        """{seed: one number for each test prompt} of a policy, by default the run's last."""
        policy = policy or self.policies(name)[-1]
        return {seed: self.answers[name, policy, seed][metric] for seed in self.seeds(name, policy)}

    def mean(self, name, metric, policy=None):
        """The mean over the prompts of each seed, then over seeds."""
        return mean_of(self.values(name, metric, policy))

    def gain(self, name, metric, policy=None):
        """{seed: gain over the fine-tuned policy for each test prompt}.

        In standard deviations of the fine-tuned policy's answers; not finite where they are equal.
        """
        import numpy as np

        gains = {}
        for seed, values in self.values(name, metric, policy).items():
            base = self.answers["base", "sft", seed][metric]
            with np.errstate(divide="ignore", invalid="ignore"):
                gains[seed] = (values - base.mean()) / base.std()
        return gains

    def cost(self, name, seed):
        """What a run took beyond the base, without evaluation: {"seconds", "generated", "trained"}.

        generated, trained: tokens.
        """
        run = self.directory / f"seed{seed}" / name
        # log/iter3 has what a round took; log/eval is left out.
        seconds = sum(int(file.read_text()) for file in run.glob("log/iter*/*.seconds"))
        trained = 0
        generated = 0
        for state in run.glob("iter*/policy/trainer_state.json"):
            history = read_history(state)
            # A trainer counts from the first step on: the largest entry is the whole training.
            trained += max((entry.get("num_tokens", 0) for entry in history), default=0)
            generated += sampled_in_training(history, run, state.parents[1] / "prompts.jsonl")
        for file in [*run.glob("iter*/responses.jsonl"), *run.glob("iter*/explored.jsonl")]:
            for row in rows.read(file):
                generated += sum(row["response_tokens"])
        return {"seconds": seconds, "generated": generated, "trained": trained}


def read_metrics(path):
    """{metric: array} of the test rows of a file, in the order of their ids."""
    import numpy as np

    # Sorted, so that the numbers of two policies belong to the same prompts.
    test = [row for row in rows.read(path, "rewards") if row["split"] == "test"]
    test.sort(key=lambda row: row["id"])
    metrics = {}
    for metric, field in FIELDS.items():
        metrics[metric] = np.array([row[field][0] for row in test], float)
    metrics["length"] = np.array(
        [len(trajectories.said(row["responses"][0])) for row in test], float
    )
    return metrics


def read_history(trainer_state):
    return json.loads(trainer_state.read_text())["log_history"]


def setting(run, name):
    """The text of one variable of a run."""
    lines = (run / "settings").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)[name]


def sampled_in_training(history, run, prompts_file):
    """Tokens that a trainer has sampled itself, of which its log has the mean length alone.

    Those of N responses to each prompt, and of Nash-MD's one opponent.
    """
    sampling_steps = [entry for entry in history if MEAN_LENGTH in entry]
    if not sampling_steps:
        return 0
    n = int(setting(run, "N"))
    prompts = sum(1 for _ in rows.read(prompts_file))
    tokens_per_prompt = fmean(
        n * entry[MEAN_LENGTH] + entry.get(OPPONENTS_LENGTH, 0) for entry in sampling_steps
    )
    return round(tokens_per_prompt * prompts)


# Statistics. per_seed: {seed: array, one number for each prompt}


def mean_of(per_seed):
    return fmean(values.mean() for values in per_seed.values())


def interval(per_seed, resamples=2000):
    """(mean, low, high): the mean over seeds and prompts, and its 95% interval by a bootstrap.

    The bootstrap draws seeds, then prompts of each. With one seed the interval is of the prompts
    alone.
    """
    import numpy as np

    seeds = list(per_seed.values())
    # The same seed for every interval: the same runs give the same table.
    generator = np.random.default_rng(0)
    means = []
    for _ in range(resamples):
        drawn_means = []
        for i in generator.integers(len(seeds), size=len(seeds)):
            prompts = generator.integers(len(seeds[i]), size=len(seeds[i]))
            drawn_means.append(seeds[i][prompts].mean())
        means.append(np.mean(drawn_means))
    mean = np.mean([values.mean() for values in seeds])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(mean), float(low), float(high)


def paired_interval(first, second):
    """interval() of first - second, prompt by prompt, on the seeds that both have."""
    common_seeds = first.keys() & second.keys()
    return interval({seed: first[seed] - second[seed] for seed in common_seeds})
