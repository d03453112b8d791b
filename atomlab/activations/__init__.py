"""Turns text into batches of activations: text -> tokens -> harvest -> store -> batches, one room for each stage.

corpora/ reads text, or token ids, record by record. tokens/ turns it into token sequences of train, validation and test,
which share no group. model/ runs the language model and reads its activations at hook points. harvest/ runs the model
over the sequences and writes what the cache lacks. store/ keeps the activations on disk and reads them back. batches/
hands them to the training, in a random order from the cache or straight from the model.
"""
