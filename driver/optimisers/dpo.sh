# Iterative DPO (paper 3.2, 3.3): the stages as they stand in driver/stages.sh.
