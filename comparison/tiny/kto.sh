# KTO (arXiv 2402.01306): the best and the worst response of the same annotations, each by itself.
OPTIMISER=kto
