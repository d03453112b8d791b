"""Hands activations to the training in a random order, which the seed and the step alone determine.

order.py has the options (`TrainingBatches`, `Online`). shuffle.py orders rows of the store, for training and for
validation. online.py fills a buffer straight from the language model, for corpora larger than the disk. background.py
prepares batches in a thread while the training computes, gather.py says what is prepared. lockstep.py hands each batch to several
trainings of one process.
"""
