"""What the comparison and the claims read of the runs below a directory: DIRECTORY/seedS/NAME/eval/POLICY/kl.jsonl."""

import json
import re
from pathlib import Path

from common import rows

LENGTH = "completions/mean_length"  # tokens, in the log of a trainer that samples
FIELDS = {
    "true_reward": "true_rewards",
    "proxy_reward": "rewards",
    "accuracy": "correct",
    "kl": "kl",
}


class Runs:
    """The answers of all policies to the test prompts, one a prompt."""

    def __init__(self, directory):
        import numpy as np

        self.directory, self.answers = Path(directory), {}
        for path in sorted(self.directory.glob("seed*/*/eval/*/kl.jsonl")):
            seed, name, _, policy = path.relative_to(self.directory).parts[:4]
            if policy == "sft" and name != "base":
                continue
            test = sorted(
                (r for r in rows.read(path, "rewards") if r["split"] == "test"),
                key=lambda row: row["id"],
            )
            values = {
                key: np.array([row[field][0] for row in test], float)
                for key, field in FIELDS.items()
            }
            values["length"] = np.array([len(row["responses"][0]) for row in test], float)
            self.answers[name, policy, int(seed[4:])] = values
        for (_, _, seed), values in self.answers.items():
            base = self.answers["base", "sft", seed]["true_reward"]
            values["win_rate"] = np.heaviside(
                values["true_reward"] - base, 0.5
            )  # a tie counts one half

    def policies(self, name):
        """Its policies, the earliest round first."""
        found = {policy for of, policy, _ in self.answers if of == name}
        return sorted(found, key=lambda policy: int(re.sub(r"\D", "", policy) or 0))

    def seeds(self, name, policy):
        return sorted(seed for of, its, seed in self.answers if (of, its) == (name, policy))

    def values(self, name, metric, policy=None):
        """{seed: one number a test prompt} of a policy, the last one's if none is named."""
        policy = policy or self.policies(name)[-1]
        return {seed: self.answers[name, policy, seed][metric] for seed in self.seeds(name, policy)}

    def gain(self, name, metric, policy=None):
        """The same of what it has gained over the fine-tuned policy, in standard deviations of that one's answers.

        They are not finite where its answers do not vary."""
        import numpy as np

        bases = {
            seed: self.answers["base", "sft", seed][metric]
            for seed in self.values(name, metric, policy)
        }
        of_seeds = self.values(name, metric, policy).items()
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                seed: (values - bases[seed].mean()) / bases[seed].std() for seed, values in of_seeds
            }

    def cost(self, name, seed):
        """What a run has taken beyond the base, without evaluation: seconds, tokens generated and trained on."""
        run = self.directory / f"seed{seed}" / name
        logs = list(run.glob("log/iter*/*.seconds"))
        trained = generated = 0
        for state in run.glob("iter*/policy/trainer_state.json"):
            history = json.loads(state.read_text())["log_history"]
            trained += max(
                (entry["num_tokens"] for entry in history if "num_tokens" in entry), default=0
            )
            sampled = [entry[LENGTH] for entry in history if LENGTH in entry]
            if sampled:
                n = int(re.search(r"^N=(\d+)$", (run / "settings").read_text(), re.MULTILINE)[1])
                prompts = sum(1 for _ in rows.read(state.parents[1] / "prompts.jsonl"))
                generated += round(sum(sampled) / len(sampled) * n * prompts)
        for file in [*run.glob("iter*/responses.jsonl"), *run.glob("iter*/explored.jsonl")]:
            generated += sum(sum(row["response_tokens"]) for row in rows.read(file))
        return {
            "seconds": sum(int(p.read_text()) for p in logs),
            "generated": generated,
            "trained": trained,
        }


def interval(per_seed, resamples=2000):
    """(mean, low, high): over seeds and prompts, and 95% of a bootstrap that draws seeds, then prompts of each.

    per_seed: {seed: array}, one number a prompt. With one seed the interval tells of the prompts alone."""
    import numpy as np

    groups, draw = list(per_seed.values()), np.random.default_rng(0)
    means = []
    for _ in range(resamples):
        drawn = [groups[i] for i in draw.integers(len(groups), size=len(groups))]
        means.append(
            np.mean([group[draw.integers(len(group), size=len(group))].mean() for group in drawn])
        )
    return float(np.mean([g.mean() for g in groups])), *(
        float(q) for q in np.quantile(means, [0.025, 0.975])
    )


def difference(runs, metric, first, second):
    """The same of first - second, (name, policy or None) each, on the seeds that both have, prompt by prompt."""
    a, b = (runs.values(name, metric, policy) for name, policy in (first, second))
    return interval({seed: a[seed] - b[seed] for seed in a.keys() & b.keys()})
