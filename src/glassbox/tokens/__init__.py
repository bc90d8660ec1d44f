"""Text to numbers: tokenizer, chat format, token shards, and the order in which training reads them.

In: documents (Parquet), generated problems, conversations. Out: a tokenizer, token shards, and batches of packed rows.
Open `tokenizer.py` and `chat.py` for text <-> ids, `encoder.py` for ids in bulk, `shards.py` for the files,
`order.py` for what is read when, `batches.py` for rows of pretraining and evaluation, `pack.py` for rows of
conversations, `baselines.py` for the scores that a model must beat; `tokenizer_stage.py` and `tokenize_stage.py` run
the two stages.
"""
