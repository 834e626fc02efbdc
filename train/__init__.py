"""Shards in; fine-tuned models, predictions and reports out. Stands on `shards`, opens no Parquet of flux.

Training:

    config          what decides a run
    fit             learning from labels
    loop            the training loop, for any objective
    meter           what a run shows while it goes on
    checkpoint      the state of a run under way
    run             the folder of a run: model, card, record

Models and tasks:

    model           pictures to logits, through any backbone of transformers
    sequence        the one-dimensional transformer: spectra to logits
    layers          what models that read spectra have in common
    tokenizer       self-supervised pretraining on spectra (a package)
    tasks           what a model can learn, side by side
    classification  classes and subclasses
    regression      redshift, temperature, gravity, metallicity
    heads           what a last layer says about one number

Judging:

    evaluate        `metrics.json`, `report.md`, `report.html` of a run
    scoring         a model's answers on a split, with the labels
    judgement       what they are worth, by survey, class and S/N
    metrics         the numbers, in NumPy
    conformal       intervals and sets that hold the truth as often as they say
    baselines       majority class, mean label, by survey
    classical       nearest neighbours, forest, support vectors on spectra
    answers         their answers on disk, beside a run
    rivals          other trained runs as baselines
    report          metrics in words and tables
    page            metrics as one HTML page
    figures         which figures a run has
    plots           how each is drawn

Using:

    sources         what a model is asked about: files, Parquet, shards
    predict         predictions as a table
    explain         where a model looks
    attention       attention, put back onto wavelengths
    embed           vectors, neighbours, what stands apart
    export          ONNX, or a folder for the model hub
    modelcard       its card
    options         what the commands have in common
    tool_commands   the commands `explain`, `embed` and `export`
"""
