# Each round's pairs together with 300 prompts of the offline preference data.
OFFLINE_SIZE=300
