"""Language models trained by DeepSpeed on Ray Train: recipe in, measured and exported model out.

A run is one folder, `<runs>/<recipe name>-<hash of recipe and data>/<n>`, and everything that happens to it is a file
there:

    corpus/        tokens of both splits, the tokenizer, and what was read, skipped and held out
    checkpoints/   `step-00000200/`, each with a manifest of hashes; made whole by one rename
    progress.jsonl one line for each report of rank 0: the only source of console lines, MLflow metrics and charts
    model/         the exported model in Hugging Face layout, and measure.json with its cost in bits
    report/        charts and table
    leave          what the driver asks of the workers: to stay, or to checkpoint and leave
    lock           held by the driver, so that one job at a time has the run
    result.json    written last: its presence means that the run is finished

So an unfinished folder is all it takes to resume, whether a worker died, the driver was killed, the gang was asked
back or the machine rebooted, on any number of workers; and several nodes need no more than one shared folder. `loop`
knows DeepSpeed and no Ray, so the same loop runs under two plain processes; `run` puts it on the cluster, on a gang
that somebody lends (`gang`). `recipes` imports no torch, so that reading one costs nothing.
"""
