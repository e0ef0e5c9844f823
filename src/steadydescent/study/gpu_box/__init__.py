"""One command for a GPU box: what it is, its tests, its speed, then as much as fits of the study.

Each part writes its own file as soon as there is something in it, so that a box that is taken away
at any moment has left what it had; a second call goes on where the first ended.

    machine.json    what the box is
    tests.json      the tests that need a GPU
    bench.json      the engine against its peers, with the machine's ceilings, case by case
    stackings.yml   rows for `study/planning/stackings.yml`, and the measurements they rest on
    study.json      what of the study was trained, experiment by experiment
    store-1.tar …   its finished stacks, for `steady import-store` elsewhere

It may use planning, results and training, and runs what `benchmarks/` measures; no network, no
notebook and no book. Measuring and training go on in processes of their
own (`steadydescent.study.training.items`): this one only reads what they tell.
"""
