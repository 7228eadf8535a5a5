# SPPO (arXiv 2405.00675): each log-ratio to the previous policy is drawn to (P - 1/2) / beta, where P is the response's
# mean win probability among the N.
ignores DPO_LOSS
default REFERENCE previous
default DPO_BETA 0.001
make_pairs() { pair "$1" "$2" --win_probabilities; }
optimise() { train_on_pairs dpo/1_dpo.py "$@" -- --loss_type sppo; }
