# TRL's hinge: relu(1 - beta D), SLiC's margin on the log-ratios of DPO.
DPO_LOSS=hinge
