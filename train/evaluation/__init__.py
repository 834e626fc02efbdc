"""What a model is worth.

evaluate        `metrics.json`, `report.md`, `report.html` of a run
score           a model's answers on a split, with the labels
measure         what they are worth, by survey, class and S/N
witnesses       which samples intervals draw together
conformal       intervals and sets that hold the truth as often as they say
features        spectra as principal components
classical       nearest neighbours, forest, support vectors on spectra
predictions     their answers on disk, beside a run
other_runs      other trained runs as baselines
"""
